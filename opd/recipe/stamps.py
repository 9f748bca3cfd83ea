"""Stamps: as what each stage of a work folder was begun, and which have ended well.

`started/NAME.json` says what lies in NAME, or in NAME.json, and how it was made; `done/NAME.json` that it is whole.
Only what has such a stamp is ever removed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from opd.disk import whole, writing
from opd.plain import plain
from opd.types import UserError

STARTED, DONE = "started", "done"


@dataclass(frozen=True)
class Stamp:
    """What a stage said that it does, and how long that took; None until it has ended well."""

    says: str
    seconds: float | None = None

    @classmethod
    def read(cls, path: Path) -> Stamp | None:
        """The stamp in a file; None where there is no whole one."""
        try:
            raw = plain(path.read_text(encoding="utf-8"))
            return cls(str(raw["says"]), None if raw.get("seconds") is None else float(raw["seconds"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        with writing(path.parent):
            path.parent.mkdir(exist_ok=True)
        with whole(path) as part, part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(vars(self), indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class Stamps:
    """Those of one work folder."""

    folder: Path

    def done(self, stage: str, says: str) -> bool:
        """Whether a stage has ended well, and was this one.

        Raises:
            UserError: it was done with other settings.
        """
        path = self._path(DONE, stage)
        stamp = Stamp.read(path)
        if stamp is not None and stamp.says != says:
            raise UserError(
                f"{path}: this stage was done as `{stamp.says}`, and the recipe now says `{says}`; take another --work "
                "folder, or remove this file to do the stage again from its beginning, and those that come after it"
            )
        return stamp is not None

    def adopt(self) -> None:
        """Give those that were done before there were stamps of beginnings the one that they lack."""
        for path in (self.folder / DONE).glob("*.json"):
            started = self._path(STARTED, path.stem)
            if not started.exists():
                (Stamp.read(path) or Stamp("", 0.0)).write(started)

    def check(self, stage: str, says: str) -> None:
        """UserError where something is in a stage's place that it has not made, or has half done as another one."""
        place, started = self.folder / stage, self._path(STARTED, stage)
        if place.exists() and not started.exists():
            raise UserError(
                f"{place}: no stamp says that this stage was begun, so that it may hold anything; move it away, or "
                "take another --work folder"
            )
        begun = Stamp.read(started)
        if place.exists() and begun is not None and begun.seconds is None and begun.says != says:
            raise UserError(
                f"{place}: this stage is half done as `{begun.says}`, and the recipe now says `{says}`; take another "
                "--work folder, or remove this folder to begin the stage anew"
            )

    def begin(self, stage: str, says: str) -> None:
        """Leave what the same stage has left half done in its place; what it had done once, and is not any more, goes.

        Raises:
            UserError: something is in its place that it has not made, or has half done as another one.
        """
        self.check(stage, says)
        begun = Stamp(says)
        if Stamp.read(self._path(STARTED, stage)) != begun:
            # Removed before the stamp is new: a half-removed run must not pass for one of these settings.
            shutil.rmtree(self.folder / stage, ignore_errors=True)
            begun.write(self._path(STARTED, stage))

    def end(self, stage: str, says: str, seconds: float) -> None:
        """Write down that a stage has ended well; begun once more, it begins anew."""
        stamp = Stamp(says, round(seconds, 1))
        stamp.write(self._path(DONE, stage))
        stamp.write(self._path(STARTED, stage))

    def unreadable(self, stage: str) -> Iterator[str]:
        """What is to be said of a stage that begins anew for want of a stamp that can be read."""
        for path in (self._path(kind, stage) for kind in (STARTED, DONE)):
            if path.exists() and Stamp.read(path) is None:
                yield f"{path} is damaged: what is in {self.folder / stage} is removed, and the stage begins anew"

    def forget(self, stage: str) -> None:
        """Take a stage as not done."""
        self._path(DONE, stage).unlink(missing_ok=True)

    def outdate(self, stage: str) -> None:
        """Have a stage that was begun begin anew, be it half done or whole."""
        path = self._path(STARTED, stage)
        if (begun := Stamp.read(path)) is not None:
            replace(begun, seconds=begun.seconds or 0.0).write(path)

    def seconds(self, stage: str) -> float:
        """How long a stage that is done has taken, its last process only where it was interrupted."""
        stamp = Stamp.read(self._path(DONE, stage))
        return (stamp.seconds or 0.0) if stamp else 0.0

    def _path(self, kind: str, stage: str) -> Path:
        return self.folder / kind / f"{stage}.json"
