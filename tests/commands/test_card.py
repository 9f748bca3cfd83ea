"""A model card says what its run was, whatever that was called."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from opd.commands.export.card import _health_lines, header
from opd.run.directory import RunFolder


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
