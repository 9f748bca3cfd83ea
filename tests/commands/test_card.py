"""A model card says what its run was, whatever that was called."""

from __future__ import annotations

import pytest
import yaml

from opd.commands.card import header


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
