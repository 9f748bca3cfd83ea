"""What the judges are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from opd.judges import Judges
from opd.needs import Needs
from opd.types import Judgement, PartError, Prompt, Rollout
from tests.tiny import char_tokenizer, rollouts, scored


class Listening:
    """A scorer that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Needs] = []

    def score(self, items: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        self.asked.append(needs)
        return [Judgement(torch.zeros(len(r.tokens))) for r in items]


@pytest.mark.parametrize(("wanted", "alternatives", "asked"), [(0, 0, 0), (0, 5, 5), (3, 0, 3), (3, 5, 3), (20, 5, 20)])
def test_an_objective_gets_its_own_number_of_likeliest_tokens_whatever_people_see(
    wanted: int, alternatives: int, asked: int
) -> None:
    teacher: Any = Listening()
    data: Any = None
    judges = Judges(teacher, None, data, None, Needs(logprobs=True, top_k=wanted))
    judges.score(rollouts([(1, 2)]), alternatives)
    assert teacher.asked == [Needs(logprobs=True, top_k=asked)]


class Counting:
    """Data whose verifier gives each completion its number, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def verify(self, prompt: Prompt, text: str) -> float:
        self.calls += 1
        return float(self.calls)


def test_what_was_to_be_cut_is_not_verified_and_what_ended_is() -> None:
    teacher: Any = Listening()
    data: Any = Counting()
    judges = Judges(teacher, None, data, char_tokenizer(), Needs(logprobs=True))
    written = scored([*rollouts([(2, 3)] * 4), replace(rollouts([(2, 3)] * 2)[1], reward=0.5)])  # every second one cut
    written = [replace(s, reward=None) for s in written]
    assert [s.reward for s in judges.verify(written)] == [1, 2, 3, 4, 0.5]
    assert [s.reward for s in judges.verify(written, short=True)] == [5, None, 6, None, None]
    assert data.calls == 6


class Odd(Listening):
    """A scorer of somebody's own."""

    def __init__(self, said: Any) -> None:
        super().__init__()
        self.said = said

    def score(self, items: Sequence[Rollout], needs: Needs) -> Any:
        return self.said


@pytest.mark.parametrize(("said", "words"), [
    ([], r"Odd\.score gave 0 judgements of 1 rollouts"),
    ([Judgement(torch.zeros(2))], r"gave a tensor of \[2\] for the log-probs of 3 tokens"),
    ([None], r"gave a NoneType for the log-probs of 3 tokens"),
    ([Judgement(torch.tensor([-1.0, 2.5, float("nan")]))], r"gave a log-prob of 2\.5; allowed are those of a"),
])  # fmt: skip
def test_a_teacher_of_ones_own_gives_one_log_prob_of_each_token(said: Any, words: str) -> None:
    teacher: Any = Odd(said)
    data: Any = None
    with pytest.raises(PartError, match=words):
        Judges(teacher, None, data, None, Needs(logprobs=True)).score(rollouts([(1, 3)]))
