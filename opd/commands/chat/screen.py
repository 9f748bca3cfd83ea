"""What `opd chat` shows: words as they come, and answers side by side."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opd.commands.chat.compared import plain as in_json
from opd.commands.chat.conversation import HELP, converse, interruptible, typed
from opd.commands.chat.voices import Told, Voices
from opd.config.arguments import echo
from opd.console import can_draw
from opd.console.beside import KEEP, LEGEND, Answer, drawn, plain
from opd.hints import printable
from opd.types import Message

if TYPE_CHECKING:
    from rich.console import Console

REFRESH = 0.1
"""Seconds from one picture of answers that grow to the next."""


def talk(voices: Voices) -> None:
    """Hold a conversation at the terminal."""
    where = "" if voices.remembers else "there is no chat template: each prompt is completed by itself\n"
    echo(f"{' | '.join(v.name for v in voices.voices)}\n{where}{HELP}")
    if len(voices.voices) > 1 and can_draw(sys.stdout):
        echo(LEGEND)

    def answer(messages: Sequence[Message]) -> str:
        return next(a.text for a in shown(voices, messages) if a.model == voices.main)

    with interruptible():
        converse(typed, echo, answer)


def one_answer(voices: Voices, text: str, as_json: bool) -> None:
    """Answer one prompt."""
    asked: Sequence[Message] = [{"role": "user", "content": text}]
    if as_json:
        found = {"prompt": text, "answers": [in_json(a) for a in voices.answer(asked)]}
        echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        shown(voices, asked)


def shown(voices: Voices, messages: Sequence[Message]) -> list[Answer]:
    """Have a conversation answered, and show that: as it comes where one answers, else beside each other."""
    if voices.teacher is None:
        found = voices.answer(messages, written)
        print(flush=True)
        return found
    screen = screen_of()
    if screen is None:
        found = voices.answer(messages)
        echo(plain(found))
        return found
    with growing(screen, [v.name for v in voices.voices]) as told:
        found = voices.answer(messages, told)
    screen.print(drawn(found, screen.width))
    return found


def screen_of() -> Console | None:
    """Where colours go; None where they would not be seen: a pipe, a file, `NO_COLOR`."""
    if not can_draw(sys.stdout):
        return None
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, emoji=False, markup=False)


def side_by_side(rows: Sequence[tuple[str, Sequence[Answer]]]) -> None:
    """Show what was answered to each of some prompts."""
    screen = screen_of()
    if screen is not None:
        echo(f"{LEGEND}\n")
    for prompt, found in rows:
        echo(f"> {prompt}")
        if screen is None:
            echo(f"{plain(found)}\n")
        else:
            screen.print(drawn(found, screen.width), "")


def written(name: str, text: str) -> None:
    """Show what comes next."""
    print(printable(text, keep=KEEP), end="", flush=True)


@contextmanager
def growing(screen: Console, names: Sequence[str]) -> Iterator[Told]:
    """Answers beside each other while they are written, without colours, which come when the teacher has read them."""
    from rich.live import Live

    texts = dict.fromkeys(names, "")
    last = 0.0
    with Live(console=screen, transient=True, auto_refresh=False, vertical_overflow="crop") as live:

        def told(name: str, text: str) -> None:
            nonlocal last
            texts[name] += text
            if time.monotonic() - last > REFRESH:
                last = time.monotonic()
                live.update(drawn([Answer(n, texts[n]) for n in names], screen.width), refresh=True)

        yield told
