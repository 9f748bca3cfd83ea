"""Decode a batch with a transformers model: left padding, a key-value cache, and draws that no neighbour can change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from opd.rollout.distribution import draw, log_mu
from opd.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor

Completion = tuple[tuple[int, ...], tuple[float, ...], bool]
"""Token ids, their log-probs, and whether it was cut at `max_tokens`."""


@torch.inference_mode()
def decode(
    network: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
) -> list[Completion]:
    """Complete B prompts at once.

    Args:
        network: A transformers causal language model.
        prompts: B lists of token ids, none empty.
        seeds: B seeds; a row's noise comes from its own alone.
        sampling: `n` and `seed` of it are not read.
    """
    rows = _Rows(network, prompts, seeds, sampling)
    for step in range(sampling.max_tokens):
        rows.step(step)
        if not rows.alive_R.any():
            break
        if 2 * int(rows.alive_R.sum()) <= len(rows.alive_R):
            rows.compact()
    return rows.completions()


class _Rows:
    """The state of a batch that is being decoded. R rows are left of the B it began with."""

    def __init__(self, network: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling):
        device, count, steps = network.device, len(prompts), sampling.max_tokens
        self.network, self.sampling = network, sampling
        self.cache: Any = None  # made by the model at the first step
        ids, mask = _left_padded(prompts)
        self.ids_RL, self.mask_RL = ids.to(device), mask.to(device)
        self.positions_RL = (self.mask_RL.cumsum(-1) - 1).clamp(min=0)
        self.rows_R = torch.arange(count, device=device)  # the place among the B of every row that is left
        self.alive_R = torch.ones(count, dtype=torch.bool, device=device)
        noise = np.stack([np.random.default_rng(seed).random(steps) for seed in seeds])
        self.uniforms_BT = torch.from_numpy(noise).to(device)
        self.tokens_BT = torch.zeros(count, steps, dtype=torch.long, device=device)
        self.logprobs_BT = torch.zeros(count, steps, device=device)
        self.lengths_B = torch.full((count,), steps, device=device)
        self.stopped_B = torch.zeros(count, dtype=torch.bool, device=device)
        self.stop = torch.tensor(sampling.stop, dtype=torch.long, device=device)

    def step(self, step: int) -> None:
        """Append a token to every row; rows that have ended go on unread until they are dropped."""
        output = self.network(
            input_ids=self.ids_RL,
            attention_mask=self.mask_RL,
            position_ids=self.positions_RL,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = output.past_key_values
        logprobs_RV = log_mu(output.logits[:, -1], self.sampling)
        greedy = self.sampling.temperature == 0
        tokens_R = logprobs_RV.argmax(-1) if greedy else draw(logprobs_RV, self.uniforms_BT[self.rows_R, step])
        self.tokens_BT[self.rows_R, step] = tokens_R
        self.logprobs_BT[self.rows_R, step] = logprobs_RV.gather(-1, tokens_R[:, None])[:, 0]
        ended_R = self.alive_R & torch.isin(tokens_R, self.stop)
        self.lengths_B[self.rows_R[ended_R]] = step + 1
        self.stopped_B[self.rows_R[ended_R]] = True
        self.alive_R = self.alive_R & ~ended_R
        self.ids_RL, self.positions_RL = tokens_R[:, None], self.positions_RL[:, -1:] + 1
        self.mask_RL = torch.nn.functional.pad(self.mask_RL, (0, 1), value=1)

    def compact(self) -> None:
        """Drop the rows that have ended."""
        keep = self.alive_R.nonzero()[:, 0]
        self.cache.batch_select_indices(keep)
        self.ids_RL, self.positions_RL, self.mask_RL = self.ids_RL[keep], self.positions_RL[keep], self.mask_RL[keep]
        self.rows_R, self.alive_R = self.rows_R[keep], self.alive_R[keep]

    def completions(self) -> list[Completion]:
        """Give what each of the B prompts was completed with."""
        columns = (self.tokens_BT, self.logprobs_BT, self.lengths_B, self.stopped_B)
        return [
            (tuple(tokens[:length]), tuple(logprobs[:length]), not stopped)
            for tokens, logprobs, length, stopped in zip(*(column.tolist() for column in columns), strict=True)
        ]


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, int64 [B, L]: the last column holds the last token of every prompt."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask
