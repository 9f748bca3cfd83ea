"""What both engines ask of a checkpoint before they load it: how long it can read, and which of its tensors are one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opd.types import UserError, Weights

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Layout:
    """Facts about a causal language model that its config and its architecture give, without its weights."""

    positions: int | None
    """Longest sequence the model was built for; None where its config sets no bound."""
    tied: tuple[str, str] | None
    """Checkpoint names of the input embedding and of the output head where they are one tensor, else None."""


def read_layout(model: str) -> Layout:
    """Read the layout of the checkpoint folder or hub name `model`; no weight is read.

    Raises:
        UserError: There is no such checkpoint, or it is not a causal language model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise UserError(f"rollout: cannot load {model!r} as a causal language model: {_first_line(error)}") from error
    text = config.get_text_config()
    return Layout(getattr(text, "max_position_embeddings", None), _tied(skeleton, text))


def check_length(model: str, layout: Layout, max_len: int) -> None:
    """Refuse a length that the model cannot read.

    Raises:
        UserError: `max_len` is beyond the model's positions.
    """
    if layout.positions is not None and max_len > layout.positions:
        raise UserError(f"rollout: max_len is {max_len}, but {model!r} reads at most {layout.positions} tokens")


def with_head(weights: Weights, tied: tuple[str, str] | None) -> Iterator[tuple[str, Tensor]]:
    """Pass `weights` on, and name the output head too where it is tied and was left out.

    Checkpoints in safetensors format hold a tied tensor once, under the embedding's name. An engine that keeps a packed
    copy of the head would go on with the old one, without a word.
    """
    head = None
    for name, tensor in weights:
        if tied is not None and name == tied[0]:
            head = tensor
        if tied is None or name != tied[1]:
            yield name, tensor
    if tied is not None and head is not None:
        yield tied[1], head


def _tied(skeleton: object, config: PretrainedConfig) -> tuple[str, str] | None:
    """Names of the tied pair; the skeleton's own parameters are looked at, as not every config says it truly."""
    names: dict[int, list[str]] = {}
    for name, parameter in skeleton.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    ...


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
