"""`opd sample` and `opd chat`, as they are typed."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from opd.commands.taken import taken
from opd.commands.work import at_work, console_for
from opd.config.arguments import Debug, Json, Parts, Settings, echo, split_settings
from opd.types import UserError

Compare = Annotated[
    bool, typer.Option("--compare", help="Student before and after and the teacher, coloured by its disagreement.")
]
ALONE = ("teacher=none", "objective=sft", "source=dataset", "name=chat", "steps=1", "sampling.max_tokens=512")
"""Settings of a model that is talked to without a config: prompts in its own chat template, and no teacher."""


def sample(
    settings: Settings = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to ask; may be given several times.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Completions per prompt.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Default: that of training.")] = None,
    compare: Compare = False,
    parts: Parts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Let a model write: the newest run's student, run=DIR (step=N), or model=PATH conf=NAME."""
    named, overrides = split_settings(settings or [], {"conf", "run", "step", "model"})
    named = taken(named, overrides)
    from opd.commands.finding import find_subject
    from opd.commands.heeded import say_unheeded

    subject = find_subject(named, overrides, parts or ())
    say_unheeded("sample", overrides)
    from opd.commands.chat.compared import plain
    from opd.commands.chat.sample import Request, compare_texts, sample_texts
    from opd.commands.chat.screen import side_by_side

    with at_work(subject.made, True, console_for(True, True, debug)) as console:
        request = Request(prompt or None, n, temperature, max_tokens)
        found = compare_texts(subject, console, request) if compare else []
        rows = [] if compare else sample_texts(subject, console, request)
    if as_json:
        told = [{"prompt": text, "answers": [plain(a) for a in row]} for text, row in found] or rows
        echo(json.dumps(told, indent=2, ensure_ascii=False))
    elif compare:
        side_by_side(found)
    for row in rows if not as_json else []:
        echo(f"> {row['prompt']}\n{row['completion']}\n")


def chat(
    settings: Settings = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Answer this alone; text on stdin does the same.")
    ] = None,
    compare: Compare = False,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Default: that of training.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of an answer; default: that of training.")] = None,
    parts: Parts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Talk to a model: the newest run's student, run=DIR (step=N), or model=PATH (conf=NAME)."""
    named, overrides = split_settings(settings or [], {"conf", "run", "step", "model"})
    typed = overrides
    if "model" in named and "conf" not in named:
        if compare:
            raise UserError(f"--compare: model={named['model']} has no teacher by itself; add conf=NAME, or name a run")
        student = f"student.model={json.dumps(named['model'], ensure_ascii=False)}"
        named, overrides = {**named, "conf": "base"}, [*ALONE, student, *overrides]
    named = taken(named, overrides)
    text = prompt if prompt is not None or sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
    if text is None and as_json:
        raise UserError("--json: what is to be answered must be given, by -p TEXT or on stdin")
    from opd.commands.finding import find_subject
    from opd.commands.heeded import say_unheeded

    subject = find_subject(named, overrides, parts or ())
    say_unheeded("chat", typed)
    from opd.commands.chat.screen import one_answer, talk
    from opd.commands.chat.voices import start_voices
    from opd.devices.threads import threads
    from opd.plan.remedy import advised

    with ExitStack() as stack:
        stack.enter_context(threads(subject.config.threads))
        stack.enter_context(advised(subject.config))
        with console_for(True, text is not None, debug) as console:
            voices = start_voices(
                subject, console, stack, compare=compare, temperature=temperature, max_tokens=max_tokens
            )
        if text is None:
            talk(voices)
        else:
            one_answer(voices, text, as_json)
