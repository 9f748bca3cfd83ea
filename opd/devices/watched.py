"""A rank as whoever watches over it sees it, wherever it runs. Standard library only."""

from __future__ import annotations

from abc import ABC, abstractmethod

from opd.devices.report import Report


class Watched(ABC):
    """A process that was started, or that another machine was asked to start."""

    rank: int
    given_up: bool
    """Whether it was killed by its launcher."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether it is gone."""

    @property
    @abstractmethod
    def said(self) -> Report | None:
        """Its report, but for one that it has begun."""

    @abstractmethod
    def tell(self, order: str) -> None:
        """Send it an order, if it still listens."""

    @abstractmethod
    def kill(self) -> None:
        """End it, if it has not ended."""

    @abstractmethod
    def last_words(self) -> Report:
        """What it has said, or what there is to say of it."""

    @property
    def broken(self) -> bool:
        """Whether it has ended without having said why."""
        return self.ended and self.said is None

    @property
    def failed(self) -> bool:
        """Whether it has ended as something went wrong; the others may take their time to stop after a signal."""
        return self.ended and self.said is not None and self.said.kind not in ("done", "interrupted")

    @property
    def done(self) -> bool:
        """Whether it has said that it is."""
        return self.said is not None and self.said.kind == "done"
