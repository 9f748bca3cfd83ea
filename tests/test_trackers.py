"""Trackers record offline what they are given, go on after a resume, and say what to install where they cannot."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from opd.extras import install
from opd.trackers import TrackerConfig, Trackers
from opd.trackers.tensorboard import TensorBoard
from opd.trackers.trackio import Trackio
from opd.trackers.wandb import WandB
from opd.types import UserError
from tests.tiny import cli_code

CONFIG: dict[str, Any] = {"steps": 3, "optim": {"lr": 1e-4}}


class Notes:
    """A tracker that remembers."""

    def __init__(self, fail: bool = False) -> None:
        self.seen: list[Any] = []
        self.where = "here"
        self.fail = fail

    def start(self, run_name: str, config: Mapping[str, Any], folder: str | Path, done: int = 0) -> Notes:
        if self.fail:
            raise UserError("no")
        self.seen.append((run_name, done))
        return self

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.seen.append((step, dict(metrics)))

    def close(self) -> None:
        self.seen.append("closed")


def test_every_tracker_gets_every_step_and_is_closed_once(tmp_path: Path) -> None:
    a, b = Notes(), Notes()
    logs = Trackers([a, b], "run", CONFIG, tmp_path, done=2)
    logs.log({"kl/sampled": 0.5}, 3)
    assert logs.where == ["here", "here"]
    logs.close()
    logs.close()
    assert a.seen == b.seen == [("run", 2), (3, {"kl/sampled": 0.5}), "closed"]


def test_how_to_open_a_tracker_is_said_when_a_run_begins(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={run}", "log=tensorboard", "steps=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("training "))
    assert lines[at - 1] == f"tracker: tensorboard --logdir {run}/tensorboard"


def test_a_tracker_that_cannot_be_closed_is_told_of_and_keeps_no_other_one_open(tmp_path: Path) -> None:
    class Full(Notes):
        def close(self) -> None:
            raise OSError(28, "No space left on device")

    said: list[str] = []
    first, last = Notes(), Notes()
    logs = Trackers([first, Full(), last], "run", CONFIG, tmp_path, say=said.append)
    logs.close()
    assert [first.seen[-1], last.seen[-1]] == ["closed", "closed"]
    (told,) = said
    assert "it failed at its end, and may lack the last figures (OSError: [Errno 28] No space left on device)" in told


def test_a_tracker_that_fails_in_the_middle_is_left_and_told_of_once(tmp_path: Path) -> None:
    class Broken(Notes):
        def log(self, metrics: Mapping[str, float], step: int) -> None:
            super().log(metrics, step)
            raise ValueError("of\nits own")

    said: list[str] = []
    broken, other = Broken(), Notes()
    logs = Trackers([broken, other], "run", CONFIG, tmp_path, say=said.append)
    for step in (1, 2):
        logs.log({}, step)
    logs.close()
    assert broken.seen == [("run", 0), (1, {}), "closed"]
    assert other.seen == [("run", 0), (1, {}), (2, {}), "closed"]
    (told,) = said
    assert told.startswith(
        "tracker here: it failed at step 1, and gets no more figures of this run (ValueError: of its own)"
    )


def test_without_trackers_nothing_happens(tmp_path: Path) -> None:
    logs = Trackers([], "run", CONFIG, tmp_path)
    logs.log({"kl/sampled": 0.5}, 1)
    logs.close()
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_cannot_start_closes_those_that_have(tmp_path: Path) -> None:
    first = Notes()
    with pytest.raises(UserError):
        Trackers([first, Notes(fail=True)], "run", CONFIG, tmp_path)
    assert first.seen == [("run", 0), "closed"]


@pytest.mark.parametrize(
    ("tracker", "module", "extra"),
    [
        (TensorBoard(), "torch.utils.tensorboard", "tensorboard"),
        (WandB(), "wandb", "wandb"),
        (Trackio(), "trackio", "trackio"),
    ],
)
def test_a_missing_package_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tracker: TrackerConfig, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as error:
        tracker.start("run", CONFIG, tmp_path)
    assert install(extra) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_settings_import_no_tracker() -> None:
    code = (
        "import sys, opd.trackers.tensorboard, opd.trackers.trackio, opd.trackers.wandb\n"
        "assert not {'torch', 'wandb', 'trackio', 'tensorboard'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_every_point_and_a_resumed_run_no_point_twice(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = TensorBoard().start("run", CONFIG, tmp_path)
    for step in (1, 2, 3):
        log.log({"kl/sampled": step / 2, "optim/loss": math.nan}, step)
    assert len(read_events(tmp_path / "tensorboard")["kl/sampled"]) == 3  # before close: a killed run loses nothing
    log.close()
    again = TensorBoard().start("run", CONFIG, tmp_path, done=2)
    again.log({"kl/sampled": 9.0}, 3)
    again.close()
    again.close()
    assert read_events(tmp_path / "tensorboard")["kl/sampled"] == [(1, 0.5), (2, 1.0), (3, 9.0)]


PREAMBLE = "import sys\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n"


def python(code: str, folder: Path, **env: str) -> str:
    """Run a script in a process of its own: these libraries keep global state."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "TRACKIO"))}
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code, str(folder)],
        env=clean | {"HOME": str(folder), "HF_HUB_OFFLINE": "1", "WANDB_ERROR_REPORTING": "false"} | env,
        cwd=folder, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


WANDB_RUN = """
from opd.trackers.wandb import WandB
log = WandB(tags=("a",), SETTINGS).start("my run", {"steps": 3}, folder, done=DONE)
for step in STEPS:
    log.log({"kl/sampled": step / 2, "optim/loss": float("nan")}, step)
log.close(); log.close()
print(log.where)
"""


@pytest.mark.slow
def test_wandb_offline_stays_in_the_run_directory_and_keeps_its_id(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    first = WANDB_RUN.replace("SETTINGS", "mode='offline'").replace("DONE", "0").replace("STEPS", "(1, 2, 3)")
    out = python(first, tmp_path)
    name = (tmp_path / "wandb_id.txt").read_text().strip()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert run.name.endswith(name)
    assert out == f"wandb sync {run}\n"
    assert b"kl/sampled" in (run / f"run-{name}.wandb").read_bytes()
    # WANDB_MODE counts where the config says nothing.
    python(
        WANDB_RUN.replace("SETTINGS", "").replace("DONE", "3").replace("STEPS", "(4,)"), tmp_path, WANDB_MODE="offline"
    )
    assert {path.name.split("-")[-1] for path in (tmp_path / "wandb").glob("offline-run-*")} == {name}


@pytest.mark.slow
def test_wandb_without_an_account_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    out = python(
        "from opd.trackers.wandb import WandB\nfrom opd.types import UserError\n"
        "try: WandB(mode='online').start('x', {}, folder)\nexcept UserError as error: print(error)",
        tmp_path,
    )
    assert "wandb login" in out
    assert "mode: offline" in out
    assert len(out.splitlines()) == 1


@pytest.mark.slow
def test_a_variable_of_wandbs_that_cannot_be_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "of course")
    with pytest.raises(UserError, match=r"tracker wandb: .*WANDB_"):
        WandB().start("x", {}, tmp_path)


TRACKIO_RUN = """
import os, socket
def refuse(*a): os._exit(9)  # an exception could be swallowed
socket.socket.bind = socket.socket.connect = refuse
from opd.trackers.trackio import Trackio
log = Trackio(folder=str(folder / "db")).start("my run", {"steps": 3}, folder, done=DONE)
for step in STEPS:
    log.log({"kl/sampled": step / 2, "optim/loss": float("nan")}, step)
log.close(); log.close()
"""


@pytest.mark.slow
def test_trackio_keeps_a_local_database_opens_no_socket_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    assert python(TRACKIO_RUN.replace("DONE", "0").replace("STEPS", "(1, 2)"), tmp_path) == ""
    assert python(TRACKIO_RUN.replace("DONE", "2").replace("STEPS", "(3,)"), tmp_path) == ""
    with sqlite3.connect(tmp_path / "db" / "opd.db") as db:
        rows = db.execute("select run_name, step from metrics order by step").fetchall()
        runs = db.execute("select count(distinct run_id) from metrics").fetchone()
    assert rows == [("my run", 1), ("my run", 2), ("my run", 3)]
    assert runs == (1,)


@pytest.mark.slow
def test_trackio_refuses_a_folder_that_it_could_not_write(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    (tmp_path / "file").write_text("")
    out = python(
        "from opd.trackers.trackio import Trackio\nfrom opd.types import UserError\n"
        "try: Trackio(folder=str(folder / 'file' / 'db')).start('x', {}, folder)\nexcept UserError as e: print(e)",
        tmp_path,
    )
    assert f"tracker trackio: nothing can be written to {tmp_path}/file/db (Not a directory); name another" in out


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
def test_what_trackio_loses_later_is_told_of_once(tmp_path: Path, steps: int) -> None:
    pytest.importorskip("trackio")
    out = python(
        "import time, warnings\nwarnings.simplefilter('ignore')\n"
        "from opd.trackers import Trackers\nfrom opd.trackers.trackio import Trackio\n"
        "logs = Trackers([Trackio(folder=str(folder / 'db'))], 'run', {}, folder)\n"
        "for file in (folder / 'db').glob('opd.db*'): file.unlink()\n"
        "(folder / 'db' / 'opd.db').write_text('no database, for once')\n"
        f"for step in range({steps}): logs.log({{'loss': 0.5}}, step); time.sleep(1.5 if {steps} > 1 else 0)\n"
        "logs.close()",
        tmp_path,
    )
    (told,) = out.splitlines()
    assert told.startswith("tracker trackio show --project opd: it failed at ")
    assert "metrics.jsonl has them all" in told
