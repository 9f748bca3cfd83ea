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
    """Every id that ends a completion: the generation config's, the tokenizer's EOS, its template's end of turn."""
    from transformers import GenerationConfig

    try:
        given = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # a model without a generation config has no further ones
        given = None
    ids = [] if given is None else [given] if isinstance(given, int) else list(given)
    own = [i for i in (tokenizer.eos_token_id, turn_end(tokenizer)) if i is not None]
    return tuple(dict.fromkeys([*ids, *own]))


def turn_end(tokenizer: Any) -> int | None:
    """The special token that the chat template ends an assistant's turn with; None where there is none.

    A base model that carries its family's template has another EOS (Qwen3-8B-Base: end of text, not end of turn), and
    would write on after its answer.
    """
    if not tokenizer.chat_template:
        return None
    said = "\ue000"  # no template writes this character
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": said}]
    text = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(said)[2].lstrip()
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"][:1]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return ids[0] if ids and ids[0] in special else None
