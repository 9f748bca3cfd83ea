"""Charts as text."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd.report.chart import HEIGHT, WIDTH, Mark, drawing, frame, heights, short, span, ticks

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
    assert frame([[Mark(0, 2.0), Mark(1, 3.0)]], "").y.low == 2.0
    assert frame([[Mark(0, -0.1), Mark(1, 4)]], "").y.low == -0.1


def marks(values: Sequence[float], interval: float | None = None) -> list[Mark]:
    ends = [(None, None) if interval is None else (v - interval, v + interval) for v in values]
    return [Mark(float(i), v, *e) for i, (v, e) in enumerate(zip(values, ends, strict=True))]


def filled(values: Sequence[float]) -> float:
    """Share of the plot's height that a curve takes."""
    low, high = heights([marks(values)])
    assert low <= min(values) <= max(values) <= high
    return (max(values) - min(values)) / (high - low)


@pytest.mark.parametrize("level", [0.0, 0.3, 27.0])
@pytest.mark.parametrize("points", [10, 40, 300])
def test_noise_fills_less_than_half_of_the_plot(points: int, level: float) -> None:
    for seed in range(20):
        draw = random.Random(seed)
        assert filled([level + 0.1 * draw.gauss(0, 1) for _ in range(points)]) < 0.5


def test_rare_events_do_not_fill_the_plot_either() -> None:
    draw = random.Random(0)
    assert filled([0.004 * (draw.random() < 0.3) for _ in range(40)]) < 0.5


def test_what_moves_by_a_small_part_of_its_level_is_seen_to() -> None:
    assert filled([26.0 + 0.05 * i for i in range(30)]) < 0.25
    assert filled([1.00001, 1.00004, 1.00002]) < 0.001


@pytest.mark.parametrize("points", [3, 10, 40, 300])
def test_a_course_beyond_the_noise_fills_the_plot(points: int) -> None:
    for seed in range(20):
        draw = random.Random(seed)
        course = [0.03 + 0.6 * math.exp(-5 * i / (points - 1)) for i in range(points)]
        assert filled(course) > 0.9
        assert filled([v * (1 + 0.03 * draw.gauss(0, 1)) for v in course]) > 0.8
    assert filled([0.0] * 10 + [1.0] * 10) > 0.9


def test_a_flat_curve_with_intervals_stays_small_and_a_rising_one_does_not() -> None:
    low, high = heights([marks([0.35, 0.37, 0.36], interval=0.07)])
    assert 0.14 / (high - low) < 0.35
    assert low >= 0.0
    low, high = heights([marks([0.35, 0.7, 0.9], interval=0.07)])
    assert 0.55 / (high - low) > 0.5


def test_an_axis_does_not_cross_a_bound_that_no_value_does() -> None:
    assert heights([marks([0.001] * 10 + [0.0] * 10)])[0] == 0.0
    assert heights([marks([1.0, 1.0, 0.99])])[1] == 1.0
    assert heights([marks([-1e-5, 0.0, -2e-5])])[1] == 0.0
    assert heights([marks([1.0, 1.01])])[0] == 1.0


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
