"""Floating-point operations of a transformer, counted from its architecture and the lengths of what it really read.

A multiplication and an addition are two operations. Counted are matrix products: linear layers, attention (each token
with those up to itself, as a causal mask leaves it), and the output head on the rows that it is applied to. Norms,
softmax, rotations, losses and the optimizer are left out, which are below a percent in models of any size. Mixtures of
experts are not counted at all: `Architecture.of` says None for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from opd.batch import sequence_length

Lengths = tuple[int, int]
"""Tokens of a prompt and of its completion."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class Architecture:
    """The sizes of a dense decoder with a gated MLP (Llama, Qwen, Gemma, Mistral, SmolLM and their like)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    window: int = 0
    """Tokens that a layer with sliding attention looks at, itself included."""
    windowed: int = 0
    """How many of the layers have it."""

    @classmethod
    def of(cls, config: Any) -> Architecture | None:
        """Read a transformers config; None for mixtures of experts and where a size is missing."""
        c = config.get_text_config()
        if any(getattr(c, name, None) for name in EXPERTS):
            return None
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
        sizes: list[Any] = [getattr(c, name, None) for name in names]
        if not all(isinstance(size, int) for size in sizes):
            return None
        layers, hidden, heads, intermediate, vocab = map(int, sizes)
        window = getattr(c, "sliding_window", None) or 0
        kinds = getattr(c, "layer_types", None) or ["sliding_attention"] * layers
        return cls(
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=getattr(c, "num_key_value_heads", None) or heads,
            head_dim=getattr(c, "head_dim", None) or hidden // heads,
            intermediate=intermediate,
            vocab=vocab,
            window=window,
            windowed=kinds.count("sliding_attention") if window else 0,
        )

    @property
    def linear(self) -> int:
        """Weights of all linear layers but the head: queries and outputs, keys and values, the MLP's three."""
        attention = 2 * self.heads * self.head_dim + 2 * self.kv_heads * self.head_dim
        return self.layers * self.hidden * (attention + 3 * self.intermediate)


@dataclass(frozen=True)
class Flops:
    """Operations of a forward pass by kind; all zero for nothing."""

    linear: float = 0.0
    attention: float = 0.0
    head: float = 0.0
    adapters: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.linear + self.attention + self.head + self.adapters


def forward(a: Architecture, lengths: Iterable[Lengths], rows: int, adapters: int = 0) -> Flops:
    """Read prompts with their completions, all but each last token, which predicts nothing.

    Sampling a completion costs the same as reading it, as every token goes through the model once.

    Args:
        a: who reads.
        lengths: of what it reads.
        rows: positions that the head is applied to.
        adapters: weights of low-rank adapters.
    """
    read = [sequence_length(prompt, completion) for prompt, completion in lengths]
    tokens, full, near = sum(read), sum(map(contexts, read)), 0
    if a.windowed:
        near = sum(contexts(n, a.window) for n in read)
    seen = (a.layers - a.windowed) * full + a.windowed * near
    return Flops(
        linear=2.0 * a.linear * tokens,
        attention=4.0 * a.heads * a.head_dim * seen,  # queries times keys, and weights times values
        head=2.0 * a.hidden * a.vocab * rows,
        adapters=2.0 * adapters * tokens,
    )


def backward(f: Flops, *, frozen: bool = False, checkpointing: bool = False) -> float:
    """Operations of the way back, from those of the way there.

    The gradient of a product has two products, one for each factor. A `frozen` base under adapters needs no gradient
    of its weights. With gradient checkpointing the body, not the head, is run forward once more: torch leaves out the
    last product of every layer, so that this is some percent too much.
    """
    products = 1 if frozen else 2
    again = f.linear + f.attention + f.adapters if checkpointing else 0.0
    return products * (f.linear + f.head) + 2 * (f.attention + f.adapters) + again


def contexts(tokens: int, window: int | None = None) -> int:
    """Sum over a sequence of how many tokens each one looks at: 1 + 2 + ..., no more than `window` each."""
    short = tokens if window is None else min(tokens, window)
    return short * (short + 1) // 2 + (tokens - short) * short
