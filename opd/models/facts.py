"""What a model's config and architecture say of it, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opd.types import Pretrained

LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
"""How configs call the number of positions that a model was made for."""
STRETCHED = ("linear", "dynamic")
"""Ways to scale RoPE whose factor is not in that number, but for what the config says it was before."""


@dataclass(frozen=True)
class Facts:
    """Facts about a causal language model."""

    tied: frozenset[str]
    """Names of output heads that are one tensor with the embedding: checkpoints hold it once, under that one's name."""
    parameters: int
    """Number of trainable weights, a tied one counted once."""
    architectures: tuple[str, ...]
    """Class names that the config gives."""
    vocabulary: int
    """Columns of the output head, padding rows included."""
    context: int | None
    """Longest sequence that it can read; None where nothing limits it."""


def read_facts(model: Pretrained) -> Facts:
    """Read them; no weight is read. UserError where there is no such model or it is no causal language model."""
    from opd.models.loading import load_config, reading, skeleton

    config = load_config(model)
    bare = skeleton(model, config)
    with reading("causal language model", model):
        return Facts(
            tied=frozenset(bare.all_tied_weights_keys),
            parameters=sum(parameter.numel() for parameter in bare.parameters()),
            architectures=tuple(config.architectures or ()),
            vocabulary=bare.get_output_embeddings().weight.shape[0],
            context=context(config),
        )


def context(config: Any) -> int | None:
    """How many tokens a model of this config reads, scaled positions (YaRN, linear, dynamic) included."""
    text = config.get_text_config()
    given = [value for name in LIMITS if isinstance(value := getattr(text, name, None), int)]
    if not given:
        return None
    limit = min(given)
    rope = getattr(text, "rope_parameters", None) or {}
    # Where each kind of layer has its own, the number is the model's as it is (Gemma 3).
    whole = rope.get("rope_type") in STRETCHED
    before, factor = rope.get("original_max_position_embeddings") or limit * whole, rope.get("factor") or 1.0
    return max(limit, int(before * factor))
