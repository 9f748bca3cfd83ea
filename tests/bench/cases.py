"""The models and rollouts that are measured: random weights of SmolLM2's shape, lengths drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from opd.types import Example, Judgement, Prompt, Rollout, Scored

VOCABULARY = 49152
HIDDEN = 576
Lengths = Sequence[tuple[int, int]]
"""Prompt and completion length of each sequence."""


def save_model(folder: Path, layers: int, dtype: torch.dtype, vocabulary: int = VOCABULARY) -> str:
    """Write a random Llama with SmolLM2-135M's widths and `layers` layers (the real one has 30)."""
    from transformers import AutoModelForCausalLM, LlamaConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(layers)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=HIDDEN, intermediate_size=1536, num_hidden_layers=layers, head_dim=64,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=4096,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, initializer_range=0.04,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    return str(folder)


def even(sequences: int, prompt: int, completion: int) -> list[tuple[int, int]]:
    """Sequences all alike: nothing to gain from packing."""
    return [(prompt, completion)] * sequences


def uneven(sequences: int, longest: int, seed: int = 0) -> list[tuple[int, int]]:
    """Chat-like lengths: prompts of 8 to 48 tokens, log-normal completions (median 48) of 4 to `longest`."""
    rng = np.random.default_rng(seed)
    prompts = rng.integers(8, 49, sequences)
    completions = np.clip(np.exp(rng.normal(np.log(48), 0.9, sequences)), 4, longest).astype(int)
    return [(int(p), int(c)) for p, c in zip(prompts, completions, strict=True)]


def scored(lengths: Lengths, hidden: int | None = None, seed: int = 0, vocabulary: int = VOCABULARY) -> list[Scored]:
    """Rollouts of random tokens with the log-probs of a uniform sampler, and a teacher's around those."""
    rng = np.random.default_rng(seed)
    uniform = -float(np.log(VOCABULARY))
    out = []
    for i, (p, c) in enumerate(lengths):
        prompt = Prompt(Example(str(i), ({"role": "user", "content": ""},)), _tokens(rng, p, vocabulary))
        teacher = torch.from_numpy(uniform + rng.normal(0, 1, c)).float()
        states = None if hidden is None else torch.from_numpy(rng.normal(0, 1, (c, hidden))).float()
        out.append(
            Scored(
                Rollout(prompt, _tokens(rng, c, vocabulary), (uniform,) * c, truncated=True), Judgement(teacher, states)
            )
        )
    return out


def _tokens(rng: np.random.Generator, count: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(int(t) for t in rng.integers(3, vocabulary, count))
