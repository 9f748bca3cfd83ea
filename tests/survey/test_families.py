"""Presets of families: composed with `conf=own`, and looked at, though their models are not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd.config.catalog import PACKAGED, options
from opd.config.compose import load
from opd.models.facts import context
from opd.plan.known import KNOWN, known_config
from opd.teachers.cross import CrossTeacher
from opd.teachers.local import LocalTeacher
from tests.tiny import cli_code

FAMILIES = [name for name in options("models") if "_from_" in name]


def test_each_family_is_there() -> None:
    begins = {name.split("_")[0] for name in FAMILIES}
    assert begins >= {"qwen3", "qwen3.5", "llama3", "gemma3", "gemma4", "smollm3", "glm4"}
    assert any("gpt_oss" in name for name in FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_composed_with_ones_own_data_and_dry_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"prompt": "One and one?"}\n' * 40, encoding="utf-8")
    assert cli_code(["train", "conf=own", f"models={name}", "data=rows.jsonl", "--dry-run"]) == 0
    said = capsys.readouterr().out
    config = load("own", [f"models={name}"]).config
    assert isinstance(config.teacher, LocalTeacher)
    student, teacher = config.student.model, config.teacher.model
    assert f"not looked at: student.model={student}: " in said
    assert f"not looked at: teacher.model={teacher}: " in said
    assert "rows       rows: " in said
    assert isinstance(config.teacher, CrossTeacher) == config.objective.needs.spans
    for model in map(str, (student, teacher)):
        if model in KNOWN:
            assert config.longest <= (context(known_config(model)) or 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_by_adapters_or_all_weights_at_a_rate_of_its_own(name: str) -> None:
    text = (PACKAGED / "models" / f"{name}.yaml").read_text(encoding="utf-8")
    config = load("own", [f"models={name}"]).config
    other = "full" if config.student.lora else "lora"
    assert (load("own", [f"models={name}", f"student={other}"]).config.student.lora is None) == (other == "full")
    base = "qwen3_0.6b_from_4b" in text or "qwen3.5_0.8b_from_4b" in text
    assert "# Rates: " in text or base, "where the rates are from is said"
    if "\noptim:" in text:
        assert f"with student={other}" in text
