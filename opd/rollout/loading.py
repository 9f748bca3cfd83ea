"""What both engines ask of a checkpoint before they load it: how long it can read, and which of its tensors are one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opd.types import Prompt, Sampling, UserError, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Facts about a causal language model that its config and its architecture give, without its weights."""

    tied: frozenset[str]
    """Names of output heads that are one tensor with the embedding: checkpoints hold it once, under that one's name."""
    parameters: int
    """Number of trainable weights, a tied one counted once."""
    architectures: tuple[str, ...]
    """Class names that the config gives."""


def read_layout(model: str, max_len: int) -> Layout:
    """Read the layout of the checkpoint folder or hub name `model`; no weight is read.

    Args:
        model: Folder or hub name.
        max_len: Longest sequence that it will have to read.

    Raises:
        UserError: There is no such checkpoint, it is not a causal language model, or it cannot read `max_len` tokens.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model)
        with torch.device("meta"):
            skeleton = auto.from_config(config)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"rollout: cannot load {model!r} as a causal language model: {reason}") from error
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and max_len > positions:
        raise UserError(
            f"rollout: max_len is {max_len}, but {model!r} reads at most {positions} tokens; lower "
            "data.max_prompt_tokens, eval.max_tokens or sampling.max_tokens, of which it is made"
        )
    return Layout(
        tied=frozenset(skeleton.all_tied_weights_keys),
        parameters=sum(parameter.numel() for parameter in skeleton.parameters()),
        architectures=tuple(config.architectures or ()),
    )


def check_room(prompts: Sequence[Prompt], sampling: Sampling, max_len: int) -> None:
    """See that no completion could outgrow the engine.

    Raises:
        UserError: The longest prompt and `max_tokens` together are more than the `max_len` of the engine's start.
    """
    longest = max((len(prompt.tokens) for prompt in prompts), default=0)
    if longest + sampling.max_tokens > max_len:
        given = f"a prompt of {longest} tokens and max_tokens={sampling.max_tokens}"
        raise UserError(f"rollout: {given} are more than the {max_len} tokens that the engine was started for")


def complete(weights: Weights, layout: Layout) -> Iterator[tuple[str, Tensor]]:
    """Pass `weights` on without a tied output head, and see that none is missing.

    Raises:
        ValueError: There were fewer weights than the model has, so that old and new ones are mixed now.
    """
    given = 0
    for name, tensor in weights:
        if name not in layout.tied:
            given += tensor.numel()
            yield name, tensor
    if given < layout.parameters:
        raise ValueError(f"rollout: {given} weights were pushed into a model of {layout.parameters}")
