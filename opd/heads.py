"""A causal language model taken apart: the body that gives hidden states, and the output head applied in chunks.

Full `[B, T, V]` logits are never made: only the rows that predict a trained token meet the head, a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opd.batch import pack_sequences
from opd.types import Packed, TokenPair, UserError

CHUNK_ELEMENTS = 2**24
"""Logits that exist at once: 64 MiB in float32."""


@dataclass(frozen=True)
class SplitModel:
    """A transformers causal LM as body and head."""

    model: Any
    body: Any
    head: nn.Linear
    scale: float
    """What the architecture multiplies its logits with (Granite, Cohere); 1 for most."""
    softcap: float | None
    """`softcap * tanh(logits / softcap)` where the architecture asks for it (Gemma 2)."""

    def hidden(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Last hidden states, flattened: [R, L] ids -> [R*L, H]. Sequences packed in a row do not see each other."""
        if str(self.model.config._attn_implementation).startswith("flash"):
            # Flash attention takes packed sequences as one long row.
            input_ids, position_ids = input_ids.view(1, -1), position_ids.view(1, -1)
        out = self.body(input_ids=input_ids, position_ids=position_ids, use_cache=False)
        hidden: Tensor = out.last_hidden_state
        return hidden.flatten(0, 1)

    def logits(self, hidden: Tensor, vocabulary: int | None = None) -> Tensor:
        """Float32 logits [N, V] of hidden states [N, H], cut to the first `vocabulary` columns."""
        return head_logits(hidden, self.head.weight, self.head.bias, self.scale, self.softcap, vocabulary)


def head_logits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    vocabulary: int | None = None,
) -> Tensor:
    """Float32 logits of hidden states [N, H] under a head [V, H]; the product runs in the dtype of `hidden`."""
    if vocabulary is not None and vocabulary < weight.shape[0]:
        weight, bias = weight[:vocabulary], None if bias is None else bias[:vocabulary]
    if not torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(weight.dtype)
    logits = nn.functional.linear(hidden, weight, bias).float()
    logits = logits if scale == 1.0 else logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def split_model(model: Any) -> SplitModel:
    """Take a model apart, and check on a few tokens that body and head give the model's own logits.

    Raises UserError for an architecture whose logits are made in some other way.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config.get_text_config()
    scale = 1.0 / getattr(config, "logits_scaling", 1.0) * getattr(config, "logit_scale", 1.0)
    head = inner.get_output_embeddings()
    split = SplitModel(model, inner.get_decoder(), head, scale, getattr(config, "final_logit_softcapping", None))
    ids = torch.arange(8, device=head.weight.device).remainder(head.weight.shape[0])[None]
    positions = torch.arange(8, device=ids.device)[None]
    training = model.training
    with torch.no_grad():
        model.eval()
        own = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0].float()
        ours = split.logits(split.hidden(ids, positions))
        model.train(training)
    if not torch.allclose(own, ours, atol=1e-3 * max(1.0, own.abs().max().item())):
        name = type(inner).__name__
        raise UserError(
            f"the architecture {name} makes its logits in a way that is not known here; no model was changed"
        )
    return split


def chunks(total: int, vocabulary: int) -> Iterator[slice]:
    """Slices over `total` rows such that a chunk's logits stay near CHUNK_ELEMENTS."""
    size = max(16, CHUNK_ELEMENTS // max(1, vocabulary))
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def gather_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probs [N] of `tokens` [N] under float32 `logits` [N, V]."""
    return logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(-1)


@torch.no_grad()
def score_packed(
    split: SplitModel, packed: Packed, temperature: float = 1.0, vocabulary: int | None = None, top_k: int = 0
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Judge packed tokens without a graph, the head in chunks.

    Returns:
        Log-probs [N] of the tokens, the hidden states [N, H] that predict them, and, with `top_k`, the ids and the
        log-probs [N, k] of the likeliest tokens there.
    """
    device = split.head.weight.device
    hidden = split.hidden(packed.input_ids.to(device), packed.position_ids.to(device))[packed.rows.to(device)]
    tokens = packed.tokens.to(device)
    parts, ids, values = [], [], []
    for c in chunks(len(tokens), split.head.weight.shape[0]):
        logits = split.logits(hidden[c], vocabulary) / temperature
        parts.append(gather_logprobs(logits, tokens[c]))
        if top_k:
            best = logits.topk(min(top_k, logits.shape[1]), dim=-1)
            ids.append(best.indices)
            values.append(best.values - logits.logsumexp(-1, keepdim=True))
    return torch.cat(parts), hidden, (torch.cat(ids), torch.cat(values)) if top_k else ()


def score_sequences(
    split: SplitModel, sequences: Sequence[TokenPair], micro_tokens: int = 4096, temperature: float = 1.0
) -> list[list[float]]:
    """Teacher-forced log-probs of each completion after its prompt, packed by length, in the order given."""
    out: list[list[float]] = [[] for _ in sequences]
    for packed in pack_sequences(sequences, 0, micro_tokens):
        values = score_packed(split, packed, temperature)[0].tolist()
        for i in packed.sequences:
            n = len(sequences[i][1])
            out[i], values = values[:n], values[n:]
    return out
