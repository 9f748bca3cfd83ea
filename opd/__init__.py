"""On-policy distillation: the student writes, the teacher judges every token, the student learns.

`import opd` is light; what is used is imported at the first call. See `opd.api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opd.api import (
        Interrupted,
        Rows,
        Run,
        RunError,
        UserError,
        compose,
        evaluate,
        export,
        load_run,
        resume,
        sample,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "Interrupted", "Rows", "Run", "RunError", "UserError",
    "compose", "evaluate", "export", "load_run", "resume", "sample", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'opd' has no attribute {name!r}")
    from opd import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
