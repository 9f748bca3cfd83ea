"""How a model is set to be trained: as it is in evaluation, in which nothing is drawn at a forward pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from opd.types import UserError

RATES = re.compile(r"drop(?!less)|jitter|noise", re.IGNORECASE)
"""How modules call the rates of what they draw."""
TOKENS = 64


def to_train(model: Any) -> None:
    """Set a model to be trained: the policy that learns is the one that was sampled, in any architecture.

    Train mode would switch on dropout, router noise, sampled experts. All that training needs of it are layers that
    are computed again on the way back, and the dropout of adapters, which somebody asked for.
    """
    model.eval()
    for name, module in model.named_modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True  # of this module alone
        if ".lora_dropout." in name:
            module.train()


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Inside, a model is set to be evaluated; afterwards each of its modules is set as it was."""
    trained = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True


def check_mode(model: Any) -> None:
    """See that a model without adapters computes the same set to be trained as in evaluation.

    Rates that the layers which are computed again hold themselves are set to 0; they are the ones in train mode.

    Raises:
        UserError: It does not, evaluation itself draws, or it cannot be computed at all.
    """
    name = type(model).__name__
    try:
        still = _logits(model.eval())
        to_train(model)
        for module in model.modules():
            if module.training:
                _silence(module)
        moving = [_logits(model) for _ in range(2)]
    except Exception as e:
        why = f"{type(e).__name__}: {(str(e).strip() or 'no reason given').splitlines()[0]}"
        raise UserError(f"the architecture {name} does not compute with these settings ({why})") from e
    bound = 1e-3 * max(1.0, still.abs().max().item())
    if not all(torch.allclose(logits, still, atol=bound, equal_nan=True) for logits in moving):
        raise UserError(
            f"the architecture {name} computes other log-probs in training than in evaluation: what is "
            "trained would not be what was sampled; student.gradient_checkpointing=false may help"
        )


def _silence(module: nn.Module) -> None:
    for name, value in list(vars(module).items()):
        if isinstance(value, float) and value > 0 and RATES.search(name):
            setattr(module, name, 0.0)


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    head = model.get_output_embeddings().weight
    ids = torch.arange(TOKENS, device=head.device).remainder(head.shape[0] - 1)[None]
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float()
