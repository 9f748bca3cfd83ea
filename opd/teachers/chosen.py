"""What vLLM is asked for the log-probs of chosen tokens in a completion, and what is made of its answer.

Of the prompt nothing is sent back, and where several samples share it, it is read once: vLLM finds it in its prefix
cache, which it does not look into for plain `prompt_logprobs`. Since vLLM 0.32, by its V2 model runner (the default on
GPUs), where the server was started with `--enable-scale-out`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from opd.teachers.local import FLOOR
from opd.teachers.said import ENVELOPE, Generated, read
from opd.types import ROUNDING, UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

CHOSEN = "/inference/v1/generate"
NUMBER = 64
"""Bytes of a number in the answer: float32 in base64 has six."""


def most_chosen(numbers: int) -> int:
    """How many bytes an answer may have that has so many log-probs."""
    return ENVELOPE + numbers * NUMBER


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


def chosen(answer: bytes, places: int, columns: int) -> Tensor | None:
    """The log-probs, float32 [T, n]; None where the server had read some of the places before, and left them out.

    Raises:
        UserError: it is some other answer.
    """
    import torch

    text = read(Generated, answer).prompt_token_id_logprobs
    if text is None:
        return None
    try:
        found = _array(base64.b64decode(text), (places, columns))
    except ValueError as e:
        raise UserError(
            f"teacher.url: the server's answer has no log-probs of the {places} x {columns} tokens that were asked "
            f"for: {e}"
        ) from e
    if not found.max() <= ROUNDING:  # NaN is not either
        raise UserError("teacher.url: the server gives log-probs of chosen tokens that are none; restart it")
    return torch.from_numpy(found).clamp(min=FLOOR, max=0.0)


def _array(data: bytes, shape: tuple[int, int]) -> np.ndarray:
    """The floating-point numbers of a numpy file of this shape, as float32; ValueError where it is none.

    Nothing is allocated by what the file says of itself.
    """
    import numpy as np

    with io.BytesIO(data) as file:
        try:
            np.lib.format.read_magic(file)
            found, turned, dtype = np.lib.format.read_array_header_1_0(file)
        except Exception as e:  # numpy reads the header as Python's literals, which fail in their own ways
            raise ValueError("it is no array") from e
        if found != shape or turned or dtype.kind != "f":
            raise ValueError(f"it has {str(list(found))[:60]} of {dtype}")
        numbers = np.frombuffer(file.read(), dtype=dtype)
    return numbers.reshape(shape).astype(np.float32)
