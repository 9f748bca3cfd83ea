"""Where else metrics go. Each tracker is a frozen dataclass of settings, named by `_target_` in `conf/log/*.yaml`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from opd.extras import install
from opd.types import UserError


class Tracker(Protocol):
    """A started tracker."""

    where: str
    """Where to look: an address, a folder or a command."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the metrics of a step; the n-th optimizer step has number n."""
        ...

    def close(self) -> None:
        """Send what is left; calling it twice is fine."""
        ...


@runtime_checkable
class TrackerConfig(Protocol):
    """Settings of a tracker."""

    def start(self, run_name: str, config: Mapping[str, Any], folder: str | Path, done: int = 0) -> Tracker:
        """Open the run whose directory is `folder`; `done` > 0 goes on with the one that has that many steps."""
        ...


def need(module: str, extra: str) -> ModuleType:
    """Import a tracker's package.

    Raises:
        UserError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"tracker {extra} needs a package that is missing:  {install(extra)}") from error


class Trackers:
    """All trackers of a run behind one pair of methods; with none it does nothing."""

    def __init__(
        self,
        configs: Sequence[TrackerConfig],
        run_name: str,
        config: Mapping[str, Any],
        folder: str | Path,
        done: int = 0,
    ) -> None:
        """Start every tracker; those that have started are closed again where a later one cannot."""
        self._live: list[Tracker] = []
        try:
            for settings in configs:
                self._live.append(settings.start(run_name, config, folder, done))
        except BaseException:
            self.close()
            raise

    @property
    def where(self) -> list[str]:
        """Where to look, one line for each tracker."""
        return [tracker.where for tracker in self._live]

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the metrics of a step everywhere."""
        for tracker in self._live:
            tracker.log(metrics, step)

    def close(self) -> None:
        """Close every tracker, the last one first; calling it twice is fine."""
        while self._live:
            self._live.pop().close()
