"""What engines read of a checkpoint, and how they take weights."""

from __future__ import annotations

import pytest
import torch

from opd.models.facts import Facts
from opd.rollout.loading import complete

TIED = Facts(frozenset(["head.weight"]), parameters=6, architectures=(), vocabulary=2, context=None)
UNTIED = Facts(frozenset(), parameters=10, architectures=(), vocabulary=2, context=None)
EMBED, BODY = torch.ones(2, 2), torch.ones(2)


def names(pairs: list[tuple[str, torch.Tensor]], facts: Facts) -> list[str]:
    return [name for name, _ in complete(pairs, facts)]


def test_a_tied_head_is_left_out_whether_given_or_not() -> None:
    short = [("embed.weight", EMBED), ("body.weight", BODY)]
    expected = ["embed.weight", "body.weight"]
    assert names(short, TIED) == expected
    assert names([*short, ("head.weight", EMBED)], TIED) == expected
    assert names([("head.weight", EMBED), *short], TIED) == expected


def test_an_untied_head_passes_unchanged() -> None:
    pairs = [("embed.weight", EMBED), ("body.weight", BODY), ("head.weight", EMBED)]
    assert list(complete(pairs, UNTIED)) == pairs


@pytest.mark.parametrize("facts", [TIED, UNTIED])
def test_a_push_that_leaves_old_weights_behind_is_an_error(facts: Facts) -> None:
    with pytest.raises(ValueError, match="were pushed into a model of"):
        names([("embed.weight", EMBED), ("head.weight", EMBED)], facts)
