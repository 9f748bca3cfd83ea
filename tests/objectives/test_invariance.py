"""The gradient of a step is one number: however the step is cut up, packed, padded and ordered. For every objective."""

from __future__ import annotations

import pytest
import torch

from opd.batch import to_batch
from opd.learner.student import Student
from opd.models import heads
from opd.teaching import Scorer
from tests.objectives.cases import Case, assert_same, judged, naive_step, step

ALIKE = [(10 - c, c) for c in (3, 3, 8, 8, 1, 1, 5, 5)]
"""Eight sequences of the same length, so that no two fit into one row."""


def test_micro_batches_of_any_size_give_one_gradient(case: Case, student: Student, teacher: Scorer) -> None:
    items = judged(case, student, teacher, ALIKE)
    found = {}
    for sequences in (8, 4, 2, 1):
        batch = to_batch(items, 0, micro_tokens=9 * sequences)
        assert [m.input_ids.shape[0] for m in batch.micro] == [sequences] * (8 // sequences)
        found[sequences] = step(student, batch, case.objective, teacher)
    assert found[8].size > 1e-3
    for sequences in (4, 2, 1):
        assert_same(found[sequences], found[8])


@pytest.mark.parametrize("side", ["left", "right"])
def test_packed_and_chunked_it_is_the_gradient_of_a_padded_batch_with_all_logits(
    side: str, case: Case, student: Student, teacher: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 45 * 16)  # the head in chunks of 16 tokens
    items = judged(case, student, teacher)
    batch = to_batch(items, 0, 54)
    assert len(batch.micro) > 1
    assert any(len(m.tokens) > 16 for m in batch.micro)
    assert any(len(m.sequences) > m.input_ids.shape[0] for m in batch.micro)
    assert_same(
        step(student, batch, case.objective, teacher),
        naive_step(student, items, case.objective, teacher, side),
    )


def test_rows_of_their_own_give_the_gradient_of_shared_ones(case: Case, student: Student, teacher: Scorer) -> None:
    items = judged(case, student, teacher)
    alone = to_batch(items, 0, 54, shared=False)
    assert all(len(m.sequences) == m.input_ids.shape[0] for m in alone.micro)
    assert_same(
        step(student, alone, case.objective, teacher),
        step(student, to_batch(items, 0, 54), case.objective, teacher),
    )


def test_the_order_of_the_batch_and_its_pad_token_do_not_matter(case: Case, student: Student, teacher: Scorer) -> None:
    items = judged(case, student, teacher)
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(3)).tolist()
    shuffled = to_batch([items[i] for i in order], 1, 30)  # 1 is EOS
    assert_same(
        step(student, shuffled, case.objective, teacher),
        step(student, to_batch(items, 0, 10_000), case.objective, teacher),
    )
