"""An Ollama `Modelfile` beside a GGUF file: how to write prompts as in training, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opd.text.script import MARK, Script
from opd.types import Message, UserError

OTHER, THIRD, SYSTEM = "\ue001", "\ue002", "\ue003"
"""Beside `MARK`: texts of other turns, which no template writes."""
CONTEXT = 4096
"""Tokens that Ollama keeps room for at least, where the model can read so many."""


@dataclass(frozen=True)
class Pieces:
    """What a chat template writes around turns; the same around each of a role."""

    unasked: str
    """Before the first turn, where no system turn is given: some write one of their own."""
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    generate: str
    """After the last turn, ready for the model's."""

    def write(self, messages: Sequence[Message]) -> str:
        """A conversation up to the model's turn."""
        given = any(turn["role"] == "system" for turn in messages)
        around = {"system": self.system, "user": self.user, "assistant": self.assistant}
        turns = (turn["content"].join(around[turn["role"]]) for turn in messages)
        return ("" if given else self.unasked) + "".join(turns) + self.generate

    def without(self, begin: str) -> Pieces:
        """The same without a BOS that programs put before all texts anyway."""
        before, after = self.system
        return Pieces(
            self.unasked.removeprefix(begin), (before.removeprefix(begin), after), self.user, self.assistant,
            self.generate,
        )  # fmt: skip

    @property
    def template(self) -> str:
        """The same as an Ollama template, which is one of Go's: in one line, where nothing trims what is written."""
        turns = "".join(
            f'{{{{ {"else if" if i else "if"} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}'
            for i, (role, (before, after)) in enumerate(
                {"system": self.system, "user": self.user, "assistant": self.assistant}.items()
            )
        )
        own = f"{{{{ if not .System }}}}{self.unasked}{{{{ end }}}}" if self.unasked else ""
        return f"{own}{{{{ range .Messages }}}}{turns}{{{{ end }}}}{{{{ end }}}}{self.generate}"


def pieces(script: Script) -> Pieces | None:
    """Take a chat template apart; None where it is no such thing: it was put together again and gave another text."""
    user, said, then = ({"role": r, "content": c} for r, c in (("user", MARK), ("assistant", OTHER), ("user", THIRD)))
    system = {"role": "system", "content": SYSTEM}
    try:
        asked, closed = script.write([user], (), generate=True), script.write([user], ())
        replied, more = script.write([user, said], ()), script.write([user, said, then], ())
        first, user_end = closed.split(MARK)
        between, said_end = replied.split(MARK)[1].split(OTHER)
        user_begin = more.removeprefix(replied).split(THIRD)[0]
        told, system_end = script.write([system, user], ()).split(MARK)[0].split(SYSTEM)
        found = Pieces(
            first.removesuffix(user_begin), (told, system_end.removesuffix(user_begin)), (user_begin, user_end),
            (between.removeprefix(user_end), said_end), asked.removeprefix(closed),
        )  # fmt: skip
        for turns in ([user], [system, user], [user, said, then], [system, user, said, then]):
            if found.write(turns) != script.write(turns, (), generate=True):
                return None
    except (UserError, ValueError):  # it takes no such turns, or writes them twice, or not at all
        return None
    written = f"{found.unasked}{found.system}{found.user}{found.assistant}{found.generate}"
    return None if any(sign in written for sign in ('"""', "{{", "}}")) else found  # these are Ollama's own


def modelfile(
    script: Script, file: str, *, begins: bool, stop: Sequence[int], temperature: float, context: int, longest: int,
    system: str | None,
) -> str:  # fmt: skip
    """Write it.

    Args:
        script: How prompts were written in training.
        file: Name of the GGUF file beside it.
        begins: Whether programs begin texts with a BOS.
        stop: Ids that end a completion.
        temperature: What it was trained at.
        context: Tokens that the model can read.
        longest: Those that it read in training.
        system: What began every conversation in training.
    """
    lines = [f"FROM ./{file}", *_template(script, begins)]
    if system and '"""' not in system:
        lines.append(f'SYSTEM """{system}"""')
    words = [script.tokenizer.decode([i]) for i in stop]
    lines += [f'PARAMETER stop "{word}"' for word in words if word.strip() and not {*word} & {'"', "\n"}]
    lines += [
        "# as in training: from the whole distribution, where Ollama would cut it",
        f"PARAMETER temperature {temperature:g}",
        "PARAMETER top_k 0",
        "PARAMETER top_p 1",
        "PARAMETER min_p 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_ctx {min(context, max(longest, CONTEXT))}",
    ]
    return "\n".join(lines) + "\n"


def _template(script: Script, begins: bool) -> list[str]:
    if not script.chat:
        return ["# prompts were plain text in training", 'TEMPLATE """{{ .Prompt }}"""']
    found = pieces(script)
    if found is None:
        return [
            "# no TEMPLATE: the chat template does more than to write something around each turn; Ollama reads its",
            "# own form of it from the file where it knows it, or take /v1/completions with prompts of your own",
        ]
    if begins:
        found = found.without(script.tokenizer.bos_token)
    return [f'TEMPLATE """{found.template}"""']
