"""What an evaluation writes, and what it leaves of an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import opd
from opd.commands import subject
from opd.commands.eval.measure import write_all
from opd.evaluation.evaluate import Evaluation
from opd.run.results import FINAL
from opd.types import Pretrained, RunError, Sampling
from tests.tiny import cli_code


def of(accuracy: float) -> Evaluation:
    return Evaluation({"eval/accuracy": accuracy}, [{"id": "a", "prompt": "1+1"}], Sampling(max_tokens=4))


def test_rows_that_there_are_no_more_go_once_the_new_ones_are_written(tmp_path: Path) -> None:
    write_all(tmp_path, FINAL, {"before": of(0.1), "after": of(0.2), "teacher": of(0.3)})
    write_all(tmp_path, FINAL[1:], {"a model": of(0.4)})
    assert [p.name for p in tmp_path.glob("*.json")] == ["final_after.json"]


def test_an_evaluation_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    write_all(tmp_path, FINAL, {"before": of(0.1), "after": of(0.2), "teacher": of(0.3)})
    first = tmp_path / f"{FINAL[0]}.jsonl"
    first.unlink()
    first.mkdir()
    was = {p.name: p.read_text() for p in tmp_path.glob("*.json")}
    with pytest.raises(RunError, match=f"{first} cannot be written"):
        write_all(tmp_path, FINAL[:2], {"before": of(0.5), "after": of(0.6)})
    assert {p.name: p.read_text() for p in tmp_path.glob("*.json")} == was


def test_an_evaluation_that_somebody_keeps_elsewhere_is_replaced_by_itself_alone(
    config: Path, tmp_path: Path, teacher_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = f"run={tmp_path / 'run'}", tmp_path / "mine"
    short = ["steps=1", "eval.every=0", "eval.size=2", "preflight.prompts=2", "-q"]
    assert cli_code(["train", f"conf={config}", run, *short]) == 0
    measured = ["--out", str(out), "-q"]
    assert cli_code(["eval", run, *measured]) == 0
    was = {p.name: p.read_bytes() for p in out.iterdir()}
    assert was.keys() >= {f"{name}.json" for name in FINAL}
    capsys.readouterr()
    assert cli_code(["eval", f"conf={config}", f"model={teacher_dir}", "eval.size=2", *measured]) == 2
    assert f"--out={out}: final_before in it is of another evaluation (student before)" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in out.iterdir()} == was
    assert cli_code(["eval", run, *measured, "eval.n=2"]) == 0
    assert {p.name for p in out.iterdir()} == was.keys()
    assert (out / "final_after.jsonl").read_bytes() != was["final_after.jsonl"]
    (out / "final_before.json").unlink()
    assert cli_code(["eval", f"conf={config}", f"model={teacher_dir}", "eval.size=2", *measured]) == 2


@pytest.mark.parametrize("turns", [1, 3])
def test_a_teacher_that_is_the_student_is_measured_as_it_is_also_in_conversations(
    turns: int, config: Path, student_dir: Path
) -> None:
    talks = ["data.tasks.arithmetic._target_=tests.sources.desks.Talkative", "eval.max_tokens=60", "eval.size=4"]
    same = [f"teacher.model={student_dir}", f"eval.max_turns={turns}", *talks]
    rows = opd.evaluate(None, *same, quiet=True, conf=config, model=student_dir)
    own, teacher = ({k: v for k, v in row.items() if k != "eval/seconds"} for row in rows.values())
    assert teacher == own
    alone = opd.evaluate(None, *same, "eval.max_turns=1", quiet=True, conf=config, model=student_dir)
    assert (next(iter(alone.values()))["eval/tokens"] < own["eval/tokens"]) is (turns > 1)


def test_an_adapters_base_is_loaded_once_for_the_check_and_the_measurement(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, loaded, load = f"run={tmp_path / 'run'}", [], subject.load_causal_lm
    short = ["student.lora.rank=2", "steps=1", "eval.every=0", "eval.size=2", "preflight.prompts=2", "-q"]
    assert cli_code(["train", f"conf={config}", run, *short]) == 0

    def counted(model: Pretrained, *settings: Any) -> Any:
        loaded.append(model.path)
        return load(model, *settings)

    monkeypatch.setattr(subject, "load_causal_lm", counted)
    assert cli_code(["eval", run, "-q"]) == 0
    assert len(loaded) == 1
