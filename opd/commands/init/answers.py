"""What a person answers, and what of it cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from opd.hints import among
from opd.types import UserError

NONE = "none"
"""In place of a teacher, where the method needs none."""
OTHERS = {"student": "OWNER/STUDENT", "teacher": "OWNER/TEACHER", "data": "", "conf": "own", "devices": "one",
          "out": "mine.yaml"}  # fmt: skip
"""What stands for an answer that is not known yet; of data that which the method has."""


@dataclass(frozen=True)
class Answers:
    """What a config is to be made of."""

    student: str
    teacher: str
    data: str
    conf: str
    devices: str
    out: str


def check(name: str, said: str) -> None:
    """UserError where one of the answers cannot be."""
    from opd.commands.config import check_new
    from opd.config import catalog
    from opd.config.part import names_part
    from opd.models.there import check_there
    from opd.tasks.readers import kind_of

    if not said.strip():
        raise UserError(f"--{name}: it is empty; give one")
    if name == "student" and said == NONE:
        raise UserError(f"--student {said}: a model that learns is needed; allowed is a folder, or OWNER/NAME of a hub")
    if name == "student" or (name == "teacher" and said != NONE):
        check_there(said)
    elif name == "conf" and said not in catalog.shipped():
        raise UserError(f"--conf {said}: no such config{among(said, catalog.shipped())}")
    elif name == "devices" and said not in catalog.options(name):
        raise UserError(f"--devices {said}: no such devices{among(said, catalog.options(name))}")
    elif name == "data" and not (said in catalog.options(name) or kind_of(said) or names_part(name, said)):
        raise UserError(f"--data {said}: no file of rows (.jsonl, .csv, ...){among(said, catalog.options(name))}")
    elif name == "data" and kind_of(said) and not Path(said).is_file():
        raise UserError(f"--data {said}: there is no such file")
    elif name == "out":
        check_new(Path(said))
