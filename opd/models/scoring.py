"""Judging given tokens with a model in parts, without a graph: packed, and the head in chunks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opd.batch import pack_sequences
from opd.models.heads import SplitModel, chunks, gather_logprobs
from opd.tensors import Packed
from opd.types import TokenPair


@torch.no_grad()
def score_packed(
    split: SplitModel, packed: Packed, temperature: float = 1.0, vocabulary: int | None = None, top_k: int = 0
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Judge packed tokens without a graph, the head in chunks.

    Returns:
        Log-probs [N] of the tokens, the hidden states [N, H] that predict them, and, with `top_k`, the ids and the
        log-probs [N, k] of the likeliest tokens there.
    """
    hidden = split.predicting(packed)
    tokens = packed.tokens.to(hidden.device)
    parts, ids, values = [hidden.new_zeros(0, dtype=torch.float32)], [], []
    for c in chunks(len(tokens), split.head.weight):
        logits = split.logits(hidden[c], vocabulary) / temperature
        parts.append(gather_logprobs(logits, tokens[c]))
        if top_k:
            best = logits.topk(min(top_k, logits.shape[1]), dim=-1)
            ids.append(best.indices)
            values.append(best.values - logits.logsumexp(-1, keepdim=True))
    return torch.cat(parts), hidden, (torch.cat(ids), torch.cat(values)) if ids else ()


def score_sequences(
    split: SplitModel, sequences: Sequence[TokenPair], micro_tokens: int = 4096, temperature: float = 1.0
) -> list[list[float]]:
    """Teacher-forced log-probs of each completion after its prompt, packed by length, in the order given."""
    out: list[list[float]] = [[] for _ in sequences]
    for packed in split.passes(pack_sequences(sequences, 0, micro_tokens, shared=split.shared)):
        values = score_packed(split, packed, temperature)[0].tolist()
        for i in packed.sequences:
            n = len(sequences[i][1])
            out[i], values = values[:n], values[n:]
    return out
