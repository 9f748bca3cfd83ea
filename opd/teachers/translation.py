"""A student's completion in the tokens of a teacher that has other ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opd.teaching import Pupil
from opd.text.pieces import continuation, piece_bytes, shared_tokens
from opd.text.spans import Span, align_spans, same_bytes, whole_characters
from opd.types import Rollout, UserError


@dataclass(frozen=True)
class Lexicon:
    """What the tokens of student and teacher spell, and which of them are the same."""

    student: Any
    teacher: Any
    """The two tokenizers."""
    student_pieces: Sequence[bytes]
    teacher_pieces: Sequence[bytes]
    shared: dict[int, int]
    """Tokens with the same bytes, and the two that end a turn."""
    twins: dict[int, int]
    """Special tokens of the same name."""
    student_stop: tuple[int, ...]
    teacher_stop: tuple[int, ...]

    @classmethod
    def of(cls, pupil: Pupil, teacher: Any, teacher_stop: tuple[int, ...]) -> Lexicon:
        """Compare the student's tokenizer with the teacher's."""
        from opd.models.loading import stop_ids

        student = pupil.tokenizer
        own = () if student.eos_token_id is None else (student.eos_token_id,)
        stop = stop_ids(pupil.model, student) if pupil.model else own
        ours, theirs = piece_bytes(student), piece_bytes(teacher)
        shared = shared_tokens(student, ours, teacher, theirs)
        if not shared:
            raise UserError("student and teacher have no token in common; choose another teacher")
        names = teacher.get_vocab()
        twins = {i: names[t] for t, i in student.get_vocab().items() if not ours[i] and t in names}
        twins = {i: j for i, j in twins.items() if not theirs[j]}
        if stop and teacher_stop and not set(stop) & set(shared):
            shared[stop[0]] = teacher_stop[0]
        return cls(student, teacher, ours, theirs, shared, twins, stop, teacher_stop)

    def translate(self, rollout: Rollout) -> Translation:
        """Tokenise the student's completion anew, and say which tokens of both are the same bytes.

        The text is cut at special tokens and where the environment's words begin or end, so that no span crosses them.
        Without a place in a span are special tokens that the teacher does not have, and all that follows the last
        whole character.
        """
        ids: list[int] = []
        spans: list[Span] = []
        whole, last = True, len(rollout.tokens) - 1
        for run in self._runs(rollout):
            token = rollout.tokens[run[0]]
            ended = run[0] == last and token in self.student_stop and bool(self.teacher_stop)
            if self._spells(token):
                whole = self._add(rollout, run, ids, spans)
            elif ended or token in self.twins:
                spans.append((run, [len(ids)]))
                ids.append(self.teacher_stop[0] if ended else self.twins[token])
                if ended:
                    return Translation(ids, spans, ended)
            if not whole:
                break
        return Translation(ids, spans, ended=False)

    def _add(self, rollout: Rollout, run: list[int], ids: list[int], spans: list[Span]) -> bool:
        """Add the text of some tokens; False where it breaks off, so that nothing after it can be read."""
        pieces = [self.student_pieces[rollout.tokens[i]] for i in run]
        kept, text = whole_characters(pieces)
        theirs, spelt = continuation(self.teacher, self.teacher_pieces, text)
        n, m = same_bytes(pieces[:kept], spelt)
        spans += [
            ([run[i] for i in a], [len(ids) + j for j in b]) for a, b in align_spans(pieces[:n], spelt[:m]) if a and b
        ]
        ids += theirs  # also those without a span: what follows is read after them
        return kept == len(run)

    def _runs(self, rollout: Rollout) -> Iterator[list[int]]:
        """Places of the completion's tokens: text that belongs together, and each special token by itself."""
        run: list[int] = []
        for i, (token, mine) in enumerate(zip(rollout.tokens, rollout.mask, strict=True)):
            if run and not (
                self._spells(token) and self._spells(rollout.tokens[i - 1]) and mine == rollout.mask[i - 1]
            ):
                yield run
                run = []
            run.append(i)
        if run:
            yield run

    def _spells(self, token: int) -> bool:
        return token < len(self.student_pieces) and bool(self.student_pieces[token])


@dataclass(frozen=True)
class Translation:
    """A completion in the teacher's tokens."""

    ids: list[int]
    spans: list[Span]
    """Places in the student's completion and in `ids` that are the same bytes."""
    ended: bool
    """The last of `ids` is the end of the turn, whichever of the teacher's stop tokens it takes."""
