"""Reading and learning samples of one prompt: the prompt read for each of them, or once for all of them in one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opd.batch import pack_sequences, sequence_length
from opd.learner.optim import Optim
from opd.models.heads import SplitModel, split_model
from opd.models.loading import load_causal_lm
from opd.tensors import Packed
from opd.types import Pretrained, TokenPair
from tests.bench import cases, meter

NOBODY = -1
"""Whose a position is that holds no token."""
ALL = 0
"""Whose the prompt's are."""


def groups(prompts: int, prompt: int, completion: int, count: int) -> list[list[TokenPair]]:
    """`count` samples of each prompt; lengths vary around those given by half, from a seed."""
    rng = np.random.default_rng(0)

    def tokens(mean: int) -> tuple[int, ...]:
        return tuple(rng.integers(3, cases.VOCABULARY, int(mean * rng.uniform(0.5, 1.5))).tolist())

    return [[(shared, tokens(completion)) for _ in range(count)] for shared in (tokens(prompt) for _ in range(prompts))]


def measure_prompts(spec: dict[str, Any]) -> Callable[[], dict[str, float]]:
    """A pass of the body forward and, if `learning`, back again: prompts read `once`, or for `each` sample."""
    learning, made = spec["learning"], groups(*spec["shape"])
    model = load_causal_lm(Pretrained(spec["model"]), getattr(torch, spec["dtype"]), "sdpa")
    split = split_model(model.requires_grad_(learning).train(learning))
    if spec["variant"] == "each":
        flat = [pair for group in made for pair in group]
        passes = [(packed, split.predicting) for packed in pack_sequences(flat, 0, Optim().micro_tokens)]
    else:
        passes = [(packed, _Tree(split, owners)) for packed, owners in _trees(made, Optim().micro_tokens)]
    tokens = sum(len(completion) for group in made for _, completion in group)
    positions = sum(packed.input_ids.numel() for packed, _ in passes)

    def run() -> None:
        with torch.set_grad_enabled(learning):
            for packed, read in passes:
                hidden = read(packed)
                if learning:  # every token weighs as much as its id says, wherever it lies
                    (hidden.float() * (packed.tokens[:, None] / cases.VOCABULARY)).sum().backward()

    def measure() -> dict[str, float]:
        seconds = meter.timed(run)
        grads = [p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        check = float(sum(grads, torch.zeros(())).sqrt())
        return {"seconds": seconds, "tokens": tokens, "positions": positions, "check": check}

    return measure


class _Tree:
    """Reads rows in which every sample sees itself and its prompt, no other sample."""

    def __init__(self, split: SplitModel, owners: tuple[Tensor, Tensor]):
        self.split, (group, sample) = split, owners
        seen = (sample[:, None, :] == ALL) | (sample[:, None, :] == sample[:, :, None])
        square = torch.ones(group.shape[1], group.shape[1], dtype=torch.bool).tril()
        self.mask = (square & seen & (group[:, None, :] == group[:, :, None]))[:, None]

    def __call__(self, packed: Packed) -> Tensor:
        """Hidden states [N, H] that the packed tokens are predicted from."""
        out = self.split.body(
            input_ids=packed.input_ids, position_ids=packed.position_ids, attention_mask=self.mask, use_cache=False
        )
        hidden: Tensor = out.last_hidden_state
        return hidden.flatten(0, 1)[packed.rows]


def _trees(made: Sequence[Sequence[TokenPair]], micro: int) -> list[tuple[Packed, tuple[Tensor, Tensor]]]:
    """Each prompt with all of its samples as one sequence to the packer; and group and sample of every position."""
    whole = [(group[0][0], (*(t for _, c in group for t in c[:-1]), 0)) for group in made]
    out = []
    for packed in pack_sequences(whole, 0, micro):
        group, sample = (torch.full_like(packed.input_ids, NOBODY) for _ in range(2))
        places, rows, tokens = packed.position_ids.clone(), [], []
        starts = iter((packed.rows[(packed.where % _width(whole)) == 0]).tolist())
        for i in packed.sequences:
            prompt = len(made[i][0][0])
            last = next(starts)  # the prompt's last position predicts the first token of each sample
            at = last + 1
            group.view(-1)[last + 1 - prompt : at], sample.view(-1)[last + 1 - prompt : at] = i, ALL
            for number, (_, completion) in enumerate(made[i], 1):
                span = slice(at, at + len(completion) - 1)
                group.view(-1)[span], sample.view(-1)[span] = i, number
                places.view(-1)[span] = torch.arange(prompt, sequence_length(prompt, len(completion)))
                rows.append(torch.cat([torch.tensor([last]), torch.arange(span.start, span.stop)]))
                tokens.append(torch.tensor(completion))
                at = span.stop
        laid = replace(packed, position_ids=places, rows=torch.cat(rows), tokens=torch.cat(tokens))
        out.append((laid, (group, sample)))
    return out


def _width(sequences: Sequence[TokenPair]) -> int:
    return max(len(completion) for _, completion in sequences)
