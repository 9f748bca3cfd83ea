"""Hand-written tenants of a GPU that note in a diary when they come, work and leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from opd.learner.offload import Mover
from opd.needs import Needs
from opd.rollout.hf import Hf, HfSampler
from opd.rollout.sleep import Part, Sleeper
from opd.teachers.local import LocalScorer, LocalTeacher
from opd.teaching import Pupil, Scorer
from opd.types import Judgement, Pretrained, Prompt, Rollout, Sampling, TokenPair, Weights

CPU = torch.device("cpu")
DIARY: list[str] = []
"""What the tenants of this process did, in order; the same thing several times in a row is one entry."""


def note(entry: str) -> None:
    """Write an entry, unless it is the last one already."""
    if DIARY[-1:] != [entry]:
        DIARY.append(entry)


@dataclass(frozen=True)
class SleepyHf(Hf):
    """A transformers engine that sleeps as vLLM does on a GPU: what it does not keep is gone."""

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> Sleeper:
        """Load it, and let it sleep."""
        return Sleeper(SleepySampler(super().start(model, max_len=max_len, seed=seed)))


@dataclass
class SleepySampler:
    """An engine without weights while these are asleep, that cannot sample before its cache is awake."""

    inner: HfSampler
    kept: dict[str, Tensor] = field(default_factory=dict)
    awake: set[Part] = field(default_factory=lambda: {"weights", "kv_cache"})

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        """Draw."""
        assert self.awake == {"weights", "kv_cache"}
        note("sample")
        return self.inner.sample(prompts, sampling)

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        """Score."""
        assert self.awake == {"weights", "kv_cache"}
        note("logprobs")
        return self.inner.logprobs(sequences)

    def load_weights(self, weights: Weights, version: int) -> None:
        """Replace the weights."""
        assert "weights" in self.awake
        note("push")
        self.inner.load_weights(weights, version)

    def sleep(self, keep: bool) -> None:
        """Lose caches and weights, of which a copy is kept or not."""
        assert self.awake == {"weights", "kv_cache"}
        note(f"sleep {'keeping' if keep else 'losing'}")
        self.awake = set()
        held = self.inner._network.state_dict()
        self.kept = {name: tensor.clone() for name, tensor in held.items()} if keep else {}
        for tensor in held.values():
            tensor.fill_(torch.nan)

    def wake(self, part: Part) -> None:
        """Have memory for a part again."""
        note(f"wake {part}")
        self.awake.add(part)
        if part == "weights":
            for name, tensor in self.inner._network.state_dict().items():
                tensor.copy_(self.kept.get(name, tensor))

    def close(self) -> None:
        """Free it."""
        self.inner.close()


@dataclass(frozen=True, kw_only=True)
class DiaryTeacher(LocalTeacher):
    """A local teacher that notes when it scores."""

    def start(self, pupil: Pupil) -> Scorer:
        """Load it."""
        return _Diary(super().start(pupil))


class _Diary:
    def __init__(self, scorer: LocalScorer) -> None:
        self.scorer = scorer

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        note("score")
        return self.scorer.score(rollouts, needs)

    def __getattr__(self, name: str):
        return getattr(self.scorer, name)


@dataclass(frozen=True)
class DoubleMover:
    """Moves to "the host" and back on a CPU: at home tensors are float64, which nothing computes with unnoticed."""

    name: str
    device: torch.device = CPU

    def home(self, tensor: Tensor, place: Tensor | None) -> Tensor:
        """Copy; what was on the device is overwritten, as it will be there."""
        copied = tensor.double() if place is None else place.copy_(tensor)
        if copied is not tensor and tensor.dtype != torch.float64:
            tensor.fill_(torch.nan)
        return copied

    def there(self, tensor: Tensor) -> Tensor:
        """Copy back."""
        note(f"{self.name} come")
        assert tensor.dtype == torch.float64
        return tensor.float()

    def wait(self) -> None:
        """All have left."""
        note(f"{self.name} leave")


def movers(*names: str) -> Callable[[bool, torch.device], Mover | None]:
    """A stand-in for `opd.learner.offload.mover`, which is asked for the movers of these names in turn."""
    left = list(names)

    def mover(wanted: bool, device: torch.device) -> Mover | None:
        name = left.pop(0)
        return DoubleMover(name) if wanted else None

    return mover
