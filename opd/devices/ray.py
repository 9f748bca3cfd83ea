"""Ranks on the nodes of a Ray cluster, or of one that is begun for the run; engines beside the first, if wished."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from opd.devices.beside import Beside
from opd.devices.bundles import Wanted
from opd.devices.launch import GRACE, Job, Stop, Stopped, outcome, tend
from opd.devices.launched import started
from opd.devices.report import Report
from opd.devices.watched import Watched
from opd.extras import install
from opd.types import UserError


@dataclass(frozen=True)
class Ray(Beside):
    """Settings of a run whose ranks Ray places, and with the first of them engines, where these are apart."""

    ranks: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Processes that learn; null: one for every GPU of the cluster that is no engine's."""
    address: str | None = None
    """A running cluster's, as in `auto` or `head:6379`; null: RAY_ADDRESS, else one of this machine, for this run."""
    cpus: Annotated[int, Field(ge=1, le=4096)] = 1
    """Cores of a node that Ray counts for each rank, beside `threads` for each engine; with as many as a node has,
    every rank is on a node of its own."""
    wait: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that one waits for the cluster to have room."""

    def start(self, job: Job) -> Any:
        """Have Ray place as many ranks, which all carry the job out; in one of them, do its part."""
        if started():
            return job.here()
        if importlib.util.find_spec("ray") is None:
            raise UserError(f"devices=ray: Ray is not installed:  {install('ray')}")
        text = job.text
        with job.listening() as stop:
            try:
                report = self._report(job.command, text, stop)
            except Stopped as stopped:
                report = Report("interrupted", "stopped before it had begun", signal=stopped.signal)
        return job.ended(report)

    def _report(self, command: Sequence[str], text: str, stop: Stop) -> Report:
        from opd.devices.cluster import connected

        wanted = Wanted(self.ranks, self.cpus, self.engines, self.threads, self.tensor_parallel)
        with connected(self.address, wanted.cores):
            from opd.devices.placed import begun, room  # these import Ray, which has to be set up before

            with room(wanted, self.wait, stop) as places:
                ranks: list[Watched] = []
                tend(ranks, begun(command, text, places), stop, GRACE)
                return outcome(ranks, self.patience)
