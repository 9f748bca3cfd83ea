"""What is mended in vLLM around its start and its pushes, each with the reason."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opd.models.facts import Facts

if TYPE_CHECKING:
    from torch import Tensor


FLAT = "flat"
"""Marks the rotary kernel that `flatten_heads` has wrapped."""


def hasten(vllm: Any, facts: Facts) -> None:
    """Save half a minute of the first start on a machine: what vLLM would do then is of no use here."""
    # It would look at the model's class in a second process, so as not to touch this one's GPU.
    registry = vllm.ModelRegistry
    for name in facts.architectures:
        if name in registry.models:
            with suppress(ImportError):  # a package that this one needs is missing: its start will say so
                registry.register_model(name, registry.models[name].load_model_cls())
    forget_ranks()


def forget_ranks() -> None:
    """On CPU: leave out the ranks of sampled tokens, which nobody reads.

    It would compile them, in C++; uncompiled they cost a sixth of the time at a vocabulary of 49152.
    """
    if importlib.import_module("vllm.platforms").current_platform.is_cpu():
        sampler: Any = importlib.import_module("vllm.v1.sample.sampler")
        sampler.batched_count_greater_than = no_ranks


def stateful(vllm: Any, facts: Facts) -> bool:
    """Whether vLLM's own model of it keeps more than keys and values: linear attention, state spaces."""
    known = (vllm.ModelRegistry.models.get(name) for name in facts.architectures)
    return any(getattr(model.load_model_cls(), "has_inner_state", False) for model in known if model is not None)


def flatten_heads() -> None:
    """On CPU: hand the rotary kernel the heads of a token in one row; of [T, heads, size] it turns the first (MLA)."""
    base: Any = importlib.import_module("vllm.model_executor.layers.rotary_embedding.base").RotaryEmbedding
    turn = base.forward_cpu
    if getattr(turn, FLAT, False):
        return

    def forward_cpu(self: Any, positions: Tensor, query: Tensor, key: Tensor | None = None) -> Any:
        turned, other = turn(self, positions, query.flatten(1), None if key is None else key.flatten(1))
        return turned.view(query.shape), None if key is None else other.view(key.shape)

    setattr(forward_cpu, FLAT, True)  # so that it is wrapped once
    base.forward_cpu = forward_cpu


def with_experts() -> None:
    """Give a mixture its group of experts where a dense model, started before it in this process, made no such one."""
    state: Any = importlib.import_module("vllm.distributed.parallel_state")
    if state.model_parallel_is_initialized() and state._EP is None:
        import torch

        world = state.get_world_group()
        backend = torch.distributed.get_backend(world.device_group)
        alone = [[rank] for rank in range(world.world_size)]
        state._EP = state.init_model_parallel_group(alone, world.local_rank, backend, group_name="ep")


def renew_kernels(worker: Any) -> None:
    """On CPU: have the kernels of a mixture's experts made anew; one that is there already takes no new weights.

    They hold the weights packed, and vLLM packs them when it makes a kernel, not when it is handed others: those were
    read as if they were packed.
    """
    if worker.device.type == "cpu":
        for module in worker.get_model().modules():
            if getattr(getattr(module, "quant_method", None), "moe_kernel", None) is not None:
                module.quant_method.moe_kernel = None


def renew_heads(worker: Any) -> None:
    """On CPU: pack output heads anew; one that is tied to the embedding is packed from it, and is handed no weight."""
    if worker.device.type == "cpu":
        for module in worker.get_model().modules():
            if type(module).__name__ == "ParallelLMHead":
                module.quant_method.process_weights_after_loading(module)


def no_ranks(logprobs_BV: Tensor, chosen_B1: Tensor) -> Tensor:
    """Stand in for the ranks of chosen tokens: zeros [B]."""
    return (chosen_B1 > chosen_B1).sum(-1)
