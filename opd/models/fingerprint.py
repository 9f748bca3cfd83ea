"""What tells a checkpoint from others without reading all its weights, for what was computed with it once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from opd.plain import plain
from opd.types import Pretrained

BLOCK = 2**12
"""Bytes that are read in one place: thousands of values, of which training changes some, be they few."""
PLACES = 16
"""Places of a tensor that are looked at, in even distances: a training may leave others as they are."""
MOST = 2**14
"""Places of a file that are looked at, if each of its tensors has one."""
HEADER = 2**27
"""Bytes of a safetensors file's header at most."""


def fingerprint(model: Pretrained | None) -> list[Any]:
    """What tells a checkpoint from others: a folder's config and weights files, a hub name's revision."""
    from transformers.utils.hub import cached_file, extract_commit_hash

    if model is None:
        return []
    folder = Path(model.path)
    if not folder.is_dir():
        return [model.path, extract_commit_hash(cached_file(model.path, "config.json"), None)]
    weights = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".bin", ".gguf"})
    config = folder / "config.json"
    return [
        config.read_text(encoding="utf-8") if config.is_file() else "",
        *((p.name, p.stat().st_size, sampled(p)) for p in weights),
    ]


def fingerprints(models: Mapping[str, Pretrained | None]) -> dict[str, str]:
    """Short ones by what the models are for; none of a model that is not there, or that lies where nobody knows."""
    found: dict[str, str] = {}
    for name, model in models.items():
        with suppress(OSError):
            told = repr(fingerprint(model)).encode() if model else b""
            found |= {name: hashlib.blake2b(told, digest_size=6).hexdigest()} if told else {}
    return found


def sampled(path: Path) -> str:
    """Hash of a weights file's header, and of some of each of its tensors: not of all, which may be a hundred GB."""
    size, found = path.stat().st_size, hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        regions = [(0, size)] if path.suffix != ".safetensors" else _tensors(file, size)
        each = max(1, min(PLACES, MOST // len(regions)))
        for begin, end in regions:
            for at in places(begin, end, each if begin else MOST):
                file.seek(at)
                found.update(file.read(min(BLOCK, end - at)))
    return found.hexdigest()


def places(begin: int, end: int, count: int) -> range:
    """Where blocks of a region begin, `count` of them in even distances, or as many as cover it."""
    return range(begin, end, max(BLOCK, (end - begin) // count))


def _tensors(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Where a file's header and its tensors lie; the whole file where it does not say so."""
    length = int.from_bytes(file.read(8), "little")
    try:
        header = plain(file.read(length)) if length <= HEADER else {}
        spans = sorted(tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__")
        begin = 8 + length
        found = [(0, begin), *((begin + max(0, int(a)), min(size, begin + int(b))) for a, b in spans)]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return [(0, size)]
    return found if len(found) > 1 else [(0, size)]
