"""Short digests of a model, for a checkpoint to say what it relies on.

They depend neither on where the model lies, nor on its files' times and formats, nor on the dtype it is loaded in.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from opd.models.loading import load_config, skeleton
from opd.types import Pretrained

SAMPLE = 1021
"""Values of a tensor that are looked at; a prime, so that they are not all of one column."""


def vocabulary_digest(tokenizer: Any) -> dict[str, str]:
    """A digest of the tokens and their ids, by the name `tokenizer`."""
    return {"tokenizer": _digest(repr(sorted(tokenizer.get_vocab().items())).encode())}


def base_digests(model: Any) -> dict[str, str]:
    """Digests of the weights under a model's adapters, by their names in memory; none of a model without adapters."""
    if not hasattr(model, "peft_config"):
        return {}
    named = model.get_base_model().named_parameters()
    return {name.replace(".base_layer.", "."): _tensor_digest(p) for name, p in named if ".lora_" not in name}


def shapes(model: Pretrained) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights, as the config says; no weight is read."""
    return {name: tuple(t.shape) for name, t in skeleton(model, load_config(model)).state_dict().items()}


def _tensor_digest(tensor: Tensor) -> str:
    """Of the shape, and of values at even distances, rounded to bfloat16 as the base may have been on loading."""
    flat = tensor.detach().reshape(-1)
    count = min(SAMPLE, flat.numel())
    at = torch.arange(count, device=flat.device) * flat.numel() // max(1, count)
    values = flat[at].to("cpu", torch.bfloat16).view(torch.int16)
    return _digest(f"{tuple(tensor.shape)}".encode() + values.numpy().tobytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
