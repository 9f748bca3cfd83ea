"""What the student of now says of tokens that an older one may have written."""

from __future__ import annotations

import torch
from torch import Tensor

from opd.models import heads
from opd.tensors import Batch


@torch.no_grad()
def current_logprobs(split: heads.SplitModel, batch: Batch, temperature: float) -> Tensor:
    """`log pi` of the weights as they are, float32 [B, T] on the CPU, at the temperature of sampling; no graph.

    Of the tokens that this step trains; 0 at all others. Costs a forward pass.
    """
    table = torch.zeros_like(batch.completions.policy_logprobs)
    flat = table.flatten().to(split.head.weight.device)
    for micro in split.passes(batch.micro):
        split.check(micro)
        hidden, where, tokens = split.predicting(micro), micro.where.to(flat.device), micro.tokens.to(flat.device)
        for c in heads.chunks(len(tokens), split.head.weight):
            flat[where[c]] = heads.gather_logprobs(split.logits(hidden[c]) / temperature, tokens[c])
    return flat.cpu().view_as(table)
