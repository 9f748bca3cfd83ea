"""Decode a batch with transformers models: left padding, key-value caches, and draws that no neighbour can change.

Where a model keeps no cache that rows can be taken out of (linear attention, state spaces), or its padding counts, all
is read again for every token: slow, and right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from opd.devices.shortage import shortage
from opd.models.facts import along_rows
from opd.models.heads import split_model
from opd.rollout.distribution import draw, log_mu
from opd.rollout.repetition import looping
from opd.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor

Completion = tuple[tuple[int, ...], tuple[float, ...], bool]
"""Token ids, their log-probs, and whether it was cut: at `max_tokens`, or where it repeated itself."""
Blend = Callable[..., "tuple[Tensor, Tensor]"]
"""From every network's logits [R, V] to the log-probs [R, V] that are drawn from, and the first network's own."""


class Reader(Protocol):
    """A network and what it has read of R rows."""

    network: Any

    def logits(self) -> Tensor:
        """Predict the next token of every row, [R, V]."""
        ...

    def read(self, tokens_R: Tensor) -> None:
        """Go on by a token in every row."""
        ...

    def select(self, keep: Tensor) -> None:
        """Drop all rows but these."""
        ...


Opens = Callable[[Any, "Sequence[Sequence[int]]"], Reader]
"""Makes a reader of a network and prompts."""


@torch.inference_mode()
def way_to_read(network: Any) -> Opens:
    """How a network reads: with its cache, where two rows of it give what they give alone, a row is dropped well.

    Attention that counts along the row counts the padding, and shows it at lengths that are not tried here.
    """
    if along_rows(network.config):
        return Anew
    prompts = [[1, 2, 3, 4, 5], [2, 3]]
    try:
        steps = []
        for rows in (prompts, prompts[1:]):
            reader = Cached(network, rows)
            reader.logits()
            reader.read(torch.full((len(rows),), 4, device=network.device))
            reader.select(torch.tensor([len(rows) - 1], device=network.device))
            steps.append(reader.logits()[0].float())
    except Exception as error:  # whatever it is that a cache of its own kind lacks
        if shortage(error):
            raise
        return Anew
    size = max(1.0, steps[1].abs().max().item())
    return Cached if (steps[0] - steps[1]).abs().mean() <= 0.02 * size else Anew


@torch.inference_mode()
def decode(
    network: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: Sampling,
    opens: Opens | None = None,
    told: Callable[[Tensor], None] = lambda tokens_R: None,
) -> list[Completion]:
    """Complete B prompts at once.

    Args:
        network: A transformers causal language model.
        prompts: B lists of token ids, none empty.
        seeds: B seeds; a row's noise comes from its own alone.
        sampling: `n` and `seed` of it are not read.
        opens: How it reads; None: with its cache.
        told: Is handed the tokens [R] of the R rows that are left, as soon as they are drawn.
    """

    def blend(logits_RV: Tensor) -> tuple[Tensor, Tensor]:
        own_RV = log_mu(logits_RV, sampling)
        return own_RV, own_RV

    return [done for done, _ in _complete([(opens or Cached)(network, prompts)], blend, seeds, sampling, told)]


@torch.inference_mode()
def decode_mixed(
    network: Any,
    other: Any,
    prompts: Sequence[Sequence[int]],
    other_prompts: Sequence[Sequence[int]],
    alpha: float,
    seeds: Sequence[int],
    sampling: Sampling,
    opens: tuple[Opens, Opens] | None = None,
) -> list[tuple[Completion, tuple[float, ...]]]:
    """Complete B prompts from `alpha*q + (1-alpha)*pi`, token by token, both networks reading along.

    Args:
        network: The model of pi.
        other: The model of q; columns beyond pi's are cut off and the rest renormalised.
        prompts: B lists of token ids, none empty.
        other_prompts: The same prompts as `other` is shown them.
        alpha: Share of q, in [0, 1].
        seeds: As for `decode`.
        sampling: Its temperature and truncation shape both distributions before they are mixed.
        opens: How the two read; None: with their caches.

    Returns:
        Per prompt the completion with its log-probs in the mixture, and those of pi alone.
    """

    def blend(logits_RV: Tensor, other_RV: Tensor) -> tuple[Tensor, Tensor]:
        own_RV = log_mu(logits_RV, sampling)
        return mixture(own_RV, log_mu(other_RV[:, : own_RV.shape[1]], sampling), alpha), own_RV

    own, others = opens or (Cached, Cached)
    return _complete([own(network, prompts), others(other, other_prompts)], blend, seeds, sampling)


def mixture(log_pi_RV: Tensor, log_q_RW: Tensor, alpha: float) -> Tensor:
    """`log(alpha*q + (1-alpha)*pi)`, float32 [R, V]; q gives nothing to tokens beyond its W <= V columns."""
    missing = log_pi_RV.shape[1] - log_q_RW.shape[1]
    log_q_RV = torch.nn.functional.pad(log_q_RW, (0, missing), value=-torch.inf)
    log_alpha = math.log(alpha) if alpha else -math.inf
    log_rest = math.log1p(-alpha) if alpha < 1 else -math.inf
    return torch.logaddexp(log_q_RV + log_alpha, log_pi_RV + log_rest)


def _complete(
    readers: Sequence[Reader], blend: Blend, seeds: Sequence[int], sampling: Sampling,
    told: Callable[[Tensor], None] = lambda tokens_R: None,
) -> list[tuple[Completion, tuple[float, ...]]]:  # fmt: skip
    rows = _Rows(seeds, sampling, readers[0].network.device)
    for step in range(sampling.max_tokens):
        tokens_R = rows.step(step, *blend(*(reader.logits() for reader in readers)))
        told(tokens_R)
        if not rows.alive_R.any():
            break
        for reader in readers:
            reader.read(tokens_R)
        if 2 * int(rows.alive_R.sum()) <= len(rows.alive_R):
            keep = rows.compact()
            for reader in readers:
                reader.select(keep)
    return rows.completions()


class Cached:
    """Reads every token once, and keeps what came of it."""

    def __init__(self, network: Any, prompts: Sequence[Sequence[int]]):
        self.network = network
        self.cache: Any = None  # made by the model at the first step
        ids, mask = _left_padded(prompts)
        self.ids_RL, self.mask_RL = ids.to(network.device), mask.to(network.device)
        self.positions_RL = (self.mask_RL.cumsum(-1) - 1).clamp(min=0)
        # An index gives rows that lie together. To each of a slice's, which do not, torch multiplies a copy of its own
        # of a bfloat16 head on a CPU; in float32 it copies nothing, and rounds in another way.
        self.last: Any = torch.tensor([-1], device=network.device) if network.dtype == torch.bfloat16 else 1

    def logits(self) -> Tensor:
        """Predict the next token of every row, [R, V]."""
        output = self.network(
            input_ids=self.ids_RL,
            attention_mask=self.mask_RL,
            position_ids=self.positions_RL,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=self.last,
        )
        self.cache = output.past_key_values
        logits_RV: Tensor = output.logits[:, -1]
        return logits_RV

    def read(self, tokens_R: Tensor) -> None:
        """Go on by a token in every row."""
        self.ids_RL, self.positions_RL = tokens_R[:, None], self.positions_RL[:, -1:] + 1
        self.mask_RL = torch.nn.functional.pad(self.mask_RL, (0, 1), value=1)

    def select(self, keep: Tensor) -> None:
        """Drop all rows but these."""
        self.cache.batch_select_indices(keep)
        self.ids_RL, self.positions_RL, self.mask_RL = self.ids_RL[keep], self.positions_RL[keep], self.mask_RL[keep]


class Anew:
    """Reads all of every row for every token."""

    def __init__(self, network: Any, prompts: Sequence[Sequence[int]]):
        self.network, self.split = network, split_model(network)
        self.rows = [list(prompt) for prompt in prompts]

    def logits(self) -> Tensor:
        """Predict the next token of every row, [R, V]: padding lies behind, where no causal model looks."""
        device, width = self.network.device, max(map(len, self.rows))
        ids_RL = torch.tensor([row + [0] * (width - len(row)) for row in self.rows], device=device)
        positions_RL = torch.arange(width, device=device).expand_as(ids_RL)
        last = torch.tensor([i * width + len(row) - 1 for i, row in enumerate(self.rows)], device=device)
        return self.split.logits(self.split.hidden(ids_RL, positions_RL)[last])

    def read(self, tokens_R: Tensor) -> None:
        """Go on by a token in every row."""
        for row, token in zip(self.rows, tokens_R.tolist(), strict=True):
            row.append(token)

    def select(self, keep: Tensor) -> None:
        """Drop all rows but these."""
        self.rows = [self.rows[i] for i in keep.tolist()]


class _Rows:
    """What has been drawn for a batch. R rows are left of the B it began with."""

    def __init__(self, seeds: Sequence[int], sampling: Sampling, device: Any):
        count, steps = len(seeds), sampling.max_tokens
        self.greedy, self.repetition = sampling.temperature == 0, sampling.repetition
        self.rows_R = torch.arange(count, device=device)  # the place among the B of every row that is left
        self.alive_R = torch.ones(count, dtype=torch.bool, device=device)
        noise = np.stack([np.random.default_rng(seed).random(steps) for seed in seeds])
        self.uniforms_BT = torch.from_numpy(noise).to(device)
        self.tokens_BT = torch.zeros(count, steps, dtype=torch.long, device=device)
        self.logprobs_BT = torch.zeros(count, steps, device=device)
        self.own_BT = torch.zeros(count, steps, device=device)
        self.lengths_B = torch.full((count,), steps, device=device)
        self.stopped_B = torch.zeros(count, dtype=torch.bool, device=device)
        self.stop = torch.tensor(sampling.stop, dtype=torch.long, device=device)

    def step(self, step: int, logprobs_RV: Tensor, own_RV: Tensor) -> Tensor:
        """Draw a token [R] for every row; rows that have ended go on unread until they are dropped."""
        tokens_R = logprobs_RV.argmax(-1) if self.greedy else draw(logprobs_RV, self.uniforms_BT[self.rows_R, step])
        self.tokens_BT[self.rows_R, step] = tokens_R
        self.logprobs_BT[self.rows_R, step] = logprobs_RV.gather(-1, tokens_R[:, None])[:, 0]
        self.own_BT[self.rows_R, step] = own_RV.gather(-1, tokens_R[:, None])[:, 0]
        ended_R = self.alive_R & torch.isin(tokens_R, self.stop)
        self.lengths_B[self.rows_R[ended_R]] = step + 1
        self.stopped_B[self.rows_R[ended_R]] = True
        self.alive_R = self.alive_R & ~ended_R
        if self.repetition.longest is not None:
            cut_R = self.alive_R & looping(self.tokens_BT[self.rows_R, : step + 1], self.repetition)
            self.lengths_B[self.rows_R[cut_R]] = step + 1
            self.alive_R = self.alive_R & ~cut_R
        return tokens_R

    def compact(self) -> Tensor:
        """Drop the rows that have ended; returns the places of those that stay."""
        keep = self.alive_R.nonzero()[:, 0]
        self.rows_R, self.alive_R = self.rows_R[keep], self.alive_R[keep]
        return keep

    def completions(self) -> list[tuple[Completion, tuple[float, ...]]]:
        """Give what each of the B prompts was completed with, and the first network's log-probs of it."""
        columns = (self.tokens_BT, self.logprobs_BT, self.own_BT, self.lengths_B, self.stopped_B)
        return [
            ((tuple(tokens[:length]), tuple(logprobs[:length]), not stopped), tuple(own[:length]))
            for tokens, logprobs, own, length, stopped in zip(*(column.tolist() for column in columns), strict=True)
        ]


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, int64 [B, L]: the last column holds the last token of every prompt."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask
