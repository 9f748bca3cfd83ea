"""Gives transformers' classes back: vLLM's backend for architectures that it does not have rewrites them in place."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Borrowed:
    """Classes that vLLM decorated while an engine was started, by what they were before."""

    before: dict[type, tuple[tuple[type, ...], dict[str, Any]]] = field(default_factory=dict)

    def give_back(self, engine: Any) -> None:
        """Restore each, and hand the decoration to a class of the engine's own, a child of it.

        The learner makes objects of the same classes in this process, and could not with vLLM's `__init__`.
        """
        children: dict[type, type] = {}
        for cls, (bases, members) in self.before.items():
            now, added = dict(vars(cls)), tuple(b for b in cls.__bases__ if b not in bases)
            new = {name: value for name, value in now.items() if name not in members or members[name] is not value}
            cls.__bases__ = bases
            for name in new:
                setattr(cls, name, members[name]) if name in members else delattr(cls, name)
            children[cls] = type(cls.__name__, (cls, *added), new | {"__module__": cls.__module__})
        if children:
            engine.collective_rpc(_adopt, args=(children,))


def _adopt(worker: Any, children: dict[type, type]) -> None:
    """Make the engine's modules objects of its own classes; runs in the worker, which is this process."""
    for module in worker.get_model().modules():
        if type(module) in children:
            module.__class__ = children[type(module)]


@contextmanager
def borrowed() -> Iterator[Borrowed]:
    """Note which classes vLLM decorates inside this that are not its own."""
    decorators: Any = importlib.import_module("vllm.compilation.decorators")
    found, decorate = Borrowed(), decorators._support_torch_compile

    def noting(cls: type, *args: Any, **kwargs: Any) -> Any:
        if not cls.__module__.startswith("vllm."):
            found.before.setdefault(cls, (cls.__bases__, dict(vars(cls))))
        return decorate(cls, *args, **kwargs)

    decorators._support_torch_compile = noting
    try:
        yield found
    finally:
        decorators._support_torch_compile = decorate
