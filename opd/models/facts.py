"""What a model's config and architecture say of it, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opd.types import Pretrained, UserError

LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
"""How configs call the number of positions that a model was made for."""
MOVING = ("dynamic", "longrope")
"""Ways to scale RoPE that turn all of a batch by its longest sequence, once that is longer than the model was made for.

What a token's log-prob is would depend on what else is in the batch, and vLLM decides by its own longest sequence.
"""
ALONG_ROWS = (
    "attention_chunk_size", "attn_temperature_tuning",  # Llama 4: chunks and temperatures by the place in the row
    "index_topk", "index_topk_blocks", "indexer_budget",  # DeepSeek 3.2, GLM 5, MiniMax M3, Qwen 4: the likeliest alone
    "keep_window_size",  # Doge
)  # fmt: skip
"""How configs say that attention leaves tokens out, or weighs them, by where they lie in a row or by what lies there.

It begins at thousands of tokens: no check of a few tells."""

ROWS = 64
"""vLLM's embeddings and output heads have a multiple of it."""


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
    moving: str = ""
    """What kind of positions limits it, where those beyond would change with the longest sequence of a batch."""


def read_facts(model: Pretrained) -> Facts:
    """Read them; no weight is read. UserError where there is no such model or it is no causal language model."""
    from opd.models.loading import load_config, skeleton
    from opd.models.reading import reading

    config = load_config(model)
    bare = skeleton(model, config)
    with reading("causal language model", model):
        return Facts(
            tied=frozenset(bare.all_tied_weights_keys),
            parameters=sum(parameter.numel() for parameter in bare.parameters()),
            architectures=tuple(config.architectures or ()),
            vocabulary=bare.get_output_embeddings().weight.shape[0],
            context=context(config),
            moving=moving(config),
        )


def class_name(model: Any) -> str:
    """What transformers calls the architecture; torch makes a class of its own of one that is sharded."""
    return type(model).__name__.removeprefix("FSDP")


def context(config: Any) -> int | None:
    """How many tokens a model of this config reads alike in any batch, scaled positions (YaRN, linear) included."""
    text = config.get_text_config()
    given = [value for name in LIMITS if isinstance(value := getattr(text, name, None), int)]
    if not given:
        return None
    limit = min(given)
    # Where each kind of layer has its own, the number is the model's as it is (Gemma 3).
    rope = getattr(text, "rope_parameters", None) or {}
    before = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None)
    if moving(config):
        return min(limit, before or limit)
    # A linear factor is not in that number, but for what the config says it was before.
    base = before or (limit if rope.get("rope_type") == "linear" else 0)
    return max(limit, int(base * (rope.get("factor") or 1.0)))


def moving(config: Any) -> str:
    """Its way to scale RoPE, where that turns all of a batch by the longest sequence in it; else an empty text."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = {part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)}
    return next((kind for kind in MOVING if kind in kinds), "")


def along_rows(config: Any) -> bool:
    """Whether attention counts along the row, so that each sequence needs one of its own, without padding before it."""
    text = config.get_text_config()
    return any(getattr(text, name, None) for name in ALONG_ROWS)


def check_trainable(model: Pretrained) -> None:
    """Raise UserError where a student's weights are packed: they cannot be trained, nor pushed as others."""
    from opd.models.loading import load_config

    packed = getattr(load_config(model), "quantization_config", None)
    if packed is not None:
        method = packed.get("quant_method") if isinstance(packed, dict) else getattr(packed, "quant_method", "")
        raise UserError(
            f"student.model: the weights of {model.path!r} are quantised ({getattr(method, 'value', method)}), and "
            "cannot be trained; give the model that they were made of (a quantised teacher is fine)"
        )


def check_reach(setting: str, model: Pretrained, longest: int) -> None:
    """Raise UserError where a model cannot read prompts and completions of `longest` tokens together."""
    from opd.models.loading import load_config

    check_context(setting, model.path, load_config(model), longest)


def check_context(setting: str, name: str, config: Any, longest: int) -> None:
    """The same of a model whose config is at hand."""
    limit = context(config)
    if limit is not None and longest > limit:
        raise UserError(
            f"{setting}: {too_long(repr(name), limit, moving(config))}, and prompt and completion may have "
            f"{longest} together; lower data.max_prompt_tokens, eval.max_tokens or sampling.max_tokens"
        )


def check_dealt(setting: str, name: str, config: Any, devices: int) -> None:
    """Raise UserError where a model cannot be dealt out to the devices of an engine, as far as its config tells."""
    if what := undealt(config, devices):
        fitting = ", ".join(str(n) for n in range(1, 65) if not undealt(config, n))
        raise UserError(
            f"devices.tensor_parallel={devices}: {setting} {name!r} has {what}, which so many devices cannot share; "
            f"allowed are {fitting}"
        )


def undealt(config: Any, devices: int) -> str:
    """What of a model so many devices cannot share, as vLLM deals it out; empty: nothing that is known of it."""
    text = config.get_text_config()

    def size(name: str) -> int:
        return value if isinstance(value := getattr(text, name, None), int) else 0

    if (heads := size("num_attention_heads")) % devices:
        return f"{heads} attention heads"
    keys = 0 if size("kv_lora_rank") else size("num_key_value_heads")
    if keys and keys % devices and devices % keys:  # of fewer than there are devices each has a copy of one
        return f"{keys} heads of keys and values"
    if (rows := -(-size("vocab_size") // ROWS) * ROWS) % devices:
        return f"a vocabulary of {rows} (with what fills it up to a multiple of {ROWS})"
    if (width := size("moe_intermediate_size") or size("intermediate_size")) % devices:
        return f"layers {width} wide"
    return ""


def check_ids(name: str, largest: int, vocabulary: int) -> None:
    """Raise UserError where a model is to read an id that it has no embedding for."""
    if largest >= vocabulary:
        raise UserError(
            f"{name} has {vocabulary} tokens, and its tokenizer or chat template writes the id {largest}: tokens were "
            "added without resizing its embedding; use the tokenizer that it was trained with"
        )


def too_long(name: str, context: int, moving: str) -> str:
    """What is said of a model that is to read more than its context."""
    why = f" (with its {moving} positions, longer ones would change what is said of the others)" if moving else ""
    return f"{name} reads at most {context} tokens{why}"
