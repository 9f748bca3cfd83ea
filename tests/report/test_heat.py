"""Tokens as elements, and what the page's script is told of them."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from opd.report.heat import legend, script_json, token_elements, token_facts, visible
from opd.report.samples import Cell
from opd.run.transcripts import Token, Transcript


def elements(*tokens: Token) -> str:
    return token_elements(Cell(0, 1, (Transcript("a", "p", "", None, False, "student", tokens),), (1,), 1, 0), 0)


def test_each_token_is_an_element_with_the_colour_of_its_disagreement() -> None:
    html = elements(Token("a", -1.0, -4.0, True), Token("<b>&", -2.0, -1.4, True), Token("c", -1.0, -9.0, False))
    assert html == (
        "<span class=p4 id=r0-s1-c0-t0>a</span><span class=n2 id=r0-s1-c0-t1>&lt;b&gt;&amp;</span>"
        "<span class=o id=r0-s1-c0-t2>c</span>"
    )


def test_a_token_that_no_one_judged_has_no_colour() -> None:
    assert "class=u" in elements(Token("a", -1.0, math.nan, True))
    assert "class=u" in elements(Token("a", math.nan, -1.0, True))


def test_what_cannot_be_seen_has_a_mark() -> None:
    assert [visible(t) for t in ("\n", "a\tb", "", " ")] == ["↵\n", "a⇥\tb", "∅", " "]


def test_facts_are_numbers_or_nothing() -> None:
    token = Token("a", -1.23456, math.nan, True, (("b", -0.00001), ("c", -2.0)))
    assert token_facts(token) == ["a", -1.2346, None, 1, [["b", 0.0], ["c", -2.0]]]
    assert json.dumps(token_facts(token)[4][0][1]) == "0.0"  # and not -0.0


@given(st.text())
def test_json_in_a_script_element_ends_nowhere_else_and_reads_back(text: str) -> None:
    written = script_json({"a": [text, "</script><!--"]})
    assert "<" not in written
    assert json.loads(written) == {"a": [text, "</script><!--"]}


def test_the_legend_names_every_colour_with_numbers() -> None:
    assert [name for name, _ in legend()] == ["n5", "n4", "n3", "n2", "n1", "z", "p1", "p2", "p3", "p4", "p5"]
    assert (legend()[0][1], legend()[5][1], legend()[-2][1]) == ("−4 and beyond", "within 0.1", "+2 to 4")
