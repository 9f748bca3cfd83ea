"""How much of a device's peaks a run gets, and what no peak accounts for.

Those of a GPU are fitted to the four runs on one H200 that docs/gpus.md lists, those of a CPU to quickstart and SmolLM2
on one core of a server: they are typical, not exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from opd.plan.cards import Card


@dataclass(frozen=True)
class Rates:
    """Shares of peaks, and seconds beside them."""

    products: float
    """Of the peak FLOP/s, in forward and backward passes of models of any width."""
    decoding: float
    """Of the peak FLOP/s, in an engine."""
    half: float
    """Of both, in an engine and on the way back in 16 bits: packing, casts, products of gradients."""
    width: float
    """Hidden size at which products get half of their share: `width / (width + hidden)` of it is lost."""
    memory: float
    """Of the memory's bandwidth, where weights and caches are read."""
    elementwise: float
    """Of the memory's bandwidth, in norms, activations, casts and losses."""
    link: float
    """Of a link's bandwidth, in collectives."""
    step: float
    """Seconds that an engine spends on scheduling and sampling each token of a batch, whatever its size."""
    layer: float
    """Seconds of each layer in that, beside products and memory."""
    sequence: float
    """Seconds of each sequence in that: its own random numbers, its own log-prob."""
    tensor: float
    """Seconds of each tensor that is pushed."""


GPU = Rates(0.50, 0.50, 1.0, 1024, 0.80, 0.80, 0.70, step=1.5e-3, layer=0.0, sequence=12e-6, tensor=0.8e-3)
"""Decoding replays CUDA graphs, so that a layer costs nothing beside its memory."""
CPU = Rates(1.05, 1.30, 0.5, 40, 0.90, 0.30, 0.50, step=1.5e-3, layer=0.25e-3, sequence=35e-6, tensor=0.34e-3)
"""The peak that is measured is a training step's of 64 rows: longer ones and packed weights get more than that."""

OPERATIONS = 60
"""Small operations of a layer's forward pass; twice as many on the way back."""
WAYS = 5
"""Times that what a layer saves is written or read, there and back; two on the way there alone."""
OPTIMIZER = 32
"""Bytes that a step moves for each trained number: weight, gradient and two moments, and the gradient's norm."""


def sustained(card: Card, dtype: str, hidden: int, kind: Literal["read", "learn", "decode"]) -> float:
    """FLOP/s that a model of a width gets in products."""
    r = rates(card)
    share = r.decoding if kind == "decode" else r.products
    share *= 1.0 if kind == "read" or dtype == "float32" else r.half
    return share * card.flops(dtype) * hidden / (hidden + r.width)


def rates(card: Card) -> Rates:
    """Those of a kind of device."""
    return CPU if card.cpu else GPU
