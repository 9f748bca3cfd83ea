"""A conversation at a terminal: what a person types, what is answered, and the few words that are commands."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from opd.types import Message, UserError

COMMANDS = {"/reset": "forget the conversation", "/quit": "leave (or Ctrl-D)", "/help": "this list"}
HELP = "   ".join(f"{name}  {what}" for name, what in COMMANDS.items())


def converse(
    ask: Callable[[], str | None], say: Callable[[str], None], answer: Callable[[Sequence[Message]], str],
) -> None:  # fmt: skip
    """Talk until there is nothing more to be asked.

    Args:
        ask: What the person types next; None where that is all.
        say: Tells the person something.
        answer: Answers a conversation, shows that, and gives what it goes on with. What raises UserError, or is stopped
            by Ctrl-C, has not been asked.
    """
    turns: list[Message] = []
    while (text := ask()) is not None:
        word = text.strip()
        if word == "/quit":
            return
        if word == "/reset":
            turns = []
            say("a new conversation")
        elif word.startswith("/") and " " not in word:
            say(HELP if word == "/help" else f"{word}: no such command; {HELP}")
        elif word:
            asked: list[Message] = [*turns, {"role": "user", "content": text}]
            try:
                turns = [*asked, {"role": "assistant", "content": answer(asked)}]
            except UserError as error:
                say(str(error))
            except KeyboardInterrupt:
                say("\nstopped, and forgotten")


def typed() -> str | None:
    """What is typed at the prompt, with the line editor where there is one; None at Ctrl-D and Ctrl-C."""
    try:
        return input("> ")
    except (EOFError, KeyboardInterrupt):
        print()
        return None


@contextmanager
def interruptible() -> Iterator[None]:
    """Every Ctrl-C is a KeyboardInterrupt: each ends an answer, and not the command."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
