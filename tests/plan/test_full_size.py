"""The predicted tables of recipes/FULL_SIZE.md are those that are predicted now."""

from __future__ import annotations

import pytest

from tests.plan import full_size


@pytest.mark.slow
def test_the_page_has_what_is_predicted() -> None:
    assert full_size.page() == full_size.PAGE.read_text(), "run python -m tests.plan.full_size"
