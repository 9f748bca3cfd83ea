"""The names that weights have in a checkpoint, where these are others than in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LAYER = re.compile(r".*?\.\d+\.")


def checkpoint_names(model: Any, named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield weights of a transformers model as `save_pretrained` would write them: what engines and files know.

    A tied output head is left out; fused experts are taken apart, and what was renamed on reading gets its old name.
    The weights of one layer are converted together, so that no more than a layer is ever copied.

    Args:
        model: The model whose names they are.
        named: Its weights by their names in memory, those of a layer one after the other.
    """
    from transformers.core_model_loading import revert_weight_conversion

    tied = model.all_tied_weights_keys or {}
    own = ((name, tensor) for name, tensor in named if name not in tied)
    for _, layer in groupby(own, key=lambda item: m.group() if (m := LAYER.match(item[0])) else None):
        yield from revert_weight_conversion(model, dict(layer)).items()


def remade(model: Any, named: Iterable[tuple[str, Tensor]]) -> Any:
    """A float32 model of the same kind with other weights: transformers converts names of whole checkpoints only.

    Args:
        model: A transformers model; it stays as it is.
        named: All weights under checkpoint names.
    """
    import torch

    new = type(model).from_pretrained(None, config=model.config, state_dict=dict(named), dtype=torch.float32)
    new.generation_config = model.generation_config
    return new


def renames(model: Any) -> bool:
    """Whether any weight of a transformers model has another name or shape in its checkpoint."""
    from transformers.core_model_loading import revert_weight_conversion

    own = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    return set(revert_weight_conversion(model, own)) != set(own)
