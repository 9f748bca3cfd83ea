"""The student as its own teacher: the same model, shown in its prompt what the student is not.

SDFT: Shenfeld et al., "Self-Distillation Enables Continual Learning", 2026 (a demonstration in the context, a moving
average as the teacher). OPSD: Zhao et al., "Self-Distilled Reasoner: On-Policy Self-Distillation for Large Language
Models", 2026 (the reference solution in the context, frozen or live weights).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from opd.needs import Needs, Provides
from opd.teachers.local import WHOLE, LocalTeacher, own_head, score_sequences
from opd.teachers.reading import Reading, rendering_notes
from opd.teaching import Pupil, Scorer
from opd.types import Judgement, Prompt, Reads, Rollout

if TYPE_CHECKING:
    from torch import Tensor

    from opd.models.heads import SplitModel


@dataclass(frozen=True, kw_only=True)
class SelfTeacher(Reading):
    """Settings of a student that teaches itself."""

    weights: Literal["base", "live", "ema"] = "base"
    """`base`: those it started from (with LoRA its adapters are switched off, else a frozen copy is loaded);
    `live`: the newest ones; `ema`: a moving average of the trained ones, of LoRA's factors one by one."""
    decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of `ema`: what stays of the average in each optimizer step."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Its distribution is taken at this temperature."""
    micro_tokens: Annotated[int, Field(ge=1)] = 8192
    """Positions that go through it at once."""
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = "auto"
    """Of a frozen copy; otherwise it computes as the learner does. The other three are those of a copy, too."""
    attention: str = "auto"
    """transformers' attention implementation: `auto` is its choice."""
    device: str = "auto"
    """A torch device; `auto` is `cuda` where there is one, else `cpu`."""
    trust_remote_code: bool = False
    """Run the code that comes with the model's files."""

    def __post_init__(self) -> None:
        """Refuse a teacher that is the student, and a decay that is missing or not read."""
        super().__post_init__()
        if (self.weights == "ema") != (self.decay is not None):
            allowed = "a number between 0 and 1, such as 0.99" if self.weights == "ema" else "null"
            raise ValueError(f"decay={self.decay}: with weights={self.weights} allowed is {allowed}")
        shown = (self.system, self.context, self.template_kwargs or None)
        told = self.prompt == "own" and shown != (None, None, None)
        if not told and self.temperature == 1.0 and self.weights == "live":
            raise ValueError(
                "weights=live: without context, system or template_kwargs the teacher is the student itself, and there "
                "is nothing to learn from it; give a context such as '{prompt} Hint: {answer}', or use weights=base"
            )

    @property
    def provides(self) -> Provides:
        """Log-probs of the sampled tokens, and its whole distribution through its hidden states."""
        return Provides(logprobs=True, distribution=True, top_k=WHOLE)

    def checkpoint(self) -> None:
        """None: the settings do not know the student, and its weights move."""

    def start(self, pupil: Pupil) -> Scorer:
        """Score with the learner's own weights; without a learner, over a frozen copy of what it started from."""
        learner = pupil.learner
        if learner is None:
            return self._frozen(pupil, f"the teacher is a frozen copy of {pupil.model}: no student is being trained")
        if self.weights == "base":
            return self._frozen(pupil) if learner.base() is None else BaseScorer(self, learner, pupil)
        return LiveScorer(self, learner, pupil) if self.weights == "live" else EmaScorer(self, learner, pupil)

    def _frozen(self, pupil: Pupil, *notes: str) -> Scorer:
        assert pupil.model is not None, "a student that started from nothing"
        copied = ("prompt", "system", "context", "opening", "template", "template_kwargs", "temperature",
                  "micro_tokens", "dtype", "attention", "device")  # fmt: skip
        trust = self.trust_remote_code or pupil.model.trust_remote_code  # it is the student
        given = {name: getattr(self, name) for name in copied}
        teacher = LocalTeacher(model=pupil.model.path, trust_remote_code=trust, **given)
        scorer = teacher.start(pupil)
        return replace(scorer, differences=(*scorer.differences, *notes))


@dataclass
class LiveScorer:
    """Scores with the learner's weights as they are."""

    settings: SelfTeacher
    learner: Any
    """The live `opd.learner.student.Student`."""
    pupil: Pupil
    shared: tuple[Tensor, Tensor] | None = None
    vocabulary: int = field(init=False)
    split: SplitModel | None = field(init=False, default=None)
    """As it last scored: a trained head is a copy, so that logits stay those of the scores while the learner steps."""

    def __post_init__(self) -> None:
        """Share all columns with the student."""
        self.vocabulary = self.pupil.size

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Judge every completion token after the prompt as the teacher is shown it, without dropout."""
        learner, s = self.learner, self.settings
        prompts, completions = self.read([r.prompt for r in rollouts]), [r.tokens for r in rollouts]
        with self.wearing(), learner.read() as split:
            self.split = split
            if needs.distribution and learner.split.head.weight.requires_grad:
                self.split = own_head(learner.split, learner.compute)
            return score_sequences(
                self.split, prompts, completions, needs, s.micro_tokens, s.temperature, self.vocabulary
            )

    def wearing(self) -> AbstractContextManager[Any]:
        """Inside, the learner has the teacher's weights."""
        return nullcontext()

    def logits(self, state: Tensor) -> Tensor:
        """Float32 logits [N, V] of hidden states [N, H] that it last handed over, without a graph."""
        import torch

        assert self.split is not None, "logits() before score()"
        with torch.no_grad(), self.learner.autocast():
            return self.split.logits(state, self.vocabulary) / self.settings.temperature

    def read(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """The ids of each prompt, with what the student is not shown."""
        return self.settings.read(self.pupil.tokenizer, prompts)

    def reads(self, rollouts: Sequence[Rollout]) -> list[Reads]:
        """The learner's model."""
        return [Reads.of(rollouts, self.read([r.prompt for r in rollouts]), self.learner.split)]

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """How many prompts it reads otherwise than the student does."""
        return rendering_notes(self.read(prompts), prompts)

    def close(self) -> None:
        """Let go of its copy of the head; the learner is the run's."""
        self.split = None


@dataclass
class BaseScorer(LiveScorer):
    """Scores with the weights under the learner's adapters."""

    def wearing(self) -> AbstractContextManager[Any]:
        """The adapters are off."""
        context: AbstractContextManager[Any] = self.learner.base()
        return context


@dataclass
class EmaScorer(LiveScorer):
    """Scores with an exponential moving average of the trained weights."""

    averages: dict[str, Tensor] = field(init=False)
    """Float32, by the parameter's name."""
    steps: int = field(init=False)
    """Optimizer steps that they have seen."""

    def __post_init__(self) -> None:
        """Begin with the learner's weights."""
        super().__post_init__()
        self.averages = {name: p.detach().float().clone() for name, p in self.trained().items()}
        self.steps = self.learner.steps

    def trained(self) -> dict[str, Tensor]:
        """The learner's trained parameters by name."""
        return {name: p for name, p in self.learner.model.named_parameters() if p.requires_grad}

    def advance(self) -> None:
        """Take in the learner's weights if it has stepped: average <- d*average + (1-d)*weights, d = decay^steps."""
        from opd.models.shards import own

        gone, decay = self.learner.steps - self.steps, self.settings.decay
        assert decay is not None, "checked with the settings"
        if gone:
            for name, p in self.trained().items():
                average = own(self.averages[name])
                average.lerp_(own(p.detach()).to(average), 1.0 - decay**gone)  # one of them may be at home
            self.steps = self.learner.steps

    @contextmanager
    def wearing(self) -> Iterator[None]:
        """The averages lie in the parameters' places."""
        self.advance()
        from opd.models.shards import exchange

        trained = self.trained()
        for name, p in trained.items():
            exchange(p, self.averages[name])
        try:
            yield
        finally:
            for name, p in trained.items():
                exchange(p, self.averages[name])

    def state(self) -> dict[str, Tensor]:
        """The averages, and how many steps they have seen."""
        import torch

        return {**self.averages, "steps": torch.tensor(self.steps)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from them; KeyError where one is missing, ValueError where one does not fit."""
        from opd.models.finite import not_finite
        from opd.models.shards import own, part

        for name, average in self.averages.items():
            if state[name].shape != average.shape:
                raise ValueError(f"{name} is {list(state[name].shape)}, and the weight is {list(average.shape)}")
        if odd := sorted(state.keys() - self.averages.keys() - {"steps"}):
            raise ValueError(f"there is no weight {odd[0]}")
        if problem := not_finite(state.items()):
            raise ValueError(f"{problem} is not finite")
        self.steps = int(state["steps"])
        for name, average in self.averages.items():
            own(average).copy_(own(part(state[name].__getitem__, average)))
