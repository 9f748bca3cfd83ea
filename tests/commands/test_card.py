"""A model card says what its run was, whatever that was called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from opd.commands.export.card import _eval_lines, _health_lines, _shown, header
from opd.run.directory import RunFolder
from opd.run.results import evaluations


@pytest.mark.parametrize(
    "base", ["a/b", "a\nlicense: mit", "a: b", "- a", "#", "'\"", "{a: b}", "\x1b[2J", "a\n---\n# b", "null"]
)
def test_a_models_name_is_one_field_of_the_card(base: str) -> None:
    text = header(base, adapter=False)
    assert yaml.safe_load(text) == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "base_model": base,
        "tags": ["on-policy-distillation", "opd"],
    }  # fmt: skip
    assert "\n---" not in text


def test_a_model_that_is_made_has_no_name() -> None:
    assert "base_model" not in yaml.safe_load(header(object(), adapter=True))


def test_what_was_wrong_with_a_run_is_in_its_card(tmp_path: Path) -> None:
    assert _health_lines(RunFolder(tmp_path)) == []
    said = '{"verdicts": [{"name": "nothing\\nlearned", "seen": "KL <1>", "means": "So.", "do": "Raise optim.lr."}]}'
    (tmp_path / "health.json").write_text(said)
    assert "- nothing learned: KL &lt;1>. So. Raise optim.lr." in _health_lines(RunFolder(tmp_path))


def figures(folder: Path, **names: str) -> None:
    (folder / "eval").mkdir(exist_ok=True)
    sampling = {"n": 1, "temperature": 1.0, "max_tokens": 8}
    for file, name in names.items():
        said = {"name": name, "metrics": {"eval/kl": 0.5}, "sampling": sampling}
        (folder / "eval" / f"{file}.json").write_text(json.dumps(said))


def test_a_checkpoint_has_its_own_figures_and_no_others(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    figures(tmp_path, **{f"student_step_{n:06d}": f"student, step {n}" for n in (0, 4, 8, 12)})
    assert list(evaluations(run)) == ["student, step 0", "student, step 12"]
    assert list(evaluations(run, 8)) == ["student, step 0", "student, step 8"]
    assert list(evaluations(run, 6)) == ["student, step 0"]
    figures(tmp_path, final_before="student before", final_after="student after 8 steps", final_teacher="teacher")
    assert list(evaluations(run, 8)) == ["student before", "student after 8 steps", "teacher"]
    assert list(evaluations(run, 12)) == ["student, step 0", "student, step 12"]
    assert "step 12" not in "".join(_eval_lines(run, 8))


def test_figures_of_other_prompts_than_those_of_training_are_told_from_them(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    names = {"student_step_000000": "student, step 0", "student_step_000008": "student, step 8"}
    figures(tmp_path, **names, final_after="student after 8 steps")  # by opd eval data=OTHER
    for file, digest in (*((name, "own") for name in names), ("final_after", "other")):
        said = json.loads((tmp_path / f"eval/{file}.json").read_text()) | {"prompts": {"count": 7, "digest": digest}}
        (tmp_path / f"eval/{file}.json").write_text(json.dumps(said))
    assert "1 a prompt, 7 prompts; 95% intervals. These are not the prompts" in "".join(_eval_lines(run, 8))
    (tmp_path / "eval/final_after.json").unlink()
    assert "1 a prompt, 7 prompts; 95% intervals.|" in "".join(_eval_lines(run, 8))


def test_the_system_turn_of_training_is_in_the_card() -> None:
    assert _shown("chat", {}, "Be brief.") == "template `chat`, behind the system turn 'Be brief.' where they have none"
    assert _shown("chat", {"enable_thinking": False}) == "template `chat` with `enable_thinking=False`"
