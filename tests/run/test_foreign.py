"""A run's folder may be anybody's: whoever only looks at it is not harmed, not kept waiting, and told in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opd.run.directory import RunFolder
from opd.run.metrics import read_metrics
from opd.run.transcripts import read_transcripts, step_file
from opd.types import UserError
from tests.report.made import save_run
from tests.tiny import cli_code, save_config

ROWS = [{"step": 1, "kl/exact": 2.0}, {"step": 2, "kl/exact": 1.0}]
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(c + 1)}: &{chr(c + 1)} [{', '.join([f'*{chr(c)}'] * 9)}]\n" for c in range(ord("a"), ord("i"))
)
BAD = {
    "laughs": LAUGHS, "in itself": "data: &a {tasks: *a}\n", "nested": "[" * 10**5, "long": "name: " + "x" * 10**7,
    "nested objects": '{"a": ' * 10**5, "no UTF-8": "\udcff",
    "wrong kinds": '{"packages": 3, "gpus": 3, "how": [], "verdicts": 1, "why": {}}',
}  # fmt: skip


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def holding(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8", errors="surrogateescape")


@pytest.mark.parametrize("harm", [*map(holding, BAD.values()), pipe], ids=[*BAD, "a pipe"])
@pytest.mark.parametrize("name", ["config.yaml", "env.json", "health.json", "ended.json", "overrides.txt"])
def test_a_bad_file_of_a_run_is_one_line_to_its_readers_and_no_end_of_a_list_of_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, harm: Callable[[Path], object]
) -> None:
    save_run(tmp_path / "runs/good", ROWS)
    run = save_run(tmp_path / "runs/bad", ROWS)
    harm(run.path / name)
    assert cli_code(["runs", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert {"good", "bad"} <= {line.split()[0] for line in said.splitlines() if line.strip()}
    assert max(map(len, said.splitlines())) < 1000
    for command in (["report", str(run.path)], ["diff", str(run.path), str(tmp_path / "runs/good")]):
        code = cli_code(command)
        err = capsys.readouterr().err
        assert (code, err.count("\n"), "internal" in err) in [(0, 0, False), (2, 1, False)], err


@pytest.mark.parametrize("steps", [(1, 1), (2, 1), (1, -2), (1, 10**300)])
def test_rows_that_do_not_follow_each_other_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: tuple[int, ...]
) -> None:
    run = save_run(tmp_path / "a", ROWS)
    run.metrics.write_text("".join(f'{{"step": {step}, "kl/exact": 1}}\n' for step in steps))
    assert cli_code(["report", str(run.path)]) == 2
    assert "metrics.jsonl, line 2: " in capsys.readouterr().err


def test_rollouts_of_other_kinds_are_refused_by_the_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.rollouts.mkdir()
    texts = {name: ["x"] for name in ("id", "prompt", "completion", "reward", "truncated", "origin", "tokens")}
    table = pa.table(texts | {name: ["x"] for name in ("texts", "logprobs", "teacher_logprobs", "trained")})
    pq.write_table(table, step_file(run.rollouts, 1))
    with pytest.raises(UserError, match=r"step_000001.parquet: not the rollouts of a step"):
        read_transcripts(run.rollouts, 1)


def test_whoever_goes_on_with_a_run_of_links_changes_nothing_that_they_lead_to(
    tmp_path: Path, student_dir: Path, teacher_dir: Path
) -> None:
    config, run = save_config(tmp_path / "tiny.yaml", student_dir, teacher_dir), tmp_path / "run"
    short = ["steps=2", "eval.size=2", "eval.every=1", "preflight.prompts=2", "log.rollouts_every=1"]
    assert cli_code(["train", f"conf={config}", f"run={run}", "-q", "source=gated", "source.samples=1", *short]) == 0
    assert cli_code(["report", str(run)]) == 0
    files = [p for p in run.rglob("*") if p.is_file() and run / "checkpoints" not in p.parents]
    held = {tmp_path / "outside" / file.relative_to(run): file.read_bytes() for file in files}
    for there, file in zip(held, files, strict=True):
        there.parent.mkdir(parents=True, exist_ok=True)
        file.rename(there)
        file.symlink_to(there)
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=4"]) == 0
    assert cli_code(["report", str(run)]) == 0
    assert {there: there.read_bytes() for there in held} == held
    assert {path.name for path in held} >= {"metrics.jsonl", "overrides.txt", "teacher_solves.jsonl", "config.yaml"}
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")][-1] == 4
