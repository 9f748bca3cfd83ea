"""Models made from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from opd.models.tiny import Tiny, character_tokenizer
from opd.types import Example, UserError


@dataclass(frozen=True)
class Copy:
    """A task whose solution is its prompt backwards."""

    alphabet: str = "0123456789+:"

    def examples(self, split: str) -> list[Example]:
        return [Example(str(i), ({"role": "user", "content": f"{i}+{i}:"},)) for i in range(300)]

    def solution(self, example: Example) -> str:
        return example.messages[0]["content"][::-1]


TINY = Tiny(task=Copy(), hidden_size=32, layers=1, intermediate_size=32, steps=3, batch_size=8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the checkpoints of a test in its own folder."""
    monkeypatch.setenv("OPD_CACHE", str(tmp_path / "cache"))


def weights(source: Tiny) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(source.path()).state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_seed_gives_the_same_weights_wherever_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights(TINY)
    torch.manual_seed(123)  # the state of torch does not matter
    monkeypatch.setenv("OPD_CACHE", str(tmp_path / "elsewhere"))
    assert same(first, weights(TINY))
    assert not same(first, weights(replace(TINY, seed=1)))


def test_making_one_leaves_the_callers_randomness_and_threads_alone() -> None:
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    TINY.path()
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_it_is_float32_and_tied_with_a_generation_config_that_knows_the_eos() -> None:
    model = AutoModelForCausalLM.from_pretrained(TINY.path(), dtype="auto")
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tokenizer = AutoTokenizer.from_pretrained(TINY.path())
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) == model.config.vocab_size


def test_the_tokenizer_gives_back_every_text_of_the_task_one_token_to_a_character() -> None:
    tokenizer, task = AutoTokenizer.from_pretrained(TINY.path()), TINY.task
    for item in task.examples("train"):
        text = item.messages[0]["content"] + task.solution(item)
        tokens = tokenizer(text).input_ids
        assert len(tokens) == len(text)
        assert tokenizer.unk_token_id not in tokens
        assert tokenizer.decode(tokens) == text


def test_a_prompt_reads_the_same_as_chat_and_as_plain_text_and_an_answer_ends_with_eos() -> None:
    tokenizer = character_tokenizer("0123456789+:")
    turns = [{"role": "user", "content": "1+1:"}]
    render = tokenizer.apply_chat_template
    assert render(turns, add_generation_prompt=True, return_dict=False) == tokenizer("1+1:").input_ids
    whole = render([*turns, {"role": "assistant", "content": "2"}], return_dict=False)
    assert whole == [*tokenizer("1+1:2").input_ids, tokenizer.eos_token_id]


def test_merges_make_another_tokenizer_that_spells_the_same_and_the_model_learns_it() -> None:
    merged = replace(TINY, merges=3)
    assert merged.path() != TINY.path()
    tokenizer = AutoTokenizer.from_pretrained(merged.path())
    assert len(tokenizer) == len(AutoTokenizer.from_pretrained(TINY.path())) + 3
    text = merged.task.solution(merged.task.examples("train")[0])
    assert "".join(tokenizer.tokenize(text)) == text == tokenizer.decode(tokenizer(text).input_ids)


def test_a_character_outside_the_alphabet_is_unknown() -> None:
    tokenizer = character_tokenizer("01")
    assert tokenizer("0a1").input_ids[1] == tokenizer.unk_token_id


def test_training_lowers_the_loss_and_stops_once_it_is_low_enough() -> None:
    long = replace(TINY, steps=40, batch_size=64, lr=2e-2, schedule="constant", warmup=5)
    tokenizer, losses = character_tokenizer(long.task.alphabet), []
    for source in (TINY, long):
        model = AutoModelForCausalLM.from_pretrained(source.path())
        losses.append(source._loss(model, 1000, tokenizer).item())
    assert losses[1] < losses[0]
    early = replace(long, until_loss=100.0)  # below it after the fewest batches that it is judged by
    assert same(weights(early), weights(replace(long, steps=5)))


def test_a_task_without_solutions_is_refused() -> None:
    with pytest.raises(UserError, match="int has no examples, solution, alphabet"):
        Tiny(task=3).path()


@pytest.mark.parametrize("wrong", [{"hidden_size": 48}, {"steps": -1}, {"lr": 0}, {"schedule": "cosine"}, {"width": 3}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    adapter = TypeAdapter(Tiny)
    adapter.validate_python({"task": Copy()})
    with pytest.raises(ValidationError):
        adapter.validate_python({"task": Copy(), **wrong}, strict=False, extra="forbid")
