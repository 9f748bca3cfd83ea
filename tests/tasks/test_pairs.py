"""Answers are read as a whole or not at all: hundreds of right and wrong ones, and all the ways to write a number."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from opd.tasks.constraints import KINDS, kept
from opd.tasks.gsm8k import Gsm8k
from opd.tasks.math import Math, tidy
from opd.text.numbers import number, numbers, plain
from opd.types import Example
from tests.tasks.pairs import GSM8K, MATH, RULES

TASKS = {"gsm8k": (Gsm8k(path="x.jsonl"), GSM8K), "math": (Math(path="x.jsonl"), MATH)}
ANSWERS = [
    (name, gold, text, score)
    for name, (_, lines) in TASKS.items()
    for gold, right, wrong in lines
    for score, texts in ((1.0, right), (0.0, wrong))
    for text in texts
]
KEPT = [
    (kind, params, text, ok)
    for kind, params, right, wrong in RULES
    for ok, texts in ((True, right), (False, wrong))
    for text in texts
]


def test_there_are_three_hundred_pairs_and_every_rule_is_among_them() -> None:
    assert len(ANSWERS) + len(KEPT) >= 300
    assert {kind for kind, *_ in KEPT} == set(KINDS)


@pytest.mark.parametrize(("name", "gold", "text", "score"), ANSWERS)
def test_an_answer_gets_what_a_person_would_give_it(name: str, gold: str, text: str, score: float) -> None:
    task, _ = TASKS[name]
    assert task.verify(Example(id="0", messages=(), answer=gold), text) == score


@pytest.mark.parametrize(("kind", "params", "text", "ok"), KEPT)
def test_a_rule_is_kept_where_a_person_would_say_so(kind: str, params: dict, text: str, ok: bool) -> None:
    assert kept(kind, params, text) == ok


RATIONALS = st.builds(Fraction, st.integers(-(10**7), 10**7), st.integers(1, 400))
DECIMALS = st.builds(lambda n, k: Fraction(n, 10**k), st.integers(-(10**8), 10**8), st.integers(0, 6))


def written(value: Fraction) -> list[str]:
    """A number in every way that it can be written."""
    top, bottom, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    forms = [f"{sign}{top}/{bottom}", f"{sign}\\frac{{{top}}}{{{bottom}}}", f"{sign}\\dfrac{{{top}}}{{{bottom}}}"]
    whole, rest = divmod(top, bottom)
    if whole and rest:
        forms += [f"{sign}{whole} {rest}/{bottom}", f"{sign}{whole}\\frac{{{rest}}}{{{bottom}}}"]
    places = next((k for k in range(9) if 10**k % bottom == 0), None)
    if places is not None:
        digits = f"{top * 10**places // bottom:0{places + 1}d}"
        head, tail = (digits[:-places], "." + digits[-places:]) if places else (digits, "")
        grouped = f"{int(head):,}"
        forms += [
            sign + head + tail,
            sign + grouped + tail,
            f"{sign}${grouped}{tail}",
            f"$-{head}{tail}" if sign else head + tail,
        ]
        forms += [sign + grouped.replace(",", gap) + tail for gap in ("{,}", "\\,", "\u2009", "\u00a0")]
        forms += [f"{sign}{digits}e-{places}", f"{sign}{digits} \\times 10^{{-{places}}}"]
    return forms + [form.replace("-", "\u2212") for form in forms if form.startswith("-")]


@settings(max_examples=150, deadline=None)
@given(RATIONALS | DECIMALS)
def test_a_number_is_read_exactly_in_every_way_that_it_is_written(value: Fraction) -> None:
    task = Gsm8k(path="x.jsonl")
    gold = Example(id="0", messages=(), answer=str(value))
    for form in written(value):
        assert number(form) == value, form
        assert number(tidy(form).words) == value, form
        for text in (f"#### {form}", f"\\boxed{{{form}}}", f"So the answer is {form}.", f"it is {form}"):
            assert task.verify(gold, text) == 1.0, text


@settings(max_examples=150, deadline=None)
@given(RATIONALS | DECIMALS, RATIONALS | DECIMALS)
def test_another_number_is_never_right(value: Fraction, other: Fraction) -> None:
    assume(value != other)
    task, math = Gsm8k(path="x.jsonl"), Math(path="x.jsonl")
    for form in written(other):
        for text in (f"#### {form}", f"\\boxed{{{form}}}", f"The answer is {form}.", form):
            assert task.verify(Example(id="0", messages=(), answer=str(value)), text) == 0.0, text
        assert math.verify(Example(id="0", messages=(), answer=str(value)), f"\\boxed{{{form}}}") == 0.0


@given(st.text(alphabet="0123456789.,/-+$ \\{}frac×x^e%:½²", max_size=24))
def test_what_is_read_in_a_text_lies_in_order_and_is_read_alike_alone(text: str) -> None:
    text, end = plain(text), 0
    for found in numbers(text):
        assert end <= found.start < found.end <= len(text)
        if found.value is not None:
            assert number(text[found.start : found.end]) == found.value
        end = found.end
