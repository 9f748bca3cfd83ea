"""A teacher with another tokenizer: it reads the student's text, and judges byte spans instead of tokens.

A span is the smallest group of the student's tokens and of the teacher's that spell the same bytes. Its log-prob is the
chain rule's: the sum over the teacher's tokens. See `opd.objectives.gold` for what is learned from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from opd.needs import Needs, Provides
from opd.teachers.local import WHOLE, LocalScorer, LocalTeacher, lent
from opd.teachers.translation import Lexicon, Translation
from opd.teaching import Pupil, Scorer
from opd.types import Judgement, Prompt, Reads, Rollout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CrossTeacher(LocalTeacher):
    """Settings of a local teacher with a tokenizer of its own."""

    def __post_init__(self) -> None:
        """Refuse to read ids that mean something else here."""
        super().__post_init__()
        if self.prompt == "student":
            raise ValueError("prompt=student: the student's ids are other tokens here; allowed is prompt=own")

    @property
    def provides(self) -> Provides:
        """Log-probs of spans, and its own distribution where a span starts."""
        return Provides(spans=True, distribution=True)

    def check(self, pupil: Pupil) -> None:
        """Raise UserError where it cannot read chats, or the two have nothing in common."""
        self._lexicon(pupil)

    def _lexicon(self, pupil: Pupil) -> Lexicon:
        from opd.models.loading import stop_ids, tokenizer_of

        model = self.checkpoint()
        theirs = tokenizer_of(model)
        self.check_template(theirs, pupil.chat)
        return Lexicon.of(pupil, theirs, stop_ids(model, theirs))

    def start(self, pupil: Pupil) -> CrossScorer:
        """Load it, and find out which tokens of the two spell the same; UserError where it cannot be known."""
        import torch

        lexicon = self._lexicon(pupil)
        own = Pupil(lexicon.teacher, WHOLE, team=pupil.team)  # with its own tokenizer: there is nothing to compare
        local = super().start(own)
        pairs = [(i, j) for i, j in lexicon.shared.items() if i < pupil.size and j < local.vocabulary]
        ours, same = torch.tensor(pairs, dtype=torch.int64).T.contiguous()
        return CrossScorer(self, local.tokenizer, local.split, local.vocabulary, shared=(ours, same), lexicon=lexicon)

    def share(self, scorer: Scorer) -> LocalScorer | None:
        """As for a local teacher; one that reads the student's ids has not learned to read its text."""
        return super().share(scorer) if isinstance(scorer, CrossScorer) else None


@dataclass
class CrossScorer(LocalScorer):
    """A loaded teacher with another tokenizer."""

    lexicon: Lexicon = field(kw_only=True)

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        """Judge every span of every completion after the teacher's own rendering of the prompt."""
        from opd.batch import pack_sequences
        from opd.models.scoring import score_packed

        assert self.split is not None, "score() after close()"
        read = [self.lexicon.translate(r) for r in rollouts]
        pairs = list(zip(self.read([r.prompt for r in rollouts]), (t.ids for t in read), strict=True))
        out = [self._judgement(r, Translation([], [], False), None, None, needs) for r in rollouts]
        packs = pack_sequences(pairs, 0, self.settings.micro_tokens, shared=self.split.shared)
        for packed in self.split.passes(packs):
            with lent(self.split.body, self.split.head.weight.device):
                values, hidden, _ = score_packed(self.split, packed, self.settings.temperature)
            sizes = [len(pairs[i][1]) for i in packed.sequences]
            for i, q, state in zip(packed.sequences, values.split(sizes), hidden.split(sizes), strict=True):
                out[i] = self._judgement(rollouts[i], read[i], q, state, needs)
        return out

    def reads(self, rollouts: Sequence[Rollout]) -> list[Reads]:
        """Its own model, which reads completions in its own tokens."""
        (own,) = super().reads(rollouts)
        lengths = [(p, len(self.lexicon.translate(r).ids)) for (p, _), r in zip(own.lengths, rollouts, strict=True)]
        return [replace(own, lengths=lengths)]

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """How much of the vocabulary is shared, and whether it reads the prompts through another template."""
        ours, theirs = self.lexicon.student, self.lexicon.teacher
        total, n = len(self.lexicon.student_pieces), len(self.lexicon.shared)
        said = [f"another tokenizer: {n} of the student's {total} tokens ({n / total:.0%}) are also the teacher's"]
        other = sum(
            ours.decode(p.tokens) != theirs.decode(ids) for p, ids in zip(prompts, self.read(prompts), strict=True)
        )
        return [*said, f"the teacher reads {other} of {len(prompts)} prompts as another text"] if other else said

    def _judgement(
        self, rollout: Rollout, read: Translation, q: Tensor | None, hidden: Tensor | None, needs: Needs
    ) -> Judgement:
        """What the teacher's log-probs q [S] and hidden states [S, H] of its own S tokens say of the student's."""
        import torch

        assert self.split is not None
        total, weight = len(rollout.tokens), self.split.head.weight
        logprobs, numbers = [float("nan")] * total, [-1] * total
        state = torch.zeros(total, weight.shape[1], dtype=weight.dtype) if needs.distribution else None
        if q is not None and hidden is not None:
            values = q.tolist()
            if read.ended:
                values[-1] = self._end(hidden[-1:])
            for k, (ours, theirs) in enumerate(read.spans):
                for i in ours:
                    logprobs[i], numbers[i] = math.fsum(values[j] for j in theirs) / len(ours), k
            if state is not None and read.spans:
                firsts, heads = [a[0] for a, _ in read.spans], [b[0] for _, b in read.spans]
                state[firsts] = hidden[heads].cpu()
        return Judgement(
            torch.tensor(logprobs, dtype=torch.float32), state, spans=torch.tensor(numbers, dtype=torch.int64)
        )

    def _end(self, hidden: Tensor) -> float:
        """Log-prob that the turn ends after the hidden state [1, H], by whichever of its stop tokens."""
        stop = list(self.lexicon.teacher_stop)
        return float(self.logits(hidden).log_softmax(-1)[0, stop].logsumexp(-1))
