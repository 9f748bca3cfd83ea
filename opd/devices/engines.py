"""How engines in processes of their own are started and looked after."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineProcesses:
    """So many, all alike."""

    count: int
    threads: int
    """Torch threads of each."""
    timeout: float
    """Seconds without an answer after which one is taken for dead, its start included."""
    restarts: int
    """Times that one that fails or dies is started again for one request."""
    tensor_parallel: int = 1
    """Devices that the model of each is on."""
