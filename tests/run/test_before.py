"""A run that was made before files moved (`before/`, with its models) is still a run for every command.

It was made on a CPU by four steps of a config that names a class in every part, and `expected.jsonl` holds what steps 5
and 6 gave when that version went on. One number is another since: `a6*lqm` of step 6 was read as the answer 6 then,
and a number before a sign is none now; with the old reading the gradient is the old one, 4.908358573913574.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import opd
from opd.run.metrics import read_metrics

BEFORE = Path(__file__).parent / "before"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> opd.Run:
    shutil.copytree(BEFORE, tmp_path / "before")
    monkeypatch.chdir(tmp_path / "before")
    return opd.load_run("run")


def test_it_goes_on_as_it_would_have(run: opd.Run) -> None:
    gone_on = opd.resume(run, "steps=6", quiet=True)
    expected = read_metrics(BEFORE / "expected.jsonl")
    for now, then in zip(gone_on.metrics[-2:], expected, strict=True):
        for name in ("kl/sampled", "kl/exact", "rollout/length", "eval/kl", "optim/grad_norm"):
            if name in then:
                assert now[name] == pytest.approx(then[name], rel=1e-3), name


def test_it_is_evaluated_exported_sampled_read_and_reported(run: opd.Run) -> None:
    assert [row["step"] for row in run.metrics] == [0, 1, 2, 3, 4]
    assert len(run.rollouts(4)) == 8
    rows = opd.evaluate(run, quiet=True)
    assert rows["student after 4 steps"]["eval/kl"] == pytest.approx(run.metrics[-1]["eval/kl"], rel=1e-3)
    assert (Path(opd.export(run, dtype="float32", quiet=True)["path"]) / "config.json").is_file()
    assert len(opd.sample(run, ["1+2"])) == 1
    from opd.report.page import write_report

    assert "before" in Path(write_report(["run"], None, [])).read_text()
