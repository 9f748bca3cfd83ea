"""What the settings of several processes come to, without starting any."""

from __future__ import annotations

import pytest

from opd.devices.ranks import copies
from opd.types import UserError


def test_all_ranks_have_one_copy_of_the_weights_unless_they_are_told_otherwise() -> None:
    assert copies(8, None) == copies(8, 8) == (8,)
    assert copies(8, 4) == (2, 4)
    assert copies(8, 1) == (8, 1)


@pytest.mark.parametrize("shard", [3, 16])
def test_groups_that_do_not_divide_the_ranks_are_refused_with_those_that_do(shard: int) -> None:
    with pytest.raises(UserError, match=rf"devices.shard={shard}: 8 ranks .* allowed are 1, 2, 4, 8, or null"):
        copies(8, shard)
