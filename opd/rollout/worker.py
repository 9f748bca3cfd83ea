"""What is added to vLLM's workers that are processes of their own: vLLM imports this there before it makes a model."""

from __future__ import annotations

from typing import Any

from opd.rollout.apart.kept import Entry, Place, Reader
from opd.rollout.vllm_mends import flatten_heads, forget_ranks, renew_heads, renew_kernels

flatten_heads()
forget_ranks()  # here, as vLLM offers no later place that is before the model


class Taking:
    """Part of a worker: it takes weights from memory that processes share, and keeps its part of each."""

    def opd_take(self: Any, places: list[Place], index: list[Entry]) -> None:
        """Replace its weights by those that lie there."""
        reader = vars(self).setdefault("opd_reader", Reader())
        renew_kernels(self)
        self.reload_weights(weights_iterator=reader.read(places, index))
        renew_heads(self)
