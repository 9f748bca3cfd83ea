"""What tells a checkpoint from others without reading its weights, for what was computed with it once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from opd.types import Pretrained

TAIL = 2**16
"""Bytes at the end of a weights file that are looked at: two trainings of one model have the same sizes."""


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
        *((p.name, p.stat().st_size, tail(p)) for p in weights),
    ]


def fingerprints(models: Mapping[str, Pretrained | None]) -> dict[str, str]:
    """Short ones by what the models are for; none of a model that is not there, or that lies where nobody knows."""
    found: dict[str, str] = {}
    for name, model in models.items():
        with suppress(OSError):
            told = repr(fingerprint(model)).encode() if model else b""
            found |= {name: hashlib.blake2b(told, digest_size=6).hexdigest()} if told else {}
    return found


def tail(path: Path) -> str:
    """Hash of a file's last bytes."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return hashlib.blake2b(file.read(), digest_size=16).hexdigest()
