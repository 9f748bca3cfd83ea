"""Make the models that come with the package again, from scratch: `python -m opd.commands.ship`, or `make models`.

They ship because they cannot be made the same everywhere: another processor, or another version of torch, rounds sums
in another way, and after some hundred steps of training it is another model (students that began at 34.8% and at 51.0%
had the same settings). So the figures in the README and in recipes are those of the shipped models, whatever they are
used on; after this command, they have to be measured again. On one machine it gives the same files every time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from opd.config.compose import load
from opd.models import shelf
from opd.models.tiny import Tiny
from opd.run import startup

CONFIGS = ("quickstart", "gold")
"""Configs whose students and teachers ship; a model that several of them have is made once, for the first."""


def models() -> dict[str, Tiny]:
    """The models that ship, each by a word for people."""
    found: dict[str, Tiny] = {}
    for name in CONFIGS:
        config = load(name).config
        for role, model in (("student", config.student.model), ("teacher", getattr(config.teacher, "model", None))):
            if isinstance(model, Tiny) and model not in found.values():
                found[f"{name}-{role}"] = model
    return found


def remake(place: Path, sources: Mapping[str, Tiny]) -> None:
    """Fill the shelf anew; it stays as it was where that fails."""
    with _cleared(place), tempfile.TemporaryDirectory() as draft:
        os.environ["OPD_CACHE"] = draft  # an empty one: nothing is taken from the user's
        for label, model in sources.items():
            made = Path(model.path())
            shutil.copytree(
                made, place / f"{label}-{made.name}", copy_function=shutil.copyfile
            )  # no modes of the cache
        shelf.write_sums(place)


@contextmanager
def _cleared(place: Path) -> Iterator[None]:
    """Take everything off the shelf, so that nothing is found there, and put it back where the work fails."""
    aside = place.with_name(f"{place.name}.old")
    place.mkdir(exist_ok=True)
    place.rename(aside)
    place.mkdir()
    try:
        yield
    except BaseException:
        shutil.rmtree(place)
        aside.rename(place)
        raise
    shutil.rmtree(aside)


if __name__ == "__main__":
    startup.prepare()
    remake(shelf.SHELF, models())
    print((shelf.SHELF / shelf.SUMS).read_text(encoding="utf-8"), end="")
