"""What an export is held to: the tokens of whoever reads it, and their log-probs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from opd.commands.export.llamacpp import LlamaCpp
from opd.commands.export.parity import Parity, _check_tokens
from opd.types import RunError, Sampling
from tests.tiny import char_tokenizer, prompts


class Server:
    """A llama.cpp server that writes given tokens; None: one that is a part of a character."""

    def __init__(self, *tokens: int | None) -> None:
        self.tokens = tokens

    def handle_completions(self, asked: dict[str, Any]) -> dict[str, Any]:
        token = self.tokens[len(asked["prompt"]) - 3]
        found = None if token is None else {"content": [{"id": token, "logprob": -0.5}]}
        return {"choices": [{"logprobs": found}]}


def engine(*tokens: int | None) -> LlamaCpp:
    made = LlamaCpp.__new__(LlamaCpp)
    made._server = Server(*tokens)
    return made


@pytest.mark.parametrize(
    ("written", "kept", "truncated"),
    [((5, 6, 1, 7), (5, 6, 1), False), ((5, 6, 7, 8), (5, 6, 7, 8), True), ((5, None, 7, 8), (5,), True)],
)
def test_what_llama_cpp_reports_is_kept_up_to_an_end_or_to_what_it_leaves_out(
    written: tuple[int | None, ...], kept: tuple[int, ...], truncated: bool
) -> None:
    asked = prompts(char_tokenizer(), ["1+2"])
    (rollout,) = engine(*written).sample(asked, Sampling(max_tokens=4, stop=(1,)))
    assert (rollout.tokens, rollout.truncated) == (kept, truncated)
    assert rollout.logprobs == (-0.5,) * len(kept)


def test_a_file_that_cuts_prompts_into_other_tokens_is_no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, reader = char_tokenizer(), engine()
    monkeypatch.setattr(reader, "tokens", lambda text: tokenizer(text)["input_ids"], raising=False)
    _check_tokens(reader, tokenizer, prompts(tokenizer, ["1+2", "abc"]))
    monkeypatch.setattr(reader, "tokens", lambda text: [*tokenizer(text)["input_ids"], 7])
    with pytest.raises(RunError, match=r"'1\+2' is 3 tokens, and there 4.*nothing was exported"):
        _check_tokens(reader, tokenizer, prompts(tokenizer, ["1+2"]))


@pytest.mark.parametrize(
    ("transformers", "engine", "ok"),
    [(0.1, 0.1, True), (0.1, None, True), (0.3, None, False), (0.1, 0.3, False), (math.nan, None, False),
     (0.1, math.nan, False)],
)  # fmt: skip
def test_parity_holds_for_all_that_have_read_it_and_never_for_nan(
    transformers: float, engine: float | None, ok: bool
) -> None:
    assert Parity(transformers, engine, "Hf", 9, tolerance=0.2, engine_tolerance=0.2).ok is ok
