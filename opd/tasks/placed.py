"""Rows that know where they are, so that whatever is said of one names its file and line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from opd.types import UserError

T = TypeVar("T")


class Placed(dict[str, Any]):
    """A row, and its place: `prompts.jsonl, line 3`."""

    __slots__ = ("where",)

    def __init__(self, where: str, cells: Mapping[str, Any]) -> None:
        """Hold the cells."""
        super().__init__(cells)
        self.where = where

    def read(self, how: Callable[[Placed], T]) -> T:
        """Read something of the row; what is said against that names the place."""
        try:
            return how(self)
        except UserError as error:
            raise UserError(f"{self.where}: {error}") from error
