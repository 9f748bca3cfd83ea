"""vLLM with its model on several devices of a machine, tensor parallel: a worker for each, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opd.devices.process import LOOPBACK
from opd.models.facts import Facts
from opd.rollout.loading import complete
from opd.rollout.vllm_mends import renew_heads, renew_kernels
from opd.types import Pretrained, Weights
from opd.writing import Sampler

AROUND = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process with torch's threads may hang
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # to cores that others may have
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": LOOPBACK,
    "NCCL_SOCKET_IFNAME": LOOPBACK,
    "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": "10",  # they need some to leave their group
}
"""Variables that workers begin with: they talk to each other, and nobody else is to connect."""


@dataclass(frozen=True)
class Spread:
    """Settings of such an engine. It takes weights that processes share, and so has a process of its own."""

    begin: Callable[..., Sampler]
    """Starts it, given what `start` is."""

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> Sampler:
        """Load `model` into workers, each of which has a part of every layer; see `opd.writing.Engine`."""
        from opd.rollout.apart.process import born_with

        with born_with(AROUND):  # and deaf to signals: vLLM's own handlers would end the workers
            return self.begin(model, max_len=max_len, seed=seed)


def layout(devices: int) -> dict[str, Any]:
    """Arguments of `vllm.LLM` with which its model is on so many."""
    if devices == 1:
        return {}
    return {
        "tensor_parallel_size": devices,
        "distributed_executor_backend": "mp",
        "worker_extension_cls": "opd.rollout.worker.Taking",
    }


def push(engine: Any, weights: Weights, facts: Facts, devices: int) -> None:
    """Have a started engine's workers take weights: this process, or those that find them where this one does.

    Raises:
        ValueError: Some are missing.
    """
    named = complete(weights, facts)
    if devices > 1:
        from opd.rollout.apart.kept import Shared

        assert isinstance(weights, Shared)
        given = {name for name, _ in named}
        engine.collective_rpc("opd_take", args=(weights.places, [e for e in weights.index if e[0] in given]))
        return
    engine.collective_rpc(renew_kernels)
    engine.collective_rpc("reload_weights", kwargs={"weights_iterator": named})
    engine.collective_rpc(renew_heads)
