"""Reading models and tokenizers, with errors that say which one could not be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from opd.protocols import ModelSource
from opd.types import UserError


def resolve_model(model: str | ModelSource) -> str:
    """Folder or hub name of a model, made on first use where it is a source."""
    return model if isinstance(model, str) else model.path()


def pick_device(device: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_causal_lm(path: str, dtype: torch.dtype, attention: str, device: torch.device, trust_remote_code: bool) -> Any:
    """Load a transformers causal LM; UserError where there is none at `path`."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # the console says what is being loaded
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, attn_implementation=attention, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as e:
        raise UserError(f"no causal language model could be loaded from {path!r}: {str(e).splitlines()[0]}") from e
    return model.to(device)


def tokenizer_of(path: str | Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer beside a model; UserError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as e:
        raise UserError(f"no tokenizer could be loaded from {str(path)!r}: {str(e).splitlines()[0]}") from e


def stop_ids(path: str | Path, tokenizer: Any) -> tuple[int, ...]:
    """Every token id that ends a completion: those of the generation config, and the tokenizer's own EOS."""
    from transformers import GenerationConfig

    try:
        given = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # a model without a generation config has no further ones
        given = None
    ids = [] if given is None else [given] if isinstance(given, int) else list(given)
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return tuple(dict.fromkeys([*ids, *own]))
