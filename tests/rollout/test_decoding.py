"""The decoding loop of the transformers engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, Qwen3Config

from opd.rollout.decoding import decode
from opd.types import Sampling

SHAPE: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
# Gemma 3 mixes layers that see everything with ones that see a window of 8 tokens.
CONFIGS = [Qwen3Config(**SHAPE), Gemma3TextConfig(**SHAPE, sliding_window=8)]
PROMPTS = [(5,), (3, 4), (7, 8, 9, 10, 11, 12, 13, 14, 15, 16), *[(place % 40, 2) for place in range(30)]]
SAMPLING = Sampling(max_tokens=24, stop=(1, 2, 3))


@pytest.fixture(params=CONFIGS, ids=["full", "window"])
def network(request: pytest.FixtureRequest) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(request.param).float().eval()


def test_a_completion_does_not_depend_on_its_batch(network: Any) -> None:
    together = decode(network, PROMPTS, range(len(PROMPTS)), SAMPLING)
    alone = [decode(network, [prompt], [seed], SAMPLING)[0] for seed, prompt in enumerate(PROMPTS)]
    lengths = {len(ids) for ids, _, _ in together}
    assert len(lengths) > 3  # so that rows were dropped on the way
    for (ids, logprobs, truncated), (own_ids, own_logprobs, own_truncated) in zip(together, alone, strict=True):
        assert (ids, truncated) == (own_ids, own_truncated)
        assert logprobs == pytest.approx(own_logprobs, abs=1e-4)


def test_every_completion_ends_at_its_first_stop_token(network: Any) -> None:
    for ids, logprobs, truncated in decode(network, PROMPTS, range(len(PROMPTS)), SAMPLING):
        assert not {1, 2, 3} & set(ids[:-1])
        assert truncated == (ids[-1] not in (1, 2, 3))
        assert len(ids) == len(logprobs)
        assert not truncated or len(ids) == SAMPLING.max_tokens
