"""Keeps what libraries import at once, and what only others of their users need, out of the start of `opd`'s processes.

Standard library only. For processes that are `opd`'s own: somebody else's may use what is left out.
"""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

UNSEEN = {
    "transformers.generation.candidate_generator": "sklearn",  # for drafts of another model
    "transformers.loss.loss_utils": "scipy",  # for objects in images
    "peft": "bitsandbytes",  # for students whose weights are packed, which are refused
}
"""Whoever imports it, and what. Where extras have brought them they take a third of the seconds until a run begins."""

REMEMBERED = {"peft": ("peft.import_utils", "is_bnb_available")}
"""Whoever asks later on whether the other is there, and keeps the first answer: module and function that are asked."""

LARGE = (
    "torch", "transformers", "transformers.models.auto.auto_factory", "transformers.modeling_utils", "datasets",
    "vllm.entrypoints.llm",
)  # fmt: skip
"""Whoever makes so many objects while it is imported, all of which stay, that Python's search for garbage among them
takes a fifth of that time."""


class Unseen(MetaPathFinder):
    """Has each of them believe, while it is imported, that the other is not installed; large ones are not searched."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own, with another loader; None for all others."""
        if fullname not in UNSEEN and fullname not in LARGE:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = Meanwhile(spec.loader)
        return spec


class Meanwhile(Loader):
    """Loads a module while another one cannot be imported, or while nobody searches for garbage."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Import it, and give it its own loader back."""
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        unseen = UNSEEN.get(module.__name__)
        with uncollected() if unseen is None else hidden(unseen):
            self._loader.exec_module(module)
            if module.__name__ in REMEMBERED:
                where, asked = REMEMBERED[module.__name__]
                getattr(sys.modules[where], asked)()


@contextmanager
def uncollected() -> Iterator[None]:
    """Have Python not search for garbage, where it would."""
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searched:
            gc.enable()


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Have Python say that a package is not installed, where nobody has imported it yet."""
    if name in sys.modules:
        yield
        return
    nothing: Any = None
    sys.modules[name] = nothing
    forget(name)
    try:
        yield
    finally:
        del sys.modules[name]
        forget(name)


def forget(name: str) -> None:
    """Have transformers, which remembers what is installed, look again."""
    asked = getattr(sys.modules.get("transformers.utils"), f"is_{name}_available", None)
    if asked is not None:
        asked.cache_clear()


def leave_out() -> None:
    """Begin with it; what is imported already stays."""
    if not any(isinstance(finder, Unseen) for finder in sys.meta_path):
        sys.meta_path.insert(0, Unseen())
