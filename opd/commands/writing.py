"""`opd sample` and `opd chat`, as they are typed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from opd.commands.taken import taken
from opd.commands.work import at_work, console_for
from opd.config.arguments import Debug, Json, Parts, Settings, echo, split_settings


def sample(
    settings: Settings = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to ask; may be given several times.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Completions per prompt.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Default: that of training.")] = None,
    parts: Parts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Let a model write: the newest run's student, run=DIR (step=N), or model=PATH conf=NAME."""
    named, overrides = split_settings(settings or [], {"conf", "run", "step", "model"})
    named = taken(named, overrides)
    from opd.commands.sampling import sample_texts
    from opd.commands.subject import find_subject

    subject = find_subject(named, overrides, parts or ())
    with at_work(subject.config, True, console_for(True, True, debug)) as console:
        rows = sample_texts(subject, console, prompt or None, n, temperature, max_tokens)
    for row in rows if not as_json else []:
        echo(f"> {row['prompt']}\n{row['completion']}\n")
    if as_json:
        echo(json.dumps(rows, indent=2, ensure_ascii=False))
