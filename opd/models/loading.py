"""Reading models and tokenizers: the one place that does, with errors that say which one could not be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from logging import ERROR, Filter, LogRecord
from pathlib import Path
from typing import Any

import torch

from opd.models.finite import not_finite
from opd.models.kinds import check_kinds
from opd.models.reading import reading
from opd.text.bounded import Runaway
from opd.text.script import MARK, Script
from opd.types import Message, Pretrained, UserError


class Errors(Filter):
    """Lets no warnings through."""

    def filter(self, record: LogRecord) -> bool:
        """Whether it is an error."""
        return record.levelno >= ERROR


ERRORS = Errors()


def load_config(model: Pretrained, **options: Any) -> Any:
    """The transformers config of a model; UserError where there is none."""
    from transformers import AutoConfig

    with reading("causal language model", model):
        return AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code, **options)


def skeleton(model: Pretrained, config: Any) -> Any:
    """The model's modules without its weights, on the meta device; UserError where it is no causal language model."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with reading("causal language model", model), torch.device("meta"):
        return auto.from_config(config, trust_remote_code=model.trust_remote_code)


def load_causal_lm(
    model: Pretrained,
    dtype: torch.dtype | str,
    attention: str = "auto",
    device: torch.device | None = None,
    **options: Any,
) -> Any:
    """Load a transformers causal LM.

    Args:
        model: Which one.
        dtype: Of its weights; `auto` is that of the checkpoint.
        attention: transformers' implementation; `auto` lets it choose.
        device: Where to put it; None leaves it where `options` or transformers do.
        options: Further arguments of `from_pretrained`.

    Raises:
        UserError: There is none, it cannot be read, weights are missing, not finite or of whole numbers, or its
            config and they contradict each other.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    auto: Any = AutoModelForCausalLM
    logging.disable_progress_bar()  # the console says what is being loaded
    # Its level stays: where that is high, transformers looks for what tensor parallelism, of which there is none, left.
    logging.get_logger("transformers.modeling_utils").addFilter(ERRORS)  # what it warns of is refused below
    with reading("causal language model", model):
        loaded, read = auto.from_pretrained(
            model.path,
            dtype=dtype,
            attn_implementation=None if attention == "auto" else attention,
            trust_remote_code=model.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **options,
        )
        own = loaded.state_dict()
        check_names(read, own, model)
        fractions = {name for name, tensor in own.items() if tensor.is_floating_point()}
        check_kinds(Path(model.path), fractions, getattr(loaded.config, "quantization_config", None) is not None)
        check_finite(own.items(), model.path)
        _check_head(loaded, model)
        _settle_generation(loaded)
        return loaded if device is None else loaded.to(device)


def tokenizer_of(model: Pretrained) -> Any:
    """The tokenizer beside a model; UserError where there is none."""
    from transformers import AutoTokenizer

    with reading("tokenizer", model):
        found = AutoTokenizer.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
        found("a")  # settings that it cannot work with are not looked at before
        if set(found.get_vocab().values()) <= set(found.all_special_ids):  # made of no file at all
            raise UserError(f"{model.path!r} has no tokenizer.json, or none with a vocabulary; copy that of its base")
        return found


def stop_ids(model: Pretrained, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends a completion: the generation config's, the tokenizer's EOS, its template's ends of turns.

    Raises:
        UserError: The generation config cannot be read, or names something else than ids.
    """
    given = _generation(model).eos_token_id
    ids = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    if odd := [i for i in ids if type(i) is not int or i < 0]:
        raise UserError(
            f"{model.path!r}: its generation_config.json or config.json has {odd[0]!r} as eos_token_id; allowed is the "
            "id of a token, or a list of ids"
        )
    own = [i for i in (tokenizer.eos_token_id, turn_end(tokenizer), call_end(tokenizer)) if i is not None]
    return tuple(dict.fromkeys([*ids, *own]))


def _generation(model: Pretrained) -> Any:
    """The generation config beside a model, or what its config says of generation; empty beside a lone tokenizer."""
    from transformers import GenerationConfig

    with reading("generation config", model):
        try:
            return GenerationConfig.from_pretrained(model.path)
        except OSError as error:
            if "JSON" in str(error):  # it is there, and is none
                raise
    with suppress(UserError):
        return GenerationConfig.from_model_config(load_config(model))
    return GenerationConfig()


def turn_end(tokenizer: Any) -> int | None:
    """The special token that the chat template ends an assistant's turn with; None where there is none.

    A base model that carries its family's template has another EOS (Qwen3-8B-Base: end of text, not end of turn), and
    would write on after its answer.
    """
    alone, replied = _written(tokenizer, {"role": "assistant", "content": MARK}, {"role": "user", "content": "a"})
    for text in (alone, replied):  # where no turn is ended, the role of the next one does it (GLM)
        if after := text.rpartition(MARK)[2].strip():
            return _special(tokenizer, after, 0)
    return None


def call_end(tokenizer: Any) -> int | None:
    """The special token that the chat template ends a call of tools with, such as gpt-oss' `<|call|>`; else None.

    What ends an answer need not end a call, and a student that writes on would answer itself in the tool's place.
    """
    call = {"id": "0" * 9, "type": "function", "function": {"name": MARK, "arguments": {}}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    reply = {"role": "tool", "content": "a", "name": MARK, "tool_call_id": "0" * 9}
    alone, replied = (text.rstrip() for text in _written(tokenizer, turn, reply))
    if not alone or not replied.startswith(alone):
        return None
    end = _special(tokenizer, alone.rpartition(MARK)[2], -1)
    return _special(tokenizer, replied.removeprefix(alone).lstrip(), 0) if end is None else end


def _written(tokenizer: Any, turn: Message, reply: Message) -> tuple[str, str]:
    """A turn with the mark in it as the last one, and replied to; empty where the template does not write it."""
    tool = {"type": "function", "function": {"name": MARK, "description": "", "parameters": {"type": "object"}}}
    script, turns = Script(tokenizer), [{"role": "user", "content": "a"}, turn]
    for tools in ((), (tool,)):  # there are templates that are for tools alone
        if script.chat:
            try:
                alone, replied = script.write(turns, tools), script.write([*turns, reply], tools)
            except Runaway:
                raise
            except UserError:
                continue
            if MARK in alone and MARK in replied:
                return alone, replied
    return "", ""


def _special(tokenizer: Any, text: str, at: int) -> int | None:
    """The id at one end of a text, where it is of a special token."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    token = tokenizer.added_tokens_decoder.get(ids[at]) if ids else None
    return ids[at] if token is not None and token.special else None


def check_names(read: Mapping[str, Any], own: Iterable[str], model: Pretrained) -> None:
    """Refuse a model of which transformers did not find all weights: it draws what is missing, anew at each load.

    It also leaves out what its config has no place for. That is refused where the architecture has such weights, in
    other layers or beside others of the same module; what else lies there, such as a tower for images, is not read.
    """
    if wrong := sorted(read["mismatched_keys"]):
        name, found, wanted = wrong[0]
        raise UserError(
            f"{model.path!r}: its weights have {name} as {list(found)}, and its config asks for {list(wanted)}"
            f"{_more(len(wrong))}; its config.json and its weights are of two models"
        )
    if missing := sorted(read["missing_keys"]):
        others = "".join(
            f"; there is {name}, which it has no place for" for name in sorted(read["unexpected_keys"])[:1]
        )
        raise UserError(
            f"{model.path!r}: its weights lack {missing[0]}{_more(len(missing))}{others}; take a complete copy, or the "
            "config.json that belongs to them"
        )
    modules = {_module(name) for name in own}
    if odd := sorted(name for name in read["unexpected_keys"] if _module(name) in modules):
        raise UserError(
            f"{model.path!r}: its weights have {odd[0]}{_more(len(odd))}, and its config has no place for that; its "
            "config.json and its weights are of two models"
        )


def _module(name: str) -> str:
    """The module that a weight is of, whatever layer it is in."""
    return re.sub(r"\.\d+\.", ".0.", name).rpartition(".")[0]


def check_finite(named: Iterable[tuple[str, Any]], model: str) -> None:
    """Refuse weights that are NaN or infinite, by name: they may be where no check of a few tokens looks."""
    if problem := not_finite(named):
        raise UserError(f"{model!r}: {problem} is not finite; take another copy of the model")


def _more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""


def _check_head(loaded: Any, model: Pretrained) -> None:
    """Refuse a head of its own under a config that says it is the embedding: other programs would leave it out."""
    said = getattr(loaded.config.get_text_config(), "tie_word_embeddings", False)
    if said and getattr(type(loaded), "_tied_weights_keys", None) and not loaded.all_tied_weights_keys:
        raise UserError(
            f"{model.path!r}: its config says that output head and embedding are one tensor (tie_word_embeddings), "
            "and its weights hold two that differ; set tie_word_embeddings to false in its config.json"
        )


def _settle_generation(loaded: Any) -> None:
    """Make the generation config one that can be written: transformers reads more than it saves.

    Mostly it holds values of sampling without `do_sample`; of any other only the token ids are kept.
    """
    own = loaded.generation_config
    if own is None or _writable(own):
        return
    own.do_sample = True
    if not _writable(own):
        loaded.generation_config = type(own)(**{k: v for k, v in own.to_dict().items() if k.endswith("_token_id")})


def _writable(generation: Any) -> bool:
    with suppress(ValueError):
        generation.validate(strict=True)
        return True
    return False
