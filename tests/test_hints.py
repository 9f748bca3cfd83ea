"""What is printed says nothing but itself, whoever wrote it."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd.console import PlainConsole
from opd.hints import LINE, line, printable
from opd.run.startup import Printable
from tests.faults.lies import ESCAPES


@given(st.text())
def test_any_text_can_be_printed_and_read_back_from_json(text: str) -> None:
    shown = printable(text, keep="\u200c\u200d")
    assert "\x1b" not in shown
    shown.encode()
    quoted = json.dumps(text, ensure_ascii=False)
    assert json.loads(printable(quoted)) == text


@given(st.text(max_size=5000))
def test_an_error_is_one_line_of_bounded_length(text: str) -> None:
    shown = line(text)
    assert len(shown) <= LINE
    assert shown.splitlines() == ([shown] if shown else [])


@pytest.mark.parametrize("text", ["naïve 漢字 Привет 🙂 👨\u200d👩\u200d👧 می\u200cخواهم", "a | b\\c", "", "\u00a0"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_lines_and_warnings_of_a_console_do_not_drive_the_terminal() -> None:
    out, err = io.StringIO(), io.StringIO()
    console = PlainConsole(out, err)
    console.say(ESCAPES)
    console.warn(ESCAPES)
    console.finish(ESCAPES)
    console.table({ESCAPES: {"eval/accuracy": 0.5}}, title=ESCAPES, temperature=1.0, max_tokens=8)
    for text in (out.getvalue(), err.getvalue()):
        assert not set(text) & set("\x1b\x07\x9b\u202e\u2066\r")
    assert err.getvalue().count("\n") == 1


def test_warnings_of_libraries_do_not_drive_the_terminal() -> None:
    record = logging.LogRecord("any", logging.WARNING, "", 1, "%s", (ESCAPES,), None)
    assert "\x1b" not in Printable().format(record)
    assert isinstance(logging.lastResort and logging.lastResort.formatter, Printable)
