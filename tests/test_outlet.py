"""Nobody reads, the disk is full, the terminal was closed: what a process prints is lost, and nothing else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

SAVES = """
import sys, time
from opd.console.outlet import mend
from opd.run.interrupt import StopSignal
mend()
with StopSignal() as stop:
    end = time.monotonic() + 60
    while not stop.requested and time.monotonic() < end:
        print("a line" * 1000, flush=True)
    print("another line")
    open(sys.argv[1], "w").write("saved")
sys.exit(128 + stop.signal)
"""
TALKS = """
import sys
from opd.console.outlet import mend
mend()
for _ in range(100):
    print("a line" * 1000, flush=True)
"""


def test_where_nobody_reads_any_more_the_state_is_saved(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", SAVES, str(tmp_path / "state")], stdout=theirs, stderr=subprocess.PIPE, text=True
    )
    os.close(theirs)
    os.read(ours, 10)
    os.close(ours)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (129, "")
    assert (tmp_path / "state").read_text() == "saved"


def test_on_a_full_disk_and_at_a_closed_terminal_it_is_saved_too(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SAVES, str(tmp_path / "a")], stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        129,
        "opd: what is printed cannot be written: No space left on device\n",
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SAVES, str(tmp_path / "b")], stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.read(ours, 10)
    os.close(ours)
    assert process.wait(60) == 129
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.parametrize(("out", "code", "says"), [("/dev/full", 1, "No space left"), ("gone", 141, "")])
def test_a_command_that_has_nothing_to_save_ends_without_a_traceback(out: str, code: int, says: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with open(out, "w") if out != "gone" else os.fdopen(theirs, "w") as place:
        done = subprocess.run(
            [sys.executable, "-c", TALKS], stdout=place, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.count("\n") <= 1


def test_a_file_never_takes_the_place_of_a_closed_stdout(tmp_path: Path) -> None:
    opens = (
        "import sys\nfrom opd.console.outlet import mend\nmend()\nfile = open(sys.argv[1], 'w')\n"
        "print('lost', flush=True)\nprint('lost', file=sys.stderr, flush=True)\nassert file.fileno() > 2"
    )
    arguments = f'"{sys.executable}" -c "$OPENS" "{tmp_path / "file"}" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", arguments], env=os.environ | {"OPENS": opens}, timeout=60, check=False)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""
