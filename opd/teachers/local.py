"""A teacher in this process: any transformers causal LM, scored without gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from opd.chat import Template, render, with_system, without_system
from opd.types import ModelSource, Need, Prompt, Rollout, Scored, UserError, Vocabulary
from opd.vocabulary import check_shared

if TYPE_CHECKING:
    from torch import Tensor

    from opd.heads import SplitModel

FLOOR = -100.0
"""Log-prob (nats) of a token beyond the teacher's output head: a padding row of the student's that got sampled."""


@dataclass(frozen=True)
class LocalTeacher:
    """Settings of a local teacher."""

    model: str | ModelSource
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    prompt: Literal["own", "student"] = "own"
    """`own`: it reads the messages through its own template; `student`: the student's prompt ids as they are."""
    system: str | None = None
    """System prompt of its own; None: the one that the prompt came with."""
    template: Template = "auto"
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Passed to its chat template, such as `enable_thinking`."""
    micro_tokens: Annotated[int, Field(ge=1)] = 8192
    """Positions that go through it at once."""
    attention: str = "sdpa"
    device: str = "auto"
    trust_remote_code: bool = False

    @property
    def provides(self) -> frozenset[Need]:
        """Log-probs of the sampled tokens, and its whole distribution through its hidden states."""
        return frozenset({"logprobs", "distribution"})

    def checkpoint(self) -> str:
        """Where its weights are."""
        return self.model if isinstance(self.model, str) else self.model.path()

    def start(self, vocabulary: Vocabulary) -> LocalScorer:
        """Load it; UserError where it does not share the student's vocabulary."""
        import torch

        from opd.heads import split_model
        from opd.loading import load_causal_lm, pick_device, tokenizer_of

        path = self.checkpoint()
        tokenizer = tokenizer_of(path, self.trust_remote_code)
        differences = check_shared(vocabulary.tokenizer, tokenizer)
        model = load_causal_lm(
            path, getattr(torch, self.dtype), self.attention, pick_device(self.device), self.trust_remote_code
        )
        model.requires_grad_(False).eval()
        split = split_model(model)
        shared = min(vocabulary.size, split.head.weight.shape[0])
        if split.head.weight.shape[0] != vocabulary.size:
            differences.append(
                f"output heads of {vocabulary.size} and {split.head.weight.shape[0]} rows: {shared} are used"
            )
        return LocalScorer(self, tokenizer, split, shared, tuple(differences))


@dataclass
class LocalScorer:
    """A loaded local teacher."""

    settings: LocalTeacher
    tokenizer: Any
    split: SplitModel | None
    vocabulary: int
    """Columns of its head that the student has too."""
    differences: tuple[str, ...] = ()
    """Between the two vocabularies, harmless ones."""

    def score(self, rollouts: Sequence[Rollout], needs: frozenset[Need]) -> list[Scored]:
        """Log-probs of every completion token after the teacher's own rendering of the prompt."""
        import torch

        from opd.batch import pack_sequences
        from opd.heads import score_packed

        assert self.split is not None, "score() after close()"
        out = [Scored(r, torch.zeros(0)) for r in rollouts]
        prompts = self._render([r.prompt for r in rollouts])
        sequences = [(p, self._known(r.tokens)) for p, r in zip(prompts, rollouts, strict=True)]
        for packed in pack_sequences(sequences, 0, self.settings.micro_tokens):
            with torch.no_grad():
                values, hidden = score_packed(self.split, packed, self.settings.temperature, self.vocabulary)
            sizes = [len(rollouts[i].tokens) for i in packed.sequences]
            rows = zip(packed.sequences, values.cpu().split(sizes), hidden.split(sizes), strict=True)
            for i, logprobs, states in rows:
                beyond = torch.tensor(rollouts[i].tokens) >= self.vocabulary
                keep = states.clone() if "distribution" in needs else None
                out[i] = replace(out[i], teacher_logprobs=logprobs.masked_fill(beyond, FLOOR), teacher_hidden=keep)
        return _empty_hidden(out) if "distribution" in needs else out

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [N, V] of hidden states [N, H], without a graph."""
        import torch

        assert self.split is not None, "logits() after close()"
        # The student may be inside its own autocast: the teacher computes in the dtype that it was loaded in.
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            return self.split.logits(hidden, self.vocabulary) / self.settings.temperature

    def close(self) -> None:
        """Free the weights."""
        self.split = None

    def _known(self, tokens: Sequence[int]) -> Sequence[int]:
        return [min(t, self.vocabulary - 1) for t in tokens]

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """Harmless differences of vocabulary, and whether it reads the prompts through another template."""
        rendered = self._render(prompts)
        other = sum(tuple(ids) != p.tokens for ids, p in zip(rendered, prompts, strict=True))
        if not other:
            return list(self.differences)
        return [
            *self.differences,
            f"the teacher renders {other} of {len(prompts)} prompts differently from the student",
        ]

    def _render(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        s = self.settings
        if s.prompt == "student":
            return [p.tokens for p in prompts]
        rendered: dict[str, Sequence[int]] = {}  # the samples of one prompt share its rendering
        for p in prompts:
            if p.example.id not in rendered:
                messages = p.example.messages
                if s.system is not None:
                    messages = with_system(without_system(messages), s.system)
                rendered[p.example.id] = render(
                    self.tokenizer, messages, template=s.template, template_kwargs=s.template_kwargs
                )
        if any(not ids for ids in rendered.values()):
            raise UserError("teacher.template renders an empty prompt; it needs at least one token, such as a BOS")
        return [rendered[p.example.id] for p in prompts]


def _empty_hidden(scored: list[Scored]) -> list[Scored]:
    """Give empty completions [0, H] states, so that either all rollouts have some or none."""
    width = next((s.teacher_hidden for s in scored if s.teacher_hidden is not None), None)
    if width is None:
        return scored
    return [s if s.teacher_hidden is not None else replace(s, teacher_hidden=width[:0]) for s in scored]
