"""Floating-point operations of a transformer, counted from its architecture and the lengths of what it really read.

A multiplication and an addition are two operations. Counted are matrix products: linear layers (of experts those that
a token is sent to), attention (each token with those up to itself, as a causal mask leaves it), and the output head on
the rows that it is applied to. Norms, softmax, rotations, losses and the optimizer are left out, which are below a
percent in models of any size.

What an architecture multiplies is not read from the names of its sizes, which every family has its own of: torch's
counter watches the network itself, built without weights, read three sequences. Their operations must be
`2 * linear * tokens + attention * tokens ** 2` exactly. Where they are not (convolutions, recurrences), and where no
mask is known that leaves a part of the square out, `Architecture.of` says None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from opd.batch import sequence_length
from opd.devices.shortage import shortage

Lengths = tuple[int, int]
"""Tokens of a prompt and of its completion."""
PROBES = (5, 10, 17)
"""Tokens of the sequences that are read: n, 2n, and one that no chunk of a recurrence divides."""
KINDS = {"full_attention", "sliding_attention"}
SPARSE = ("index_topk", "sparse_attention_config", "attention_chunk_size", "attention_window", "window_size")
"""Sizes in configs of models whose tokens look at others than the last ones, or all."""


@dataclass(frozen=True)
class Architecture:
    """What the body and the head of a decoder multiply."""

    linear: int
    """Weights that a token is multiplied with in all linear layers but the head: of experts, in those chosen for it."""
    attention: int
    """Operations of a token with each one that it looks at, in all layers together that look at all."""
    near: int
    """The same of the layers with sliding attention."""
    window: int
    """Tokens that those look at, itself included; 0 where there are none."""
    head: int
    """Weights of the output head."""

    @classmethod
    def of(cls, config: Any, build: Callable[[Any], Any] | None = None) -> Architecture | None:
        """Count what a model of a transformers config does; None where not all of it can be counted.

        A second or two for large models, and once for each config; no weights are made.

        Args:
            config: of the model.
            build: makes the model, its class for one that transformers does not have; None: transformers knows it.
        """
        from transformers import AutoModelForCausalLM

        return _of(_Network(config.to_json_string(use_diff=False), build or AutoModelForCausalLM.from_config, config))


@dataclass(frozen=True)
class _Network:
    """A config by what it says, as configs have no hash."""

    text: str
    build: Callable[[Any], Any]
    config: Any = field(compare=False)


@cache
def _of(network: _Network) -> Architecture | None:
    config = deepcopy(network.config)
    # Products that the counter sees: fused kernels hide theirs, and experts must not wait for what the router says.
    config._attn_implementation, config._experts_implementation = "eager", "batched_mm"
    try:
        with torch.device("meta"):
            return measure(network.build(config).eval())
    except Exception as error:  # whatever a network does that cannot be done without weights: they are not known
        if shortage(error):
            raise
        return None


def measure(model: Any) -> Architecture | None:
    """Count the operations of a model on the meta device; None where they are not those of layers and attention."""
    c, body = model.config.get_text_config(), model.get_decoder()
    window = getattr(c, "sliding_window", None) or 0
    kinds = getattr(c, "layer_types", None) or getattr(c, "attention_layers", None) or ["sliding_attention"]
    if not KINDS.issuperset(kinds) or any(getattr(c, name, None) for name in SPARSE):
        return None
    n = PROBES[0]
    once, twice, odd = (operations(body, tokens) for tokens in PROBES)

    def pairs(module: str) -> int:
        return (twice[module] - 2 * once[module]) // (2 * n**2)

    attention = pairs("")
    linear = (once[""] - attention * n**2) // n
    if attention <= 0 or odd[""] != linear * PROBES[2] + attention * PROBES[2] ** 2:
        return None
    near = 0
    if window and len(set(kinds)) > 1:  # a layer's heads may be others where it has a window
        near = sum(pairs(f"layers.{i}") for i, kind in enumerate(kinds) if kind == "sliding_attention")
    elif window and "sliding_attention" in kinds:
        near = attention
    head = model.get_output_embeddings().weight.numel()
    return Architecture(linear // 2, attention - near, near, window if near else 0, head)


@torch.no_grad()
def operations(body: Any, tokens: int) -> dict[str, int]:
    """Operations of reading one sequence, by the name of the module that does them; all of them under no name."""
    ids = torch.zeros(1, tokens, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        body(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    counted = {name.partition(".")[2]: sum(kinds.values()) for name, kinds in counter.get_flop_counts().items()}
    return counted | {"": counter.get_total_flops()}


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


def forward(a: Architecture, lengths: Iterable[Lengths], rows: int, adapters: float = 0) -> Flops:
    """Read prompts with their completions, all but each last token, which predicts nothing.

    Sampling a completion costs the same as reading it, as every token goes through the model once.

    Args:
        a: who reads.
        lengths: of what it reads.
        rows: positions that the head is applied to.
        adapters: weights of low-rank adapters.
    """
    read = [sequence_length(prompt, completion) for prompt, completion in lengths]
    tokens, full, near = sum(read), sum(map(contexts, read)), sum(contexts(n, a.window) for n in read)
    return Flops(
        linear=2.0 * a.linear * tokens,
        attention=float(a.attention * full + a.near * near),
        head=2.0 * a.head * rows,
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
