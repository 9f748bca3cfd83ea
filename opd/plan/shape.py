"""What a plan has to know of a model: every weight's shape and group, read from its config alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import nn

from opd.learner.config import Lora
from opd.learner.lora import with_lora
from opd.models.loading import skeleton
from opd.models.shards import layers, products_alone
from opd.plan.origin import Made, config_of
from opd.run.cost import Architecture
from opd.types import Pretrained, UserError

ROOT, EMBEDDING = "root", "embedding"
"""Groups of weights that are sharded beside the layers: norm and head (with an embedding that is tied to it), and an
embedding of its own."""


@dataclass(frozen=True)
class Weight:
    """One parameter; a tied one is there once."""

    name: str
    shape: tuple[int, ...]
    group: str
    """`ROOT`, `EMBEDDING`, or `layer 3`: what is gathered and freed together when a model is sharded."""
    trained: bool = True
    adapter: bool = False
    linear: bool = False
    """Of a linear layer of the body: what quantization packs."""
    head: bool = False
    """Of the output head, and of the embedding where the two are tied: whole on every rank unless it is trained."""
    narrow: bool = False
    """Of a layer that ranks gather in the type that it is multiplied in, not in that in which it is kept."""

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Shape:
    """A causal language model without its weights."""

    name: str
    weights: tuple[Weight, ...]
    buffers: int
    """Bytes of what is no parameter, float32 in any case."""
    head: tuple[int, int]
    """Rows (V) and columns (H) of the output head."""
    layers: int
    cache: int
    """Numbers that an engine keeps of a token in all layers: keys and values."""
    cached_heads: int
    """Heads of these, which devices can have apart; 1: what is kept is one piece."""
    multiplies: Architecture | None
    config: Any = field(compare=False, repr=False)
    note: str = ""
    """Where its sizes come from, unless from its own config."""

    @property
    def parameters(self) -> int:
        """Numbers in all weights but adapters."""
        return sum(w.count for w in self.weights if not w.adapter)

    @property
    def adapters(self) -> int:
        """Numbers in all adapters."""
        return sum(w.count for w in self.weights if w.adapter)

    def groups(self) -> dict[str, tuple[Weight, ...]]:
        """The weights by their group."""
        names = dict.fromkeys(w.group for w in self.weights)
        return {name: tuple(w for w in self.weights if w.group == name) for name in names}


class Unsized(UserError):
    """A model whose sizes are called as nobody else's: nothing is planned of it, and it is trained all the same."""


@cache
def read_shape(model: Pretrained | Made, lora: Lora | None = None) -> Shape:
    """Read a model's config and count; no weight is read, nothing is made.

    Raises:
        UserError: There is no config, no adapters fit on it, or its sizes are known only when it is made.
        Unsized: Its sizes cannot be read off its config and modules.
    """
    config, note = config_of(model)
    bare = skeleton(model if isinstance(model, Pretrained) else Pretrained(type(model.source).__name__), config)
    name = model.path if isinstance(model, Pretrained) else model.name
    try:
        return _shape(name, bare, lora, Architecture.of(config, type(bare)), note)
    except UserError:
        raise
    except Exception as error:  # of hundreds of architectures some name their sizes as nobody else
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise Unsized(f"model {name}: opd cannot read its sizes, and so plans nothing of it ({why})") from error


def _shape(name: str, bare: Any, lora: Lora | None, multiplies: Architecture | None, note: str) -> Shape:
    """Count as `opd.models.shards.sharded` groups."""
    head, embedding = bare.get_output_embeddings(), bare.get_input_embeddings()
    packed = {id(m.weight) for m in bare.modules() if isinstance(m, nn.Linear) and m is not head}
    buffers = sum(b.numel() * b.element_size() for b in bare.buffers())
    model = bare if lora is None else with_lora(bare, lora, None)  # adapters lie in the layers, too
    found = layers(bare.get_decoder(), bare)
    alone = [layer for layer in found if lora is None and products_alone(layer.float())]
    narrow = {id(p) for layer in alone for p in layer.parameters()}
    places = {id(p): f"layer {i}" for i, layer in enumerate(found) for p in layer.parameters()}
    own = embedding.weight is not head.weight
    places |= {id(p): EMBEDDING for p in embedding.parameters()} if own else {}
    heads = {id(p) for p in head.parameters()}
    weights = tuple(
        Weight(
            full, tuple(p.shape), places.get(id(p), ROOT), trained=p.requires_grad,
            adapter=".lora_" in full, linear=id(p) in packed, head=id(p) in heads, narrow=id(p) in narrow,
        )
        for full, p in model.named_parameters()
    )  # fmt: skip
    return Shape(
        name, weights, buffers, tuple(head.weight.shape), len(found), cached_numbers(bare.config),
        cached_heads(bare.config), multiplies, bare.config, note,
    )  # fmt: skip


def cached_numbers(config: Any) -> int:
    """Numbers that an engine keeps of one token: keys and values of all layers, or what they are made from (MLA)."""
    c = config.get_text_config()
    if rank := getattr(c, "kv_lora_rank", None):
        return int(c.num_hidden_layers * (rank + c.qk_rope_head_dim))
    size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    return int(2 * c.num_hidden_layers * cached_heads(config) * size)


def cached_heads(config: Any) -> int:
    """Heads of keys and values; 1 where what is kept is no heads' (MLA)."""
    c = config.get_text_config()
    if getattr(c, "kv_lora_rank", None):
        return 1
    return int(getattr(c, "num_key_value_heads", None) or c.num_attention_heads)
