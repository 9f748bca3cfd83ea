"""Ranks that need no torch: each does what the order's list says for it. And a launcher of such ranks.

`python -m tests.devices.fake_rank launch FOLDER TIMEOUT WORK...` starts one for each WORK; in FOLDER they mark that
they are at it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from opd.devices.launch import launch
from opd.devices.report import Report
from opd.devices.team import LostRank
from opd.rank import main
from opd.run.interrupt import Interrupted, StopSignal
from opd.types import RunError, UserError


def work(file: Path, begun: Callable[[str], None]) -> None:
    order = json.loads(file.read_text())
    rank = int(os.environ["RANK"])
    verb, _, detail = order["works"][rank].partition(":")
    begun("runs/fake")
    note = Path(order["folder"]) / f"ready-{rank}"
    note.with_suffix(".part").write_text(json.dumps(dict(os.environ) | {"pid": os.getpid(), "place": str(file.parent)}))
    note.with_suffix(".part").rename(note)
    do(verb, detail)


def do(verb: str, detail: str) -> None:
    match verb:
        case "mistake":
            raise UserError(detail)
        case "failure":
            raise RunError(detail)
        case "bug":
            raise KeyError(detail)
        case "lost":
            time.sleep(0.3)
            raise LostRank("rank 0 of 2 lost another rank: Connection closed by peer")
        case "steps":  # until a signal comes
            with StopSignal() as stop:
                while not stop.requested:
                    time.sleep(0.01)
                time.sleep(0.3)  # a second signal would abort here
                raise Interrupted(stop.signal, "stopped after step 3, state saved")
        case "hang":
            time.sleep(1000)
        case "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
            time.sleep(1000)
        case "kill":
            os.kill(os.getpid(), getattr(signal, detail))
        case "exit":
            print("what it printed last", flush=True)
            os._exit(int(detail))
        case "draw":  # as a panel does, then as said
            settings = termios.tcgetattr(1)
            settings[3] &= ~termios.ECHO
            termios.tcsetattr(1, termios.TCSANOW, settings)
            os.write(1, b"\x1b[?25l")
            time.sleep(0.5)
            do(detail, "SIGKILL")
        case "engine":  # a process of its own, which nobody ends, then as said
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            do(detail, "SIGKILL")


@dataclass(frozen=True)
class Fake:
    """A job for fake ranks, told to stdout how it ended."""

    folder: str
    works: Sequence[str]
    command = (sys.executable, "-m", "tests.devices.fake_rank")

    @property
    def text(self) -> str:
        return json.dumps({"folder": self.folder, "works": self.works})

    def here(self) -> None:
        raise AssertionError("it was to be done elsewhere")

    def listening(self) -> AbstractContextManager[StopSignal]:
        return StopSignal()

    def ended(self, report: Report) -> None:
        assert "torch" not in sys.modules
        assert not Path(json.loads((Path(self.folder) / "ready-0").read_text())["place"]).exists()
        print(json.dumps(vars(report)))


if __name__ == "__main__":
    if sys.argv[1] == "launch":
        _, _, folder, timeout, *works = sys.argv
        launch(Fake(folder, works), len(works), float(timeout), grace=1.0)
    else:
        main(work)
