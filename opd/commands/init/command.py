"""`opd init`: a commented config for models and data of one's own, from flags or from what is answered."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from opd.commands.init.answers import Answers, check
from opd.commands.init.draft import check_together, written
from opd.config.arguments import Debug, echo
from opd.types import UserError

Ask = Callable[[str, str | None], str]
"""Puts a question to a person, with what an empty answer means; None: it must be answered."""
QUESTIONS = {
    "conf": ("Method, own (on-policy distillation), gkd, minillm, sft or another of opd config ls", "own"),
    "student": ("Student, a folder or a hub's name", None),
    "teacher": ("Teacher, the same, or none where the method has none", None),
    "data": ("Data, a file of rows (.jsonl, .csv, .parquet), or a name of opd config ls data", None),
    "devices": ("Devices, one, ranks (several GPUs), apart (engines beside the learner) or ray", "one"),
    "out": ("File to write", "mine.yaml"),
}


def init(
    student: Annotated[str | None, typer.Option(help="The model that learns: a folder or a hub's name.")] = None,
    teacher: Annotated[str | None, typer.Option(help="The model that judges, or none.")] = None,
    data: Annotated[str | None, typer.Option(help="A file of rows, a task of your own, or one of conf/data.")] = None,
    devices: Annotated[str | None, typer.Option(help="one, ranks, apart or ray; default: one.")] = None,
    conf: Annotated[
        str | None, typer.Option("--conf", "--method", help="What to start from: own, gkd, sft, ...; default: own.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="File to write; default: mine.yaml.")] = None,
    debug: Debug = False,
) -> None:
    """Write a commented config for your models and data; what is not given is asked for."""
    given = {"student": student, "teacher": teacher, "data": data, "conf": conf, "devices": devices, "out": out}
    if sys.stdin.isatty() and sys.stdout.isatty():
        answers = asked(given, lambda question, default: str(typer.prompt(question, default)))
    else:
        answers = assumed(given)
    echo(written(answers))


def asked(given: dict[str, str | None], ask: Ask) -> Answers:
    """Ask for what is not given, and again for what cannot be, or does not go with what was answered before."""
    for name, value in given.items():  # before anything is asked
        if value is not None:
            check(name, value)
    check_together(given)
    answers = dict(given)
    for name, (question, default) in QUESTIONS.items():
        while answers[name] is None:
            said = ask(question, default).strip()
            try:
                check(name, said)
                check_together({**answers, name: said})
                answers[name] = said
            except UserError as error:
                echo(error)
    return assumed(answers)


def assumed(given: dict[str, str | None]) -> Answers:
    """The answers, with defaults; UserError where something is missing that nobody can be asked for."""
    values = {name: default if given[name] is None else given[name] for name, (_, default) in QUESTIONS.items()}
    if missing := [f"--{name}" for name, value in values.items() if value is None]:
        raise UserError(f"opd init: {', '.join(missing)} must be given; only at a terminal are they asked for")
    return Answers(**{name: value for name, value in values.items() if value is not None})
