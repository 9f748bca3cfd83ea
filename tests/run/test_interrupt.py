"""Signals: what a closed terminal does to a process that saves its state."""

from __future__ import annotations

import importlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path

import pytest

from opd.run.interrupt import AbortSignal, CtrlC, Interrupted, Launcher, StopSignal

SAVES = """
import sys, time
from opd.run.interrupt import StopSignal
with StopSignal() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    time.sleep(0.1)
    print("a line to a terminal that is gone", flush=True)
    open(sys.argv[1], "w").write("saved")
sys.exit(128 + stop.signal)
"""


def test_a_closed_terminal_lets_the_state_be_saved(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SAVES, str(tmp_path / "state")], stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while b"\n" not in said:  # all of the line: an end of it that finds no terminal would be an error before the signal
        said += os.read(ours, 100)
    os.close(ours)
    process.send_signal(signal.SIGHUP)  # the shell's
    assert process.wait(20) == 129
    assert (tmp_path / "state").read_text() == "saved"


def test_a_hangup_is_told_more_than_once_and_aborts_nothing() -> None:
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    assert stop.signal == signal.SIGHUP


def test_a_second_signal_aborts() -> None:
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.signal == signal.SIGTERM


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def caught(process: int) -> bool:
    """Whether a process has a handler for Ctrl-C."""
    (mask,) = [line.split()[1] for line in Path(f"/proc/{process}/status").read_text().splitlines() if "SigCgt" in line]
    return bool(int(mask, 16) >> (signal.SIGINT - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.6])
def test_ctrl_c_from_the_first_line_of_opd_on_ends_it_in_a_line_or_none(after: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "opd", "train", "conf=quickstart", "--dry-run"], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for python in (False, True):  # Python's own handler comes, and goes with the first line
        while caught(process.pid) == python:
            time.sleep(0.001)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130), err
    assert err.count("\n") <= 1, err


def meets(number: int) -> None:
    """Code that makes an error of its own of whatever comes: Python does, where a class is being made."""
    try:
        signal.raise_signal(number)
    except BaseException as error:
        raise ValueError("that cannot be imported") from error


def twice(number: int) -> None:
    """The first asks, the second aborts."""
    signal.raise_signal(number)
    meets(number)


@pytest.mark.parametrize("kind", [AbortSignal, CtrlC, StopSignal])
def test_a_signal_is_one_whatever_error_the_code_that_it_meets_makes_of_it(kind: type[StopSignal]) -> None:
    with pytest.raises((KeyboardInterrupt, Interrupted)), kind() as stop, stop.at_once(lambda: ""):
        meets(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), kind():
        (twice if kind is StopSignal else meets)(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_is_named_whatever_error_is_made_of_it(number: int) -> None:
    with pytest.raises(Interrupted, match="nothing was written") as ended, AbortSignal():
        meets(number)
    assert ended.value.signal == number


@pytest.mark.parametrize("kind", [AbortSignal, CtrlC, StopSignal])
def test_an_error_without_a_signal_stays_what_it_is(kind: type[StopSignal]) -> None:
    with pytest.raises(ValueError, match="mine"), kind() as stop, stop.at_once(lambda: ""):
        raise ValueError("mine")


def test_ctrl_c_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with CtrlC() as heard:
            signal.raise_signal(signal.SIGINT)
        assert not heard.requested
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("kind", [AbortSignal, StopSignal])
@pytest.mark.parametrize("step", ["create", "exec"])
def test_a_compiled_module_that_is_being_made_is_let_finish(
    kind: type[StopSignal], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton's, for one, ends the process where Python that it calls raises."""
    finished = []

    def made(module: object) -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        finished.append(module)

    monkeypatch.setattr(f"_imp.{step}_dynamic", made)
    loader = ExtensionFileLoader("compiled", "compiled.so")

    def load() -> None:
        getattr(loader, f"{step}_module")(ModuleSpec("compiled", loader))
        time.sleep(10)

    with pytest.raises((KeyboardInterrupt, Interrupted)), kind() as stop, stop.at_once(lambda: ""):
        load()
    assert len(finished) == 1


IMPORTED = """
import pathlib, signal, time
def work():
    signal.raise_signal(signal.SIGINT)
    time.sleep(0.2)
work()
pathlib.Path(__file__).with_name("finished").touch()
"""


@pytest.mark.parametrize("kind", [AbortSignal, CtrlC, StopSignal])
@pytest.mark.parametrize("compiled", [True, False])
def test_what_compiled_code_imports_is_let_finish_and_what_python_imports_is_not(
    kind: type[StopSignal], compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's, for one, ends the process where an import of its own raises."""
    monkeypatch.syspath_prepend(tmp_path)
    inner, outer = f"inner_{tmp_path.name}", f"outer_{tmp_path.name}"
    (tmp_path / f"{inner}.py").write_text(IMPORTED)
    by_c = f"import ctypes; ctypes.pythonapi.PyImport_ImportModule(b'{inner}')"
    (tmp_path / f"{outer}.py").write_text(by_c if compiled else f"import {inner}")

    def work() -> None:
        importlib.import_module(outer)
        time.sleep(10)

    with pytest.raises((KeyboardInterrupt, Interrupted)), kind() as stop, stop.at_once(lambda: ""):
        work()
    assert (tmp_path / "finished").exists() == compiled


@pytest.mark.parametrize("kind", [AbortSignal, CtrlC, StopSignal])
def test_a_call_in_the_body_of_a_module_is_let_finish_but_not_for_ever(
    kind: type[StopSignal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be torch's C, which ends the process."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("opd.run.interrupt.WAITS", 10)
    name = f"body_{tmp_path.name}"
    called = 'time.sleep(0.2); pathlib.Path(__file__).with_name("finished").touch(); time.sleep(20)'
    (tmp_path / f"{name}.py").write_text(f"import pathlib, signal, time; signal.raise_signal(signal.SIGINT); {called}")
    began = time.monotonic()
    with pytest.raises((KeyboardInterrupt, Interrupted)), kind() as stop, stop.at_once(lambda: ""):
        importlib.import_module(name)
    assert (tmp_path / "finished").exists()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_library_that_catches_every_exception_does_not_catch_a_signal(number: int) -> None:
    with pytest.raises(Interrupted, match="nothing was written") as ended, AbortSignal(), suppress(Exception):
        signal.raise_signal(number)
    assert ended.value.signal == number


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    """One that counts this process's signals."""
    made = Launcher()
    made.counts = True
    monkeypatch.setattr("opd.run.interrupt.LAUNCHER", made)
    return made


def test_where_a_launcher_counts_a_signal_that_comes_twice_is_one(launcher: Launcher) -> None:
    with StopSignal() as stop:
        launcher.stop(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        launcher.stop(signal.SIGINT)
    assert stop.signal == signal.SIGINT


def test_a_signal_that_came_before_training_began_holds_in_it(launcher: Launcher) -> None:
    with StopSignal():
        signal.raise_signal(signal.SIGTERM)
        with StopSignal() as inner:
            assert inner.signal == signal.SIGTERM


def test_the_launcher_aborts_from_another_thread(launcher: Launcher) -> None:
    with StopSignal():
        launcher.stop(signal.SIGTERM)
        threading.Timer(0.1, launcher.abort).start()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_where_there_is_nothing_to_save_the_first_signal_ends_it_and_a_later_one_is_a_request(number: int) -> None:
    with StopSignal() as stop:
        with pytest.raises(Interrupted, match="nothing yet") as ended, stop.at_once(lambda: "nothing yet"):
            signal.raise_signal(number)
        assert ended.value.signal == number
    with StopSignal() as stop:
        with stop.at_once(lambda: ""):
            pass
        signal.raise_signal(number)
        assert stop.requested


def test_what_came_before_ends_it_too_and_other_interrupts_are_not_taken_for_signals() -> None:
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted), stop.at_once(lambda: ""):
            raise AssertionError("it went on")
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop, stop.at_once(lambda: ""):
        raise KeyboardInterrupt


def test_a_launcher_ends_it_from_another_thread_by_the_signal_that_it_was_sent(launcher: Launcher) -> None:
    with StopSignal() as stop:
        threading.Timer(0.1, launcher.stop, [signal.SIGTERM]).start()
        with pytest.raises(Interrupted) as ended, stop.at_once(lambda: ""):
            time.sleep(10)
    assert ended.value.signal == signal.SIGTERM
