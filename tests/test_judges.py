"""What the judges are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from opd.judges import Judges
from opd.needs import Needs
from opd.types import Judgement, Rollout
from tests.tiny import rollouts


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
