"""What vLLM is asked for the log-probs of chosen tokens in a completion, and what is made of its answer.

Of the prompt nothing is sent back, and where several samples share it, it is read once: vLLM finds it in its prefix
cache, which it does not look into for plain `prompt_logprobs`. Since vLLM 0.32, by its V2 model runner (the default on
GPUs), where the server was started with `--enable-scale-out`.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from opd.teachers.local import FLOOR
from opd.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

CHOSEN = "/inference/v1/generate"


def ask_chosen(
    model: str, prompt: Sequence[int], completion: Sequence[int], columns: Sequence[Sequence[int]], cached: bool = True
) -> dict[str, Any]:
    """Body of a request for the log-probs of tokens in the places of a completion's.

    Args:
        model: the name that it is served under.
        prompt: at least one id.
        completion: T ids.
        columns: for each of the T places the ids that are asked for, equally many.
        cached: whether what the server has read before may be left out.
    """
    return {
        "model": model,
        "token_ids": [*prompt, *completion],
        "sampling_params": {
            "max_tokens": 1,  # it cannot but write one
            "temperature": 0.0,
            "detokenize": False,
            "prompt_logprob_token_ids": [list(row) for row in columns],
            "prompt_logprob_start": len(prompt) - 1,  # this position predicts the first token of the completion
            "skip_reading_prefix_cache": not cached,
        },
    }


def chosen(answer: Any, places: int, columns: int) -> Tensor | None:
    """The log-probs, float32 [T, n]; None where the server had read some of the places before, and left them out.

    Raises:
        UserError: it is some other answer.
    """
    import numpy as np
    import torch

    try:
        text = answer["prompt_token_id_logprobs"]
        if text is None:
            return None
        found = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    except (KeyError, TypeError, ValueError, binascii.Error, EOFError) as e:
        raise UserError("teacher.url: the server's answer has no log-probs of the tokens that were asked for") from e
    if found.shape != (places, columns) or np.isnan(found).any():
        raise UserError(
            f"teacher.url: the server gives {list(found.shape)} log-probs of {places} x {columns} tokens, or no numbers"
        )
    return torch.from_numpy(found.astype(np.float32)).clamp(min=FLOOR)
