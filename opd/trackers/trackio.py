"""trackio: a local database, read with `trackio show`. No server is started and no space is created."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from opd.trackers import need
from opd.types import UserError


@dataclass(frozen=True)
class Trackio:
    """Settings of the trackio tracker."""

    project: str = "opd"
    """The run's place there."""
    folder: str | None = None
    """Where the database lies; None is trackio's own place (`TRACKIO_DIR`, else the Hugging Face cache)."""
    space_id: str | None = None
    """A Hugging Face space to send to; None keeps everything here."""
    system: bool = False
    """Also record CPU and GPU load, every ten seconds."""

    def start(self, run_name: str, config: Mapping[str, Any], folder: str | Path, done: int = 0) -> TrackioLog:
        """Open the run, or go on with the one of that name where `done` > 0.

        Raises:
            UserError: trackio is not installed, was imported with its database elsewhere, or cannot write it.
        """
        if self.folder is not None:
            os.environ["TRACKIO_DIR"] = str(Path(self.folder).absolute())  # read once, on import
        trackio = need("trackio", "trackio")
        place = trackio.utils.TRACKIO_DIR
        if self.folder is not None and Path(place) != Path(self.folder).absolute():
            raise UserError(f"tracker trackio: folder is {self.folder}, but trackio already writes to {place}")
        if self.space_id is None:
            check_writable(place)
        with quiet():
            run = trackio.init(
                project=self.project, name=run_name, config=dict(config), resume="allow" if done else "never",
                space_id=self.space_id, embed=False, auto_log_cpu=self.system, auto_log_gpu=self.system,
            )  # fmt: skip
        return TrackioLog(run, trackio.finish, f"trackio show --project {self.project}")


class TrackioLog:
    """An open run."""

    def __init__(self, run: Any, finish: Callable[[], None], where: str) -> None:
        self._run, self._finish, self.where, self._problem = run, finish, where, ""
        run._warn_once = self._failed  # what its thread has lost it would tell Python's warnings alone

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the metrics of a step; a thread of trackio's writes them, and what it could not is raised next."""
        self._check()
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Write what is left; calling it twice is fine."""
        if self._run is not None:
            self._run = None
            with quiet():
                self._finish()  # of the module: the run's own would be called again at exit
            self._check()

    def _failed(self, kind: str, message: str) -> None:
        self._problem = self._problem or message

    def _check(self) -> None:
        if self._problem:
            raise OSError(self._problem)


def check_writable(place: Path) -> None:
    """UserError where nothing can be written to the folder of the database."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(
            f"tracker trackio: nothing can be written to {place} ({error.strerror}); name another folder in its "
            "config, or set TRACKIO_DIR"
        ) from error


def quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """Keep trackio's greetings off the screen."""
    return contextlib.redirect_stdout(io.StringIO())
