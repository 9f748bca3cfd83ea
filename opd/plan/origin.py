"""The config of a model that need not be there: its own, opd's table's, or the one that it will be made with."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from opd.models.gguf import PackagedGguf
from opd.models.loading import load_config
from opd.models.pruned import Pruned
from opd.models.tiny import Tiny, character_tokenizer
from opd.plan.known import KNOWN, known_config
from opd.protocols import ModelSource
from opd.types import Pretrained, UserError

HEAD_DIM = 32
"""Of a tiny model."""


@dataclass(frozen=True)
class Made:
    """A model that is made on first use, which a plan leaves to the run; two with the same settings are equal."""

    source: ModelSource = field(compare=False)
    settings: str = field(init=False)

    def __post_init__(self) -> None:
        """Write all settings down: some are no part of what `repr` shows."""
        object.__setattr__(self, "settings", f"{type(self.source).__qualname__} {vars(self.source)!r}")

    @property
    def name(self) -> str:
        """Its kind, or the model that it is made from."""
        s = self.source
        inner = s.base if isinstance(s, Pruned) else s.hub if isinstance(s, PackagedGguf) else ""
        inner = inner if isinstance(inner, str) else Made(inner).name
        return f"{type(s).__name__}({inner})"


def origin(model: str | ModelSource, trust_remote_code: bool = False) -> Pretrained | Made:
    """What a setting names; a source is not asked for its folder, as it would make it."""
    return Pretrained(model, trust_remote_code) if isinstance(model, str) else Made(model)


def config_of(model: Pretrained | Made) -> tuple[Any, str]:
    """The transformers config of a model, and a word for people on where it is from, if not from the model itself.

    Raises:
        UserError: There is none, or it is known only when the model is made.
    """
    if isinstance(model, Pretrained):
        if (config := known_config(model.path)) is not None:
            return config, f"{model.path}: sizes from opd's table of public models; its config was not read"
        return load_config(model), ""
    source = model.source
    if isinstance(source, Pruned):
        config, note = config_of(origin(source.base))
        return without(config, source.drop_layers), note
    if isinstance(source, Tiny):
        return tiny(source), ""
    if isinstance(source, PackagedGguf) and source.hub in KNOWN:
        return known_config(source.hub), ""
    raise UserError(
        f"model {model.name}: it is made on first use, and opd plan, which makes nothing, does not know its sizes "
        "before; name a folder instead, such as the one that it was made in"
    )


def without(config: Any, dropped: tuple[int, ...]) -> Any:
    """The config of a model that has lost layers, as `opd.models.pruned.drop` writes it."""
    config = deepcopy(config)
    text = config.get_text_config()
    kept = [i for i in range(text.num_hidden_layers) if i not in dropped]
    if getattr(text, "layer_types", None):
        text.layer_types = [text.layer_types[i] for i in kept]
    text.num_hidden_layers = len(kept)
    return config


def tiny(model: Tiny) -> Any:
    """The config of a model over characters; pairs that its tokenizer will learn are taken to be as many as asked."""
    from transformers import Qwen3Config

    heads = model.hidden_size // HEAD_DIM
    return Qwen3Config(
        vocab_size=len(character_tokenizer(model.task.alphabet)) + model.merges, hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size, num_hidden_layers=model.layers, num_attention_heads=heads,
        num_key_value_heads=heads, head_dim=HEAD_DIM, max_position_embeddings=model.context, tie_word_embeddings=True,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
