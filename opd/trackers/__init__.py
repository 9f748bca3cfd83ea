"""Where else metrics go. Each tracker is a frozen dataclass of settings, named by `_target_` in `conf/log/*.yaml`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
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
        say: Callable[[str], None] = print,
    ) -> None:
        """Start every tracker; those that have started are closed again where a later one cannot.

        `say` is told of one that fails later.
        """
        self._say = say
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
        """Record the metrics of a step everywhere. One that fails is left: no training ends for want of its figures."""
        for tracker in list(self._live):
            try:
                tracker.log(metrics, step)
            except Exception as error:  # each library's own, or a bug of one's own part
                self._live.remove(tracker)
                with suppress(Exception):
                    tracker.close()
                self._left(tracker, f"failed at step {step}, and gets no more figures of this run", error)

    def close(self) -> None:
        """Close every tracker, the last one first, whatever becomes of one of them; calling it twice is fine."""
        with ExitStack() as stack:
            for tracker in self._live:
                stack.callback(self._close, tracker)
            self._live = []

    def _close(self, tracker: Tracker) -> None:
        try:
            tracker.close()
        except Exception as error:  # each library's own, or a bug of one's own part
            self._left(tracker, "failed at its end, and may lack the last figures", error)

    def _left(self, tracker: Tracker, what: str, error: Exception) -> None:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        self._say(f"tracker {tracker.where}: it {what} ({why}); metrics.jsonl has them all")
