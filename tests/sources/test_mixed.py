"""Shares of several sources."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opd.commands.train.plan import source_name
from opd.config.compose import load
from opd.sources.dataset import DatasetSource
from opd.sources.mixed import Mixed, deal
from opd.sources.student import StudentSource
from opd.types import Sampling
from tests.sources.desks import STOP, make_desk, tables
from tests.sources.test_dataset import prompts

SAMPLING = Sampling(max_tokens=6, n=2, stop=(STOP,), seed=3)
PARTS = {"own": StudentSource(), "given": DatasetSource()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.lists(st.floats(0, 5), min_size=1, max_size=4), st.integers(0, 2**60))
def test_every_place_is_dealt_once_and_shares_are_exact_up_to_rounding(
    count: int, shares: list[float], seed: int
) -> None:
    if not sum(shares):
        return
    dealt = deal(count, shares, seed)
    assert sorted(i for part in dealt for i in part) == list(range(count))
    for part, share in zip(dealt, shares, strict=True):
        assert abs(len(part) - share / sum(shares) * count) < 1 + 1e-6


def test_rounding_is_right_on_average_and_whole_shares_are_not_rounded() -> None:
    sizes = np.array([[len(part) for part in deal(5, [0.3, 0.5, 0.2], seed)] for seed in range(4000)])
    assert sizes.mean(0) == pytest.approx([1.5, 2.5, 1.0], abs=0.03)
    assert set(sizes[:, 2]) <= {0, 1, 2}
    assert all([len(part) for part in deal(8, [1, 3], seed)] == [2, 6] for seed in range(50))


def test_every_place_is_as_likely_as_any_other() -> None:
    hits = Counter(i for seed in range(4000) for i in deal(5, [1, 1], seed)[0])
    assert all(abs(hits[i] / 4000 - 0.5) < 0.04 for i in range(5))


def test_prompts_keep_their_order_and_every_part_signs_its_own() -> None:
    asked = prompts(8)
    source = Mixed(parts=PARTS, shares={"own": 1, "given": 3})
    written = source.start(make_desk(tables()[0])).sample(asked, SAMPLING)
    assert all(r.prompt is p for r, p in zip(written, [p for p in asked for _ in range(2)], strict=True))
    assert Counter(r.origin for r in written) == {"own": 4, "given": 12}
    assert all(a.origin == b.origin for a, b in zip(written[::2], written[1::2], strict=True))


def test_same_seed_same_rollouts_and_another_seed_another_deal() -> None:
    writer = Mixed(parts=PARTS, shares={"own": 0.5, "given": 0.5}).start(make_desk(tables()[0]))
    first, again, other = (
        [(r.origin, r.tokens) for r in writer.sample(prompts(8), replace(SAMPLING, seed=s))] for s in (3, 3, 4)
    )
    assert first == again
    assert [o for o, _ in first] != [o for o, _ in other]


def test_it_is_a_policy_where_every_part_with_a_share_is() -> None:
    assert not Mixed(parts=PARTS, shares={"own": 0.9, "given": 0.1}).policy
    assert Mixed(parts=PARTS, shares={"own": 1.0, "given": 0.0}).policy


@pytest.mark.parametrize(
    ("parts", "shares", "words"),
    [
        (PARTS, {"own": 1.0, "givn": 1.0}, r"shares\.givn=1: no such part, did you mean given\?"),
        (PARTS, {"own": 1.0}, "part given has no share"),
        (PARTS, {"own": 0.0, "given": 0.0}, "more than 0 in sum"),
        ({"own": 3}, {"own": 1.0}, r"parts\.own=3: allowed is a mapping whose _target_ is a source"),
    ],
)
def test_what_does_not_fit_together_is_refused(parts: dict, shares: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Mixed(parts=parts, shares=shares)


@pytest.mark.parametrize(("shares", "dealing", "remark"), [
    ({"own": 0.7, "given": 0.3}, "70% own, 30% given", ""),
    ({"own": 3, "given": 1}, "75% own, 25% given", ""),
    ({"own": 1, "given": 0}, "100% own", ""),
    ({"own": 0.9, "given": 0.5}, "64% own, 36% given", "as its shares come to 1.4 and not to 1"),
    ({"own": 0, "given": 0.5}, "100% given", ""),
])  # fmt: skip
def test_shares_that_read_as_parts_of_one_and_are_not_are_told(
    shares: dict[str, float], dealing: str, remark: str
) -> None:
    mixed = Mixed(parts=PARTS, shares=shares)
    assert mixed.dealing == dealing
    assert mixed.remark == (remark and f"source: {dealing} of the prompts, {remark}")


def test_the_plan_says_the_shares_and_that_one_alone_was_set() -> None:
    alone = load("gkd", ["source.shares.student=0.9"])
    assert source_name(alone.config.source) == "Mixed, 64% student, 36% dataset of the prompts"
    assert [note for note in alone.notes if "come to 1.4" in note]
    assert load("gkd", ["source.shares={student: 0.9, dataset: 0.1}"]).notes == load("gkd").notes
