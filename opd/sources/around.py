"""What sources have in common that wrap another one: whose tokens they are is the other's to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from opd.hints import shown
from opd.sources.student import StudentSource
from opd.writing import Repeating, Source


@dataclass(frozen=True, kw_only=True)
class Around:
    """A source that has another one write."""

    source: Any = field(default_factory=StudentSource)
    """Who writes."""

    def __post_init__(self) -> None:
        """Refuse what is no source."""
        if not isinstance(self.source, Source):
            raise ValueError(f"source={shown(self.source)}: allowed is a mapping whose _target_ is a source")

    @property
    def policy(self) -> bool:
        """Whether all tokens are the student's own."""
        return bool(self.source.policy)

    @property
    def origins(self) -> frozenset[str]:
        """Those of who writes."""
        return frozenset(self.source.origins)

    @property
    def repeats(self) -> bool:
        """Whether who writes has one completion of each prompt alone."""
        return isinstance(self.source, Repeating) and self.source.repeats

    @property
    def used(self) -> dict[str, Source]:
        """What it is made of."""
        return {"source": self.source}

    @property
    def max_turns(self) -> int | None:
        """Turns of a conversation, where it holds some."""
        return getattr(self.source, "max_turns", None)
