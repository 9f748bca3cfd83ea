"""What the student of now says of tokens that an older one may have written."""

from __future__ import annotations

from dataclasses import replace

import torch

from opd.models import heads
from opd.tensors import Batch, Completions


@torch.no_grad()
def judged_now(split: heads.SplitModel, batch: Batch, temperature: float, entropy: bool) -> Completions:
    """The step's completions with `log pi` of the weights as they are, and their `entropy` if asked for.

    Both float32 [B, T] on the CPU, at the temperature of sampling, of the tokens that this step trains; 0 at all
    others. No graph. Costs a forward pass.
    """
    shape, size = batch.completions.mask.shape, batch.completions.mask.numel()
    flat, spread = (torch.zeros(size, device=split.head.weight.device) for _ in range(2))
    for micro in split.passes(batch.micro):
        split.check(micro)
        hidden, where, tokens = split.predicting(micro), micro.where.to(flat.device), micro.tokens.to(flat.device)
        for c in heads.chunks(len(tokens), split.head.weight):
            logits = split.logits(hidden[c]) / temperature
            flat[where[c]], normalizers = heads.normalized(logits, tokens[c])
            if entropy:
                spread[where[c]] = normalizers - ((logits - normalizers[:, None]).exp_() * logits).sum(-1)
    now, entropies = (table.cpu().view(shape) for table in (flat, spread))
    return replace(batch.completions, current_logprobs=now, current_entropy=entropies if entropy else None)
