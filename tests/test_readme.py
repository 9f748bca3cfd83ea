"""Every figure of the README is one that was measured."""

from __future__ import annotations

import copy
import json

import pytest

from tests.readme import KEPT, README, TUNING, quoting, written

TEXT = README.read_text(encoding="utf-8")
MEASURED = json.loads(KEPT.read_text(encoding="utf-8"))


def test_the_readme_says_what_was_measured() -> None:
    assert written(TEXT, MEASURED) == TEXT
    page = TUNING.read_text(encoding="utf-8")
    assert quoting(page, MEASURED) == page


@pytest.mark.parametrize("of", ["shown", "seeds", "kl", "accuracy"])
def test_another_measurement_would_be_another_readme(of: str) -> None:
    other = copy.deepcopy(MEASURED)
    if of == "shown":
        other["quickstart"][of]["opd eval"][-1] = "teacher 12.3%"
    elif of == "seeds":
        other["quickstart"][of][1][1] = 0.123
    else:
        other["methods"]["gkd"][of][1] = 0.123
    assert written(TEXT, other) != TEXT
    assert "12.3%" in written(TEXT, other) or ".123" in written(TEXT, other)
