"""The models and teachers that a config names, and whether they can be read here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd.config.settings import Config
from opd.models.cache import Unmade, looking
from opd.models.gguf import PackagedGguf
from opd.models.pruned import Pruned
from opd.models.there import check_there
from opd.models.tiny import Tiny
from opd.protocols import ModelSource
from opd.sources.parts import parts_of
from opd.teaching import Composed, Teacher
from opd.types import Pretrained, UserError

MADE = (Tiny, Pruned, PackagedGguf)
"""Kinds of models that can be asked for their folder without their being made."""
FILES = ("config.json", "tokenizer_config.json")
"""What a hub's cache has of a model that can be looked at."""


@dataclass(frozen=True)
class Named:
    """A model, by the setting that names it."""

    setting: str
    model: str | ModelSource
    trust_remote_code: bool = False

    @property
    def name(self) -> str:
        """The model's, or its kind where it is made."""
        return self.model if isinstance(self.model, str) else type(self.model).__name__

    def __str__(self) -> str:
        return f"{self.setting}={self.name}"

    def find(self, reach: bool, made: bool) -> Pretrained | str:
        """The model where it can be read; else why not, for people.

        Args:
            reach: Whether a hub may be asked.
            made: Whether all models are made that have to be.

        Raises:
            UserError: it can never be read: there is no such folder.
        """
        if isinstance(self.model, str):
            path = self.model
        elif made:
            path = self.model.path()
        elif not isinstance(self.model, MADE):
            return "it is made on first use"
        else:
            try:
                with looking():
                    path = self.model.path()
            except Unmade:
                return "it is made on first use"
            except UserError as error:
                if reach:
                    raise
                return str(error)
        check_there(path)
        if Path(path).is_dir() or reach or cached(path):
            return Pretrained(path, self.trust_remote_code)
        return "it is not on this machine, and no hub was asked"


def models_of(cfg: Config) -> Iterator[Named]:
    """The student, whatever teachers load, and models that write in the teacher's place."""
    yield Named("student.model", cfg.student.model, cfg.student.trust_remote_code)
    for setting, teacher in teachers_of(cfg):
        model = getattr(teacher, "model", None)
        if model is not None and not hasattr(teacher, "url"):
            yield Named(f"{setting}.model", model, getattr(teacher, "trust_remote_code", False))
    for part in parts_of(cfg.source):
        if (model := getattr(part, "model", None)) is not None:
            yield Named("source.model", model, cfg.student.trust_remote_code)


def teachers_of(cfg: Config) -> Iterator[tuple[str, Teacher]]:
    """Teacher and reference, with each of those that they are made of in their place, by their settings."""
    for name, teacher in {"teacher": cfg.teacher, "reference": cfg.reference}.items():
        if teacher is not None:
            yield from _inner(name, teacher)


def _inner(name: str, teacher: Any) -> Iterator[tuple[str, Teacher]]:
    if isinstance(teacher, Composed):
        for inner, one in teacher.inner.items():
            yield from _inner(f"{name}.{inner}", one)
    else:
        yield name, teacher


def cached(name: str) -> bool:
    """Whether a hub's cache has what is looked at of a model."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return all(isinstance(try_to_load_from_cache(name, file), str) for file in FILES)
    except ValueError:  # no hub's name
        return False
