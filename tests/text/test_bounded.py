"""A chat template is somebody's program: it ends in time, or is refused."""

from __future__ import annotations

import resource
import signal

import pytest

from opd.text import bounded
from opd.text.bounded import Runaway
from opd.text.script import Script
from tests.tiny import char_tokenizer

ASKED = [{"role": "user", "content": "1+1"}]


def written(template: str) -> str:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = template
    return Script(tokenizer).write(ASKED, ())


def test_a_template_that_loops_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.3)
    with pytest.raises(Runaway, match="takes longer than"):
        written("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")


@pytest.mark.parametrize(
    "template",
    ["{{ 'a' * 10000000000 }}", "{{ 'a'|center(9999999999) }}"],
)
def test_a_template_that_takes_all_memory_is_refused(template: str) -> None:
    with pytest.raises(Runaway, match="too much memory"):
        written(template)


def test_a_template_that_calls_itself_is_refused() -> None:
    with pytest.raises(Runaway, match="calls itself without an end"):
        written("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")


def test_a_template_that_writes_far_more_than_it_was_given_is_refused() -> None:
    with pytest.raises(Runaway, match="writes 2000000 characters"):
        written("{{ 'ab' * 1000000 }}")


def test_a_template_leaves_signals_and_limits_as_they_were() -> None:
    before = signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS)
    assert written("{{ messages[0].content }}") == "1+1"
    with pytest.raises(Runaway):
        written("{{ 'a' * 10000000000 }}")
    assert before == (signal.getsignal(signal.SIGVTALRM), resource.getrlimit(resource.RLIMIT_AS))
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
