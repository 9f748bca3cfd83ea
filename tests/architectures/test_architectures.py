"""Every architecture that is listed trains, is saved, goes on and is exported with the transformers engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.architectures.chain import BROKEN, REFUSED, WORKS, Outcome, chain
from tests.architectures.configs import ARCHITECTURES
from tests.tiny import save_model

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("teacher"), "llama", seed=2, tied=False, vocab=48)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_tiny_model_of_it_goes_through_a_whole_run(name: str, teacher: Path, tmp_path: Path) -> None:
    assert chain(name, teacher, tmp_path / "run") == Outcome(WORKS)


def test_those_listed_are_causal_language_models_of_transformers() -> None:
    assert len(ARCHITECTURES) >= 45
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    assert [n for n in ARCHITECTURES if getattr(transformers, n).model_type not in known] == []


def test_the_table_of_the_docs_is_of_those_listed_and_says_why_something_does_not_work() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w-]+) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [f"{name}Config" for name, *_ in rows] == list(ARCHITECTURES)
    for name, hf, vllm, note in rows:
        assert hf == WORKS, name
        assert vllm in (WORKS, REFUSED), name
        assert (vllm == REFUSED) == note.startswith("vLLM: "), name
    assert BROKEN not in {state for _, *states, _ in rows for state in states}
