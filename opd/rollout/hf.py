"""The fallback engine: a transformers model of its own and a short decoding loop; needs no vLLM."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from opd.devices.shortage import during
from opd.models.facts import Facts
from opd.models.naming import remade, renames
from opd.rollout.loading import check_room, complete, facts_for
from opd.rollout.seeds import request_seeds
from opd.types import Pretrained, Prompt, Rollout, Sampling, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from opd.rollout.decoding import Opens


@dataclass(frozen=True)
class Hf:
    """Settings of the transformers engine."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """`auto` is what the device is fast in."""
    device: str = "auto"
    """A torch device; `auto` is `cuda` where there is one, else `cpu`."""
    batch_size: Annotated[int, Field(gt=0)] = 256
    """Sequences decoded at once."""
    score_tokens: Annotated[int, Field(gt=0)] = 2048
    """Tokens scored at once by `logprobs`, padding included; each takes 4 bytes per vocabulary entry."""

    lockstep = True

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> HfSampler:
        """Load a copy of `model`; `seed` is not used, as every request carries its own.

        Raises:
            UserError: The model cannot be loaded or cannot read `max_len` tokens.
        """
        model = Pretrained.of(model)
        facts = facts_for(model, max_len)
        from opd.devices.compute import pick_device, pick_dtype
        from opd.models.loading import load_causal_lm

        device = pick_device(self.device)
        network = load_causal_lm(model, pick_dtype(self.dtype, device), device=device)
        return HfSampler(network.eval().requires_grad_(False), facts, max_len, self.batch_size, self.score_tokens)


class HfSampler:
    """A loaded transformers model that samples."""

    def __init__(self, network: Any, facts: Facts, max_len: int, batch_size: int, score_tokens: int):
        self._network = network
        self._facts = facts
        self._max_len = max_len
        self._batch_size = batch_size
        self._score_tokens = score_tokens
        self._version = 0
        self._opens: Opens | None = None

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw `sampling.n` completions per prompt; see `opd.writing.Sampler`."""
        from opd.rollout.decoding import decode

        check_room(prompts, sampling, self._max_len, self._facts)
        owners = [prompt for prompt in prompts for _ in range(sampling.n)]
        seeds = request_seeds(sampling, len(owners))
        done: dict[int, Rollout] = {}
        for batch in self._batches(owners):
            tokens = [owners[place].tokens for place in batch]
            with during("generate"):
                completions = decode(self._network, tokens, [seeds[place] for place in batch], sampling, self.opens)
            for place, (ids, logprobs, truncated) in zip(batch, completions, strict=True):
                done[place] = Rollout(owners[place], ids, logprobs, truncated, self._version)
        return [done[place] for place in range(len(owners))]

    def write(self, prompt: Prompt, sampling: Sampling, told: Callable[[int], None]) -> Rollout:
        """Draw the first of the completions that `sample` would; `told` is handed each token as it is drawn."""
        from opd.rollout.decoding import decode

        check_room([prompt], sampling, self._max_len, self._facts)
        with during("generate"):
            ((ids, logprobs, truncated),) = decode(
                self._network, [prompt.tokens], request_seeds(sampling, 1), sampling, self.opens,
                lambda tokens_R: told(int(tokens_R[0])),
            )  # fmt: skip
        return Rollout(prompt, ids, logprobs, truncated, self._version)

    def sample_mixed(
        self,
        other: HfSampler,
        other_prompts: Sequence[Sequence[int]],
        alpha: float,
        prompts: Sequence[Prompt],
        sampling: Sampling,
    ) -> list[Rollout]:
        """Draw as `sample` does, but each token from `alpha` of the other engine's model and the rest of this one's.

        Args:
            other: The engine that writes along.
            other_prompts: The ids of each prompt as it reads them.
            alpha: Its share, in [0, 1].
            prompts: As for `sample`.
            sampling: As for `sample`; it shapes both distributions.

        Returns:
            Rollouts whose `logprobs` are the mixture's and whose `policy_logprobs` are this engine's own.
        """
        from opd.rollout.decoding import decode_mixed

        shown = [Prompt(prompt.example, tuple(ids)) for prompt, ids in zip(prompts, other_prompts, strict=True)]
        check_room(prompts, sampling, self._max_len, self._facts)
        check_room(shown, sampling, other._max_len, other._facts)
        pairs = [pair for pair in zip(prompts, shown, strict=True) for _ in range(sampling.n)]
        seeds = request_seeds(sampling, len(pairs))
        done: dict[int, Rollout] = {}
        for batch in self._batches([own for own, _ in pairs]):
            own, others = ([pairs[place][side].tokens for place in batch] for side in (0, 1))
            with during("generate"):
                drawn = decode_mixed(
                    self._network, other._network, own, others, alpha, [seeds[place] for place in batch], sampling,
                    (self.opens, other.opens),
                )  # fmt: skip
            for place, ((ids, logprobs, truncated), policy) in zip(batch, drawn, strict=True):
                done[place] = Rollout(pairs[place][0], ids, logprobs, truncated, self._version, policy_logprobs=policy)
        return [done[place] for place in range(len(pairs))]

    @property
    def opens(self) -> Opens:
        """How its network reads, found out once."""
        from opd.rollout.decoding import way_to_read

        if self._opens is None:
            self._opens = way_to_read(self._network)
        return self._opens

    def _batches(self, owners: Sequence[Prompt]) -> Iterator[list[int]]:
        """Deal places out into batches: neighbours in length share one, so that little of it is padding."""
        places = sorted(range(len(owners)), key=lambda place: len(owners[place].tokens))
        for first in range(0, len(places), self._batch_size):
            yield places[first : first + self._batch_size]

    def logprobs(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Score given completions at temperature 1; see `opd.writing.Sampler`."""
        lengths = [len(prompt) + len(completion) for prompt, completion in sequences]
        scores: dict[int, list[float]] = {}
        for batch in _budgeted(lengths, self._score_tokens):
            with during("engine's scores"):
                scored = self._score([sequences[place] for place in batch])
            scores.update(zip(batch, scored, strict=True))
        return [scores[place] for place in range(len(sequences))]

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace the weights in place; see `opd.writing.Sampler`."""
        import torch

        own, given = self._network.state_dict(), complete(weights, self._facts)
        if renames(self._network):
            given = remade(self._network, given).state_dict().items()
        with torch.no_grad():
            for name, tensor in given:
                own[name].copy_(tensor)
        self._version = version

    def close(self) -> None:
        """Let go of the model."""
        self._network = None
        gc.collect()

    def _score(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Score sequences that fit into one batch: padded on the right, where causal attention never looks."""
        import torch

        ids_BL = torch.zeros(len(sequences), max(len(p) + len(c) for p, c in sequences), dtype=torch.long)
        for row, (prompt, completion) in zip(ids_BL, sequences, strict=True):
            row[: len(prompt) + len(completion)] = torch.tensor([*prompt, *completion])
        ids_BL = ids_BL.to(self._network.device)
        with torch.inference_mode():
            logits_BLV = self._network(input_ids=ids_BL[:, :-1], use_cache=False).logits
            chosen_BL = _logprobs_of(logits_BLV, ids_BL[:, 1:]).tolist()
        return [row[len(p) - 1 : len(p) + len(c) - 1] for row, (p, c) in zip(chosen_BL, sequences, strict=True)]


def _logprobs_of(logits_BLV: Tensor, tokens_BL: Tensor) -> Tensor:
    """Log-probs of given tokens, float32 [B, L]."""
    logits_BLV = logits_BLV.float()
    return logits_BLV.gather(-1, tokens_BL[..., None])[..., 0] - logits_BLV.logsumexp(-1)


def _budgeted(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group places by length, so that no group but a single one holds more than `tokens` padded tokens."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        # In ascending order the newcomer is the longest of its group.
        if not groups or (len(groups[-1]) + 1) * lengths[place] > tokens:
            groups.append([])
        groups[-1].append(place)
    return groups
