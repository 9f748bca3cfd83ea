"""A handful of what `python -m tests.faults checkpoints` does to all files of all kinds of checkpoints."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults.checkpoints import attempts


def test_a_damaged_checkpoint_is_found_out_and_the_older_one_gone_on_from(tmp_path: Path) -> None:
    ways = ("cut at a random length", "one bit flipped", "another model's", "NaN in a tensor", "manifest edited")
    done = list(attempts(tmp_path, 1, random.Random(3), ways, ("adapters",), earlier=False))
    assert [way for way, *_ in done] == list(ways)
    assert [f"{way} ({what}): {wrong}" for way, what, wrong in done if wrong] == []
