"""Items that are made when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from opd.types import Example


class Lazy(Sequence[Example]):
    """A sequence of examples of which only `item` and the length have to be said."""

    @abstractmethod
    def item(self, index: int) -> Example:
        """Make the item at a place, counted from 0."""

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        places = range(len(self))[index]
        return self.item(places) if isinstance(places, int) else [self.item(i) for i in places]
