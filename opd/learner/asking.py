"""What an objective is asked for, and whether it has given that: what is not one value of each token is refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from opd.protocols import Objective
from opd.tensors import Completions, Tokens, each
from opd.types import PartError


def advantages_of(objective: Objective, completions: Completions, device: torch.device) -> Any:
    """The advantages of a step's tokens, in one row; PartError where they are not those of [B, T]."""
    batch = completions.mask.shape

    def flat(given: Any) -> Tensor:
        if not isinstance(given, Tensor) or given.shape[:2] != batch:
            raise PartError(
                f"objective: {type(objective).__name__}.advantages gave {_shown(given)}; allowed is a tensor of "
                f"{list(batch)}, a value for each token of each completion"
            )
        return given.flatten(0, 1).to(device)

    return each(flat, objective.advantages(completions))


def losses_of(objective: Objective, tokens: Tokens) -> Tensor:
    """The losses of a chunk's tokens; PartError where they are not one of each, or nothing can be learned from them."""
    given: Any = objective.loss(tokens)
    if not isinstance(given, Tensor) or given.shape != tokens.logprobs.shape or not given.requires_grad:
        learned = "" if getattr(given, "requires_grad", True) else " without a graph"
        raise PartError(
            f"objective: {type(objective).__name__}.loss gave {_shown(given)}{learned}; allowed is a tensor of "
            f"{list(tokens.logprobs.shape)}, the loss of each token, not their sum or mean, with a graph to "
            "tokens.logprobs or tokens.logits"
        )
    return given


def _shown(given: Any) -> str:
    return f"a tensor of {list(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
