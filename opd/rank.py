"""`python -m opd.rank ORDER`: one of several processes that do the same, started by `opd.devices.launch`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opd.commands.jobs import Ordered, read
from opd.console.outlet import mend
from opd.devices import lifeline
from opd.devices.report import Report
from opd.devices.shortage import shortage
from opd.devices.team import LostRank
from opd.disk import refusal
from opd.run.interrupt import LAUNCHER, Interrupted, StopSignal
from opd.run.startup import hush
from opd.types import RunError, UserError
from opd.unseen import leave_out

Begun = Callable[[str], None]
Work = Callable[[Path, Begun], Any]
SIGNS = ("gloo", "nccl", "connection", "timed out", "timeout")
"""What torch's messages hold where one process waits in vain for another."""


def ordered(file: Path, begun: Begun) -> Any:
    """Do what a file orders, and return what it has come to; `begun` is told of the run's folder."""
    kind, said = read(file.read_text(encoding="utf-8"))
    sys.path += [place for place in said["path"] if place not in sys.path]
    job = job_of(kind, said, begun)
    return job.told(job.carry_out())


def job_of(kind: str, said: dict[str, Any], begun: Begun) -> Ordered[Any, Any]:
    """A job by its kind, with the fields of its order."""
    if kind == "eval":
        from opd.commands import jobs
        from opd.commands.eval.job import Evaluating

        return Evaluating(jobs.Order(**said), begun=begun)
    from opd.commands.train.job import Order, Training

    return Training(Order(**said), begun=begun)


def main(work: Work = ordered) -> None:
    """Do the work that a file orders, and leave a report beside it."""
    file = Path(sys.argv[1])
    report = file.with_name(f"rank-{os.environ['RANK']}.json")
    run = ""
    mend()
    leave_out()
    hush()
    LAUNCHER.counts = True
    lifeline.hold(file.parent, LAUNCHER.stop, LAUNCHER.abort)

    def begun(at: str) -> None:
        nonlocal run
        run = at
        Report("begun", run=at).write(report)

    code = 1
    with StopSignal():
        try:
            found = work(file, begun)
            Report("done", run=run, result=found).write(report)
            return
        except UserError as error:
            code, last = 2, Report("mistake", str(error))
        except Interrupted as error:
            code, last = 128 + error.signal, Report("interrupted", str(error), signal=error.signal)
        except KeyboardInterrupt:
            code, last = 130, Report("interrupted", "aborted", signal=2)
        except Exception as error:  # the last resort: the launcher has nothing else to tell people
            last = of(error)
        Report(last.kind, last.message, last.signal, run, traceback.format_exc()).write(report)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # at a regular end, threads of torch wait for ranks that are gone


def of(error: Exception) -> Report:
    """The report of an error that is nobody's mistake."""
    text = " ".join(str(error).split())
    torchs = isinstance(error, RuntimeError) and any(sign in text.lower() for sign in SIGNS)
    if isinstance(error, LostRank) or torchs:
        return Report("lost", text[:300])
    if isinstance(error, RunError):
        return Report("failure", text)
    rank = os.environ["RANK"]
    if short := shortage(error):
        return Report("failure", f"rank {rank}: {short}")
    if refused := refusal(error):
        return Report("failure", f"rank {rank}: {refused}")
    return Report(
        "unforeseen", f"internal error on rank {rank}, {type(error).__name__}: {text[:300]}; see it with --debug"
    )


if __name__ == "__main__":
    main()
