"""A model in shards (FSDP2): every process holds a part of each weight, and a layer is whole while it computes.

Nothing else knows: a `SplitModel` comes in and one comes out, whose hidden states are made from gathered layers, and
whose gradients are summed over the processes and shared out again on the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from opd.devices.team import Team
from opd.models.heads import SplitModel


def sharded(split: SplitModel, team: Team, compute: torch.dtype = torch.float32) -> SplitModel:
    """The same model with its weights shared out among the processes of a team; as it is where that is one.

    Layers are gathered in `compute`, the type that they are multiplied in, and gradients summed in float32, wherever
    autocast would cast just so: it would keep a copy of every layer from the way there to the way back. The weights of
    norms are then rounded to it, too, as the engine's are. A head that is trained
    is whole from the hidden states on until their gradient is there; a frozen one always, on every rank, so that it can
    be asked for logits whenever somebody likes.
    """
    if team.mesh is None:
        return split
    from torch.distributed.fsdp import (
        FSDPModule,
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    root = split.model.get_base_model() if hasattr(split.model, "peft_config") else split.model
    ignored = set() if split.head.weight.requires_grad else set(split.head.parameters())
    shard = partial(fully_shard, mesh=team.mesh, ignored_params=ignored)
    if ignored:
        split.head.to(team.mesh.device_type)
    embedding = root.get_input_embeddings()
    narrow = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in layers(split.body, root):
        shard(layer, mp_policy=narrow if products_alone(layer) else MixedPrecisionPolicy())
    if embedding.weight is not split.head.weight:  # or two [V, H] would be gathered and reduced at once
        shard(embedding)
    shard(root)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # a sum: the denominator is the whole step's already
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    root.set_reduce_scatter_unused_params(True)  # a rank may have nothing to train
    root.hidden_states = MethodType(_hidden_states, split.body)
    register_fsdp_forward_method(root, "hidden_states")
    return replace(
        split,
        body=Gathered(root),
        most=lambda count: max(team.gather(count)),
        last=root.set_requires_all_reduce,
        rest=root.reshard,
    )


def loading_place(team: Team, device: torch.device, attention: str) -> torch.device:
    """Where a model is read: on its device, or in the host's memory where that will only hold a shard of it.

    It is looked at there while it is whole, which flash attention can be on a GPU alone.
    """
    return device if team.mesh is None or "flash" in attention else torch.device("cpu")


def _hidden_states(body: nn.Module, **inputs: Any) -> Tensor:
    hidden: Tensor = body(**inputs).last_hidden_state
    return hidden


@dataclass(frozen=True)
class Gathered:
    """The body of a sharded model: its root gathers first what belongs to no layer."""

    root: Any

    def __call__(self, **inputs: Any) -> Any:
        """As the body answers."""
        return SimpleNamespace(last_hidden_state=self.root.hidden_states(**inputs))

    def parameters(self) -> Iterator[Tensor]:
        """None that could be put elsewhere."""
        return iter(())

    buffers = parameters


def layers(body: nn.Module, root: Any) -> list[nn.Module]:
    """The layers of a body: what its architecture says is never taken apart, else what its longest list holds."""
    names = set(getattr(root, "_no_split_modules", None) or ())
    found = [module for module in body.modules() if type(module).__name__ in names]
    lists = [list(module) for module in body.modules() if isinstance(module, nn.ModuleList)]
    return found or max(lists, key=len, default=[])


def products_alone(layer: nn.Module) -> bool:
    """Whether a layer of float32 weights has none but those of matrix products, which autocast casts, and of norms.

    Others, experts' and what recurrent layers decay by, are used as they are; torch's own norms want weights of their
    input's type, which is float32.
    """
    own = [(m, p) for m in layer.modules() for p in m.parameters(recurse=False)]
    known = all(isinstance(m, nn.Linear | Conv1D) or _scales(m) for m, _ in own)
    return known and all(p.dtype == torch.float32 for _, p in own)


def _scales(module: nn.Module) -> bool:
    """Whether it is a norm that multiplies by its weight, of whatever type."""
    fused = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm)
    return "norm" in type(module).__name__.lower() and not fused


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is shared out, which every rank has to ask for; of any other the tensor itself."""
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def own(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, in the same memory; of one that is whole the tensor itself."""
    local: Callable[[], Tensor] | None = getattr(tensor, "to_local", None)
    return tensor if local is None else local()


def part(read: Callable[[slice], Tensor], like: Tensor) -> Tensor:
    """This process's part of a whole tensor, laid out as `like` is; `read` gives rows of it, on any device."""
    if not hasattr(like, "to_local"):
        return read(slice(None)).to(like.device)
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    assert isinstance(like, DTensor)
    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    local = read(slice(offset[0], offset[0] + shape[0])).to(like.device)
    return DTensor.from_local(
        local, like.device_mesh, like.placements, shape=like.shape, stride=like.stride(), run_check=False
    )


def collected(named: Iterable[tuple[str, Tensor]], team: Team) -> dict[str, Tensor]:
    """Whole tensors by their names on rank 0, nothing on the others, one gathered after the other."""
    out = {}
    for name, tensor in named:
        value = whole(tensor)
        if team.rank == 0:
            out[name] = value if value is tensor else value.cpu()
    return out


@torch.no_grad()
def exchange(a: Tensor, b: Tensor) -> None:
    """Let two tensors of one shape and dtype have each other's values, in place: what holds on to either sees it."""
    a, b = own(a), own(b)
    before = a.clone()
    a.copy_(b)
    b.copy_(before)
