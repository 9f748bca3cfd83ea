"""What the learner keeps of a forward pass for its way back: approximate.

Torch itself says what: the network runs on tensors that hold nothing (fake ones), and what its operations save is added
up, in two lengths. Then

    saved    = positions * layers * per_layer + copies
    computed again (gradient checkpointing)
             = positions * layers * per_input, and on the way back one layer's share of the first line

where `copies` are weights that autocast casts to the computing type, once for each micro-batch: of a layer at a time
where layers are computed again, and on ranks none of what is gathered in that type (`working.cast_weights`). Packed
rows add their mask, a byte for every pair of positions of a row. The kernels of a GPU save a little more or less than a
CPU's, and no allocator fits everything tightly.

Where a network cannot be run so, `per_layer` is 34 bytes times the width in 16 bits (Korthikanti et al., "Reducing
Activation Recomputation in Large Transformer Models", 2022), and the share of 32 bits twice that.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from opd.learner.config import Lora
from opd.learner.lora import with_lora
from opd.plan.held import BYTES
from opd.plan.shape import Shape

SHORT, LONG = 16, 32
"""Positions of the two runs."""
TRACED = 4
"""Layers that are run, the first ones of a deeper network: kinds of layers mostly take turns within so many."""
PUBLISHED = 17
"""34 bytes a position and unit of width in two-byte numbers: so many numbers."""


@dataclass(frozen=True)
class Activations:
    """Bytes that a forward pass leaves behind for backward."""

    per_layer: float
    """Of a position in a layer."""
    per_input: int
    """Of a position that goes into a layer."""
    copies: float
    """Of weights in the computing type, in all layers."""
    layers: int
    traced: bool = True
    """Whether torch was watched; else the published formula."""

    def saved(self, positions: int) -> int:
        """Bytes that so many positions leave in all layers."""
        return round(positions * self.layers * self.per_layer)

    def inputs(self, positions: int) -> int:
        """Bytes of what goes into all layers, which is what stays where they are computed again."""
        return positions * self.layers * self.per_input


def activations(shape: Shape, compute: str, lora: Lora | None) -> Activations:
    """Watch a student's forward pass in the dtype `compute` under autocast, as the learner runs it."""
    return _activations(shape, compute, lora)


@cache
def _activations(shape: Shape, compute: str, lora: Lora | None) -> Activations:
    master = "float32" if lora is None else compute
    per_input = shape.head[1] * BYTES[master]
    try:
        short, long = (_saved(shape, compute, master, lora, n) for n in (SHORT, LONG))
    except Exception:  # networks that look at their numbers, or whose code is their own
        return Activations(PUBLISHED * shape.head[1] * BYTES[compute], per_input, 0.0, shape.layers, traced=False)
    slope, traced = (long - short) / (LONG - SHORT), min(TRACED, shape.layers)
    copies = max(0.0, short - slope * SHORT) / traced * shape.layers
    return Activations(slope / traced, per_input, copies, shape.layers)


def _saved(shape: Shape, compute: str, master: str, lora: Lora | None, positions: int) -> int:
    """Bytes of all memory but the weights' that one row of so many positions leaves behind."""
    seen: dict[int, tuple[int, Any]] = {}
    model = _bare(shape, lora, getattr(torch, master))
    with FakeTensorMode():
        _with_fake_tensors(model)
        body = (model if lora is None else model.get_base_model()).get_decoder()
        own = {p.untyped_storage()._cdata for p in model.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            memory = tensor.untyped_storage()
            if memory._cdata not in own:
                seen[memory._cdata] = (memory.nbytes(), tensor)  # held, so that no other one gets its address
            return tensor

        ids, places = torch.zeros(1, positions, dtype=torch.long), torch.arange(positions)[None]
        casting = torch.autocast("cpu", getattr(torch, compute), enabled=compute != "float32")
        with casting, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            body(input_ids=ids, position_ids=places, use_cache=False)
    return sum(size for size, _ in seen.values())


def _bare(shape: Shape, lora: Lora | None, dtype: torch.dtype) -> Any:
    """The student on the meta device, with fused attention and few layers."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    config = deepcopy(shape.config)
    config._attn_implementation = "sdpa"
    text = config.get_text_config()
    text.num_hidden_layers = min(TRACED, shape.layers)
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:TRACED]
    with torch.device("meta"):
        model = auto.from_config(config, dtype=dtype)
    return model if lora is None else with_lora(model, lora, None)


def _with_fake_tensors(model: torch.nn.Module) -> None:
    """Replace what lies on the meta device, where autocast does nothing, by fake tensors of the CPU."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module._parameters.items()):
            if old is not None:
                empty = torch.empty(old.shape, dtype=old.dtype)
                made.setdefault(id(old), torch.nn.Parameter(empty, requires_grad=old.requires_grad))
                module._parameters[name] = made[id(old)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
