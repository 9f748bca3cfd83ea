"""Colours that can be read and told apart, in both themes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from opd.report import colors


@pytest.mark.parametrize("side", ["BLUES", "ORANGES"])
@pytest.mark.parametrize("theme", [0, 1])
def test_text_on_every_token_has_enough_contrast(side: str, theme: int) -> None:
    for background in getattr(colors, side)[theme]:
        assert colors.contrast(colors.ink_on(background), background) >= 4.5
    assert colors.contrast(colors.INKS[theme], colors.PAGES[theme]) >= 7


@pytest.mark.parametrize("side", ["BLUES", "ORANGES"])
@pytest.mark.parametrize("theme", [0, 1])
def test_a_stronger_disagreement_is_further_from_the_page_in_lightness(side: str, theme: int) -> None:
    distances = [colors.contrast(c, colors.PAGES[theme]) for c in getattr(colors, side)[theme]]
    assert distances == sorted(distances)
    assert all(b / a > 1.15 for a, b in pairwise(distances))


@pytest.mark.parametrize("theme", [0, 1])
def test_lines_stand_out_from_the_page(theme: int) -> None:
    assert min(colors.contrast(line, colors.PAGES[theme]) for line in colors.LINES[theme]) >= 3


def test_contrast_is_that_of_the_guidelines() -> None:
    assert colors.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert colors.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_levels_begin_at_their_edges_and_have_the_sign_of_the_disagreement() -> None:
    nats = [-9, -4, -0.5, -0.09, 0, 0.09, 0.1, 0.99, 1, 3.9, 4]
    assert [colors.level(x) for x in nats] == [-5, -5, -2, 0, 0, 0, 1, 2, 3, 4, 5]
    assert [colors.token_class(x) for x in (-1, 0, 1, math.nan)] == ["n3", "z", "p3", "u"]


def test_no_two_runs_have_the_same_colour_and_dashes() -> None:
    rules = [line.split("{", 1)[1] for line in colors.css().splitlines() if line.startswith(".run")]
    assert len(set(rules)) == len(rules) == colors.RUNS
