"""What both engines ask of a checkpoint before they load it, and of the weights that they are handed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from opd.models.facts import Facts, check_ids, read_facts, too_long
from opd.types import Pretrained, Prompt, Sampling, UserError, Weights

if TYPE_CHECKING:
    from torch import Tensor


def facts_for(model: Pretrained, max_len: int) -> Facts:
    """Read the facts of a model that is to read `max_len` tokens; no weight is read.

    Raises:
        UserError: There is no such checkpoint, it is not a causal language model, or it cannot read so many.
    """
    facts = read_facts(model)
    if facts.context is not None and max_len > facts.context:
        raise UserError(
            f"rollout: max_len is {max_len}, but {too_long(repr(model.path), facts.context, facts.moving)}; lower "
            "data.max_prompt_tokens, eval.max_tokens or sampling.max_tokens, of which it is made"
        )
    return facts


def check_room(prompts: Sequence[Prompt], sampling: Sampling, max_len: int, facts: Facts) -> None:
    """See that no completion could outgrow the engine, and that the model has all tokens of the prompts.

    Raises:
        UserError: The longest prompt and `max_tokens` together are more than the `max_len` of the engine's start, or an
            id is none of the model's.
    """
    largest = max((max(prompt.tokens, default=0) for prompt in prompts), default=0)
    check_ids(next(iter(facts.architectures), "the model"), largest, facts.vocabulary)
    longest = max((len(prompt.tokens) for prompt in prompts), default=0)
    if longest + sampling.max_tokens > max_len:
        given = f"a prompt of {longest} tokens and max_tokens={sampling.max_tokens}"
        raise UserError(f"rollout: {given} are more than the {max_len} tokens that the engine was started for")


def complete(weights: Weights, facts: Facts) -> Iterator[tuple[str, Tensor]]:
    """Pass `weights` on without a tied output head, and see that none is missing.

    Raises:
        ValueError: There were fewer weights than the model has, so that old and new ones are mixed now.
    """
    given = 0
    for name, tensor in weights:
        if name not in facts.tied:
            given += tensor.numel()
            yield name, tensor
    if given < facts.parameters:
        raise ValueError(f"rollout: {given} weights were pushed into a model of {facts.parameters}")
