"""Bytes of weights, gradients and optimizer: equal to those of tensors that torch allocated, whole and sharded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from opd.learner.lora import Lora, with_lora
from opd.models.loading import load_causal_lm
from opd.plan import held
from opd.plan.known import KNOWN
from opd.plan.shape import layers, read_shape
from opd.types import Pretrained
from tests.tiny import save_model

KINDS = ["qwen3", "qwen2", "llama", "gpt2", "gpt_neox", "mixtral", "qwen3_moe", "opt"]
ATTENTION = {"mixtral": ("q_proj", "o_proj"), "qwen3_moe": ("q_proj", "o_proj")}
"""Adapters of mixtures: their experts get none."""


def lora_for(kind: str) -> Lora:
    return Lora(rank=3, targets=ATTENTION.get(kind, "all-linear"))


def storages(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the memory behind tensors, what several of them share counted once."""
    local = (t.to_local() if isinstance(t, DTensor) else t for t in tensors)
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in local) if s.nbytes()}.values())


def after_a_step(model: Any) -> tuple[int, int, int]:
    """Bytes of weights with buffers, of gradients, and of the optimizer's state, after one step on a few tokens."""
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-3, fused=True)
    model(input_ids=torch.arange(8)[None]).logits.float().logsumexp(-1).sum().backward()
    gradients = storages(p.grad for p in params if p.grad is not None)
    optimizer.step()
    moments = (t for state in optimizer.state.values() for t in state.values())
    return storages((*model.parameters(), *model.buffers())), gradients, storages(moments)


def loaded(folder: Path, lora: Lora | None) -> Any:
    """A student's model as the learner loads it, bfloat16 where it is frozen."""
    model = load_causal_lm(Pretrained(str(folder)), torch.float32 if lora is None else torch.bfloat16)
    return model if lora is None else with_lora(model, lora, None)


@contextmanager
def group(rank: int, size: int) -> Iterator[Any]:
    """A process group of which this process is one, and whose others do not exist."""
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (size,))
    finally:
        dist.destroy_process_group()


def shard(model: Any, mesh: Any) -> None:
    """FSDP2 as ranks use it: each layer, an embedding of its own, the rest."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    for layer in layers(inner):
        fully_shard(layer, mesh=mesh)
    if inner.get_input_embeddings().weight is not inner.get_output_embeddings().weight:
        fully_shard(inner.get_input_embeddings(), mesh=mesh)
    fully_shard(model, mesh=mesh)


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_device_holds_what_torch_allocates(kind: str, tied: bool, adapted: bool, tmp_path: Path) -> None:
    folder, lora = save_model(tmp_path, kind, seed=0, tied=tied), lora_for(kind) if adapted else None
    planned = held.trained(read_shape(Pretrained(str(folder)), lora), "bfloat16")
    assert (planned.weights, planned.gradients, planned.optimizer) == after_a_step(loaded(folder, lora))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_of_two_ranks_holds_what_torch_allocates(
    kind: str, tied: bool, adapted: bool, rank: int, tmp_path: Path
) -> None:
    folder, lora = save_model(tmp_path, kind, seed=0, tied=tied), lora_for(kind) if adapted else None
    planned = held.trained(read_shape(Pretrained(str(folder)), lora), "bfloat16", 2, rank)
    with group(rank, 2) as mesh:
        model = loaded(folder, lora)
        shard(model, mesh)
        assert (planned.weights, planned.gradients, planned.optimizer) == after_a_step(model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_holds_what_torch_allocates(kind: str, dtype: str, tmp_path: Path) -> None:
    model = Pretrained(str(save_model(tmp_path, kind, seed=0, tied=False)))
    whole = load_causal_lm(model, dtype)
    assert held.frozen(read_shape(model), dtype) == storages((*whole.parameters(), *whole.buffers()))


BILLIONS = {
    "Qwen/Qwen3-0.6B": 0.60, "Qwen/Qwen3-1.7B": 1.72, "Qwen/Qwen3-4B": 4.02, "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen3-14B": 14.77, "Qwen/Qwen3-32B": 32.76, "Qwen/Qwen2.5-0.5B-Instruct": 0.49,
    "Qwen/Qwen2.5-1.5B-Instruct": 1.54,
    "Qwen/Qwen2.5-Math-7B-Instruct": 7.62, "openai-community/gpt2": 0.124, "MiniLLM/teacher-gpt2-1.5B": 1.56,
}  # fmt: skip
"""Parameters, as the models' pages give them."""


@pytest.mark.parametrize("name", BILLIONS)
def test_models_of_the_table_have_as_many_parameters_as_is_published(name: str) -> None:
    assert name in KNOWN
    assert read_shape(Pretrained(name)).parameters == pytest.approx(BILLIONS[name] * 1e9, rel=0.01)
