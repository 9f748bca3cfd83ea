"""A tokenizer as the metadata of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from opd.types import UserError

_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS = {_CUT.replace("NUMBER", r"\p{N}"): "qwen2", _CUT.replace("NUMBER", r"\p{N}{1,3}"): "llama-bpe"}
"""How a text is cut before it is merged, and llama.cpp's word for it: there it is code, not a setting."""


def check_tokenizer(tokenizer: Any, vocabulary: int, elsewhere: str) -> None:
    """Refuse a tokenizer that llama.cpp has no word for; `elsewhere`: what to do."""
    if cuts(tokenizer) is None:
        raise UserError(
            "--format=gguf: the way that this tokenizer cuts texts is none of those that are known here (byte-level "
            f"BPE of GPT-2, SmolLM, Qwen and Llama 3, or single ASCII characters); {elsewhere}"
        )
    if max(tokenizer.get_vocab().values()) >= vocabulary:
        raise UserError(
            f"--format=gguf: the tokenizer has tokens that the model, of {vocabulary}, has not; {elsewhere}"
        )


def cuts(tokenizer: Any) -> str | None:
    """llama.cpp's word for how a tokenizer cuts a text into what it merges; None where there is none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    whole = json.loads(backend.to_str())
    model, cut = whole["model"], whole["pre_tokenizer"] or {}
    if not model.get("merges"):  # every character for itself: it does not matter where the text is cut
        return "gpt-2" if _characters(tokenizer) and _each_alone(cut) else None
    parts = cut["pretokenizers"] if cut.get("type") == "Sequence" else [cut]
    last = parts[-1]
    if model.get("type") != "BPE" or last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return None
    alone = bool(model.get("ignore_merges"))
    match parts[:-1]:
        case [] if last["use_regex"] and not alone:
            return "gpt-2"
        case [{"type": "Digits", "individual_digits": True}] if last["use_regex"] and not alone:
            return "smollm"
        case [{"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}]:
            word = CUTS.get(regex)
            return word if not last["use_regex"] and alone == (word == "llama-bpe") else None
    return None


def add_tokenizer(writer: Any, tokenizer: Any, stop: Sequence[int], vocabulary: int) -> bool:
    """Add a tokenizer to what a `gguf.GGUFWriter` writes; whether it begins texts with a BOS."""
    import gguf

    own = {i: token for token, i in tokenizer.get_vocab().items()}
    added, spelled = tokenizer.added_tokens_decoder, not _merges(tokenizer)
    tokens, kinds = [], []
    for i in range(vocabulary):
        token = own.get(i, f"[PAD{i}]")
        kind = gguf.TokenType.NORMAL if i in own else gguf.TokenType.UNUSED
        if i in added:
            kind = gguf.TokenType.CONTROL if added[i].special else gguf.TokenType.USER_DEFINED
        elif spelled and i in own:
            token = _as_bytes(token)
        tokens.append(token)
        kinds.append(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cuts(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    # llama.cpp wants some: one of whole tokens, which it never meets while it merges characters, stands for none.
    writer.add_token_merges(_merges(tokenizer) or [f"{tokenizer.eos_token} {tokenizer.eos_token}"])
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(begins)
    writer.add_add_eos_token(False)
    also = next((i for i in stop if i != tokenizer.eos_token_id), None)
    own_ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, also, tokenizer.pad_token_id, tokenizer.unk_token_id)
    for word, i in zip(("bos", "eos", "eot", "pad", "unk"), own_ids, strict=True):
        if i is not None:
            getattr(writer, f"add_{word}_token_id")(i)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
    return bool(begins)


def _merges(tokenizer: Any) -> list[str]:
    found = json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("merges") or []
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in found]


def _characters(tokenizer: Any) -> bool:
    """Whether all tokens but special ones are single characters of one byte."""
    special = {*tokenizer.all_special_tokens, *(t.content for t in tokenizer.added_tokens_decoder.values())}
    return all(len(token) == 1 and token.isascii() for token in tokenizer.get_vocab() if token not in special)


def _each_alone(cut: Any) -> bool:
    """Whether characters are not taken together, or left out, before they are looked up."""
    return not cut or (
        cut.get("type") == "Split" and cut["pattern"] == {"Regex": "."} and cut["behavior"] == "Isolated"
    )


def _as_bytes(token: str) -> str:
    """A character as byte-level BPE spells it."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return "".join(bytes_to_unicode()[byte] for byte in token.encode())
