"""`opd eval` in several processes, as people meet it: one table, rows in JSON, one line of what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import opd
from opd.commands.asked import asked, lone
from opd.commands.eval.job import Evaluating
from opd.commands.finding import find_subject
from opd.commands.jobs import Order, read
from opd.commands.subject import heard, subject_of, told
from opd.config.compose import load
from opd.devices.one import One
from opd.devices.ranks import Ranks
from opd.devices.report import Report
from opd.devices.threads import cores
from opd.rollout.apart.settings import Apart
from opd.run.directory import RunFolder
from opd.run.interrupt import AbortSignal, Interrupted
from opd.types import RunError, UserError
from tests.faults.run import ROOT, until
from tests.faults.run import opd as started
from tests.tiny import cli_code, save_config

RANKS = ("devices=ranks", "devices.ranks=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, student_dir: Path, teacher_dir: Path) -> Path:
    """Two steps of one process."""
    folder = tmp_path_factory.mktemp("evaluated")
    config = save_config(folder / "tiny.yaml", student_dir, teacher_dir)
    assert cli_code(["train", f"conf={config}", f"run={folder / 'run'}", "-q", "steps=2", "eval.every=0"]) == 0
    return folder / "run"


def test_an_order_arrives_as_it_was_given(run: Path) -> None:
    order = Order({"run": str(run), "step": "2"}, RANKS, aside=True)
    kind, said = read(Evaluating(order).text)
    again = Evaluating(Order(**said))
    assert (kind, again.devices, again.asked) == ("eval", Ranks(2), Evaluating(order).asked)
    assert vars(again.order) == vars(order) | {"overrides": list(RANKS), "path": list(order.path), "parts": []}


@pytest.mark.parametrize("named", [{}, {"model": "{model}", "conf": "{conf}"}], ids=["a run", "a model"])
def test_a_subject_is_the_same_where_it_is_heard(
    named: dict[str, str], run: Path, student_dir: Path, config: Path
) -> None:
    given = {name: text.format(model=student_dir, conf=config) for name, text in named.items()} or {"run": str(run)}
    subject = subject_of(asked(given, RANKS))
    again = heard(told(subject))
    assert again == subject
    assert (again.base, again.label) == (subject.base, subject.label)


def test_each_process_gets_its_share_of_the_cores_wherever_the_run_was_trained(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load(str(run / "config.yaml"), ["threads=64", *RANKS])
    moved = RunFolder(tmp_path / "run")
    moved.create(made.yaml, ())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    named = {"run": str(moved.path)}
    assert asked(named, ()).settled().config.threads == cores(), "as the run says, and no more than there are"
    assert asked(named, ["devices.ranks=2"]).settled().config.threads == cores(), "the same as before"
    assert asked(named, ["devices=one"]).settled().config.threads == 1
    assert asked(named, ["devices=one", "threads=64"]).settled().config.threads == cores()
    alone = asked(named, ()).settled(alone=True).config
    assert (alone.threads, alone.devices) == (1, One())


def test_what_is_done_in_one_process_is_so_whatever_the_run_computed_on(run: Path) -> None:
    assert find_subject({"run": str(run)}, RANKS).config.devices == One()
    spread = load("quickstart", ["devices=apart", "devices.ranks=2", "devices.engines=3", "devices.tensor_parallel=4"])
    assert lone(spread.config.devices) == Apart(tensor_parallel=4), "its model may fit on no single one"


def test_what_only_waits_for_ranks_imports_no_torch(run: Path) -> None:
    asks = (
        "import sys; from opd.commands.eval.job import Evaluating; from opd.commands.jobs import Order\n"
        "job = Evaluating(Order({'run': sys.argv[1]}, ('devices=ranks', 'devices.ranks=2')))\n"
        "assert job.devices.ranks == 2 and job.text\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", asks, str(run)], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert out.stdout == "[]\n"


@pytest.mark.parametrize(
    ("report", "error", "says"),
    [
        (Report("mistake", "step=7"), UserError, "step=7"),
        (Report("failure", "not finite"), RunError, "not finite"),
        (Report("died", "rank 1 of 2 was killed"), RunError, "rank 1 of 2 was killed; evaluate again"),
    ],
)
def test_what_ranks_report_is_raised(report: Report, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        Evaluating(Order({})).ended(report)


def test_a_console_of_the_callers_is_refused_where_ranks_cannot_use_it(run: Path) -> None:
    from opd.console.silent import SilentConsole

    with pytest.raises(UserError, match="console: "):
        opd.evaluate(run, *RANKS, console=SilentConsole())


def signalled(number: int) -> None:
    """Work that gets a signal, and another one while it ends."""
    with AbortSignal():
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), number)
            time.sleep(0.01)


def test_the_first_signal_ends_it_and_later_ones_change_nothing() -> None:
    with pytest.raises(Interrupted) as stopped:
        signalled(signal.SIGTERM)
    assert stopped.value.signal == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        signalled(signal.SIGINT)


def figures(rows: dict[str, dict[str, float]]) -> dict[str, Any]:
    """All but how long it took."""
    return {
        name: pytest.approx({k: v for k, v in row.items() if k != "eval/seconds"}, rel=1e-4, abs=1e-5, nan_ok=True)
        for name, row in rows.items()
    }


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`opd`, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "opd", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_ranks_give_one_table_and_the_rows_of_one_process(run: Path) -> None:
    want = opd.evaluate(run, "threads=1", "devices=one", quiet=True)
    written = {p.name: p.read_text() for p in (run / "eval").glob("final_*.jsonl")}
    done = cli("eval", f"run={run}", *RANKS, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert list(rows) == list(want)
    assert {name: {k: v for k, v in row.items() if k != "eval/seconds"} for name, row in rows.items()} == figures(want)
    assert done.stderr.count("8 held-out prompts, 1 sample each") == 1
    kept = {row["name"]: row["eval/kl"] for row in opd.load_run(run).evaluations if row["file"].startswith("final")}
    assert kept == {name: row["eval/kl"] for name, row in rows.items()}, "what is shown is what is written, once"
    for name, text in written.items():
        assert completions((run / "eval" / name).read_text()) == completions(text)


@pytest.mark.slow
def test_an_engine_apart_finds_what_one_in_this_process_finds_to_the_bit(run: Path) -> None:
    want, found = (opd.evaluate(run, "threads=1", own, quiet=True) for own in ("devices=one", "devices=apart"))
    for row in (*want.values(), *found.values()):
        del row["eval/seconds"]
    assert found == want


def completions(lines: str) -> list[tuple[str, str, float]]:
    """What was written, and what it was worth."""
    return [(s["prompt"], s["completion"], s["score"]) for s in map(json.loads, lines.splitlines())]


@pytest.mark.slow
def test_a_mistake_that_ranks_find_is_one_line(run: Path) -> None:
    done = cli("eval", f"run={run}", "step=7", *RANKS)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [f"opd: step=7: no such checkpoint in {run}; there are 2"]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["launcher", "rank 1"])
def test_one_that_is_ended_leaves_no_process(to: str, run: Path) -> None:
    made = started("eval", f"run={run}", *RANKS, "eval.size=5000", "eval.max_tokens=200")
    try:
        assert until(lambda: made.rank(1) != 0, 60)
        time.sleep(8)  # at work, or about to
        if to == "launcher":
            made.process.send_signal(signal.SIGTERM)
            assert made.end(60) == (143, ["opd: stopped, nothing was written"])
        else:
            os.kill(made.rank(1), signal.SIGKILL)
            assert made.end(60) == (1, ["opd: rank 1 of 2 was killed by SIGKILL; evaluate again"])
        assert until(lambda: not made.left, 10)
    finally:
        made.clear()
