"""Which bytes does a token spell? Read from a tokenizer's own rules, as a decoded token need not be valid text.

Known are byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM2), SentencePiece-like tokenizers with a mark for the space and a
byte fallback (Llama 2, Gemma), and plain vocabularies whose tokens are joined (characters).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from opd.types import UserError

Spelling = Callable[[bytes], bytes]
FALLBACK = re.compile(rb"<0x([0-9A-Fa-f]{2})>")
KNOWN = "ByteFallback, ByteLevel, Fuse, Metaspace, Replace and Strip"


def piece_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes of every token id in the middle of a text, a SentencePiece token's leading space included.

    Special tokens, and ids that stand for nothing, have none: `b""`. Added tokens that are plain text have theirs.

    Raises:
        UserError: the tokenizer joins its tokens in a way that is not known.
    """
    return _piece_bytes(tokenizer, len(tokenizer))


@functools.lru_cache(maxsize=4)
def _piece_bytes(tokenizer: Any, size: int) -> list[bytes]:
    """Once for a tokenizer, as long as no token is added to it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"tokenizer {type(tokenizer).__name__}: only those of the tokenizers library can be spelt out")
    rules = json.loads(backend.to_str())
    steps = [_spelling(rule) for rule in _flat(rules["decoder"])]
    if not steps or rules["model"].get("end_of_word_suffix") or rules["model"].get("continuing_subword_prefix"):
        raise _unknown("with marks of words, or none")
    special = {t["id"] for t in rules["added_tokens"] if t["special"]} | set(tokenizer.all_special_ids)
    pieces = [b""] * (max(tokenizer.get_vocab().values(), default=-1) + 1)
    for token, i in tokenizer.get_vocab().items():
        if i in special:
            continue
        piece = token.encode()
        for step in steps:
            piece = step(piece)
        pieces[i] = piece
    return pieces


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    r"""What people see of each token: its text, or bytes as `\xNN` where it is a part of a character.

    A special token has its name, an id that stands for nothing its number.
    """
    try:
        pieces = piece_bytes(tokenizer)
    except UserError:  # a tokenizer that cannot be spelt out still decodes
        return [tokenizer.decode([i]) for i in ids]
    return [_text(tokenizer, pieces, i) for i in ids]


def _text(tokenizer: Any, pieces: Sequence[bytes], i: int) -> str:
    if i < len(pieces) and pieces[i]:
        return pieces[i].decode(errors="backslashreplace")
    return tokenizer.convert_ids_to_tokens(i) or f"[{i}]"


def continuation(tokenizer: Any, pieces: Sequence[bytes], text: str) -> tuple[list[int], list[bytes]]:
    """Tokenise `text` as what follows a prompt: ids without BOS, and the bytes of `text` that each of them spells.

    Many SentencePiece tokenizers put a space in front of a text, or behind an added token: no part of the text, it
    is taken off the bytes. Where the tokenizer changes the text in some other way the bytes are not the text's.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    data, at, spelt = text.encode(), 0, []
    for i in ids:
        piece = pieces[i]
        if not data.startswith(piece, at) and piece.startswith(b" ") and data.startswith(piece[1:], at):
            piece = piece[1:]
        spelt.append(piece)
        at += len(piece)
    return ids, spelt


def shared_tokens(ours: Any, our_pieces: Sequence[bytes], theirs: Any, their_pieces: Sequence[bytes]) -> dict[int, int]:
    """Ids of one tokenizer to those of another that spell the same bytes."""
    mine, other = _by_bytes(ours, our_pieces), _by_bytes(theirs, their_pieces)
    return {i: other[piece] for piece, i in mine.items() if piece in other}


def _by_bytes(tokenizer: Any, pieces: Sequence[bytes]) -> dict[bytes, int]:
    """The id of each piece; of several that spell the same, such as `A` and `<0x41>`, the one that texts get."""
    found: dict[bytes, int] = {}
    for i, piece in enumerate(pieces):
        if piece and found.setdefault(piece, i) != i:
            found[piece] = _canonical(tokenizer, piece, found[piece])
    return found


def _canonical(tokenizer: Any, piece: bytes, default: int) -> int:
    try:
        ids: list[int] = tokenizer(piece.decode(), add_special_tokens=False)["input_ids"]
    except UnicodeDecodeError:
        return default
    return ids[0] if len(ids) == 1 else default


def _flat(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The decoder's steps, in order."""
    if decoder is None:
        return
    if decoder["type"] != "Sequence":
        yield decoder
        return
    for step in decoder["decoders"]:
        yield from _flat(step)


def _spelling(rule: Mapping[str, Any]) -> Spelling:
    """What a step of a decoder does to one token."""
    match rule["type"]:
        case "ByteLevel":
            return _byte_level
        case "ByteFallback":
            return lambda piece: bytes.fromhex(m[1].decode()) if (m := FALLBACK.fullmatch(piece)) else piece
        case "Metaspace":
            mark = rule["replacement"].encode()
            return lambda piece: piece.replace(mark, b" ")
        case "Replace" if "String" in rule["pattern"]:
            old, new = rule["pattern"]["String"].encode(), rule["content"].encode()
            return lambda piece: piece.replace(old, new)
        case "Fuse" | "Strip":  # they join tokens, and strip the whole text: nothing changes in its middle
            return lambda piece: piece
        case kind:
            raise _unknown(kind)


def _unknown(kind: str) -> UserError:
    return UserError(f"a tokenizer's decoder {kind}: its tokens' bytes are not known here; known are {KNOWN}")


def _byte_level(piece: bytes) -> bytes:
    """Undo GPT-2's writing of bytes as visible characters; a token with any other character is plain text."""
    text = piece.decode()
    return bytes(BYTES[c] for c in text) if all(c in BYTES for c in text) else piece


def _visible_bytes() -> dict[str, int]:
    """GPT-2's table: a byte that is a visible Latin-1 character stands for itself, the others from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in visible]
    return {chr(b): b for b in visible} | {chr(0x100 + i): b for i, b in enumerate(hidden)}


BYTES = _visible_bytes()
