"""Charts as text."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd.report.chart import HEIGHT, WIDTH, Mark, drawing, frame, short, span, ticks

NUMBERS = st.floats(-1e12, 1e12).map(lambda x: float(f"{x:.6g}"))


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_every_point_lies_inside_and_the_picture_is_well_formed(values: list[float]) -> None:
    marks = [Mark(float(i), v, v - 1, v + 1) for i, v in enumerate(values)]
    text = drawing(frame([marks], "steps"), marks, 0)
    ElementTree.fromstring(text)
    for circle in re.findall(r'cx="(.*?)" cy="(.*?)"', text):
        x, y = map(float, circle)
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
    assert text.count("<circle") == len(values)


@given(NUMBERS, NUMBERS)
def test_ticks_are_few_round_and_between(a: float, b: float) -> None:
    low, high = span([a, b])
    found = ticks(low, high)
    size = high - low
    assert 1 <= len(found) <= 7
    assert all(low - 1e-6 * size <= t <= high + 1e-6 * size for t in found)


@given(st.floats(1e-6, 9e5), st.floats(0, 0.1))
def test_ticks_read_differently_however_near_the_values_lie(value: float, apart: float) -> None:
    labels = [short(t) for t in ticks(*span([value, value * (1 + apart)]))]
    assert len(set(labels)) == len(labels)


def test_ticks_of_known_spans() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0, 20, 4) == [0, 5, 10, 15, 20]


def test_a_scale_begins_at_zero_only_where_the_values_come_near_it() -> None:
    assert frame([[Mark(0, 0.1), Mark(1, 0.4)]], "").y.low == 0
    assert frame([[Mark(0, 0.9), Mark(1, 1.1)]], "").y.low == 0.9
    assert frame([[Mark(0, -0.1), Mark(1, 4)]], "").y.low == -0.1


def test_a_constant_curve_has_a_scale() -> None:
    for value in (0.0, 3.0, -3.0):
        y = frame([[Mark(0, value), Mark(1, value)]], "").y
        assert y.low < y.high
        assert y.low <= value <= y.high


def test_numbers_at_an_axis_are_short() -> None:
    values = [0, 0.25, 1200, 50_000, 2e6, 3e11, 2.5e-5, -0.5]
    assert [short(v) for v in values] == ["0", "0.25", "1,200", "50k", "2M", "3e11", "2.5e-5", "-0.5"]


def test_an_interval_is_a_band_and_bars() -> None:
    marks = [Mark(0, 0.5, 0.4, 0.6), Mark(1, 0.6, 0.5, 0.7), Mark(2, 0.7)]
    text = drawing(frame([marks], ""), marks, 1)
    assert 'class="band"' in text
    assert text.count("h6") == 4
    assert "nan" not in drawing(frame([[Mark(0, 1, math.nan, math.nan)]], ""), [Mark(0, 1)], 0)
