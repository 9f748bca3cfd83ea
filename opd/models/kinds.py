"""Weights as they lie in a folder: each is of fractions where its model computes with such, and in one file alone."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from safetensors import safe_open

from opd.plain import plain
from opd.types import UserError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""What is read of a folder: one file, or those that an index names."""
FRACTIONS = ("F", "BF")
"""How safetensors' names of number types begin that have fractions."""


def check_kinds(folder: Path, floating: Collection[str], packed: bool) -> None:
    """Refuse what transformers takes as it comes: weights of whole numbers, which it casts, and one of two of a name.

    Args:
        folder: Where a model lies; nothing is looked at where that has no safetensors.
        floating: Names of the weights that are of fractions.
        packed: Its config says that it is quantized: what its numbers mean is known to who packs them.
    """
    found: dict[str, Path] = {}
    for file in _files(folder):
        with safe_open(file, framework="np") as tensors:
            names = set(tensors.keys())
            if double := min(names & found.keys(), default=None):
                raise UserError(
                    f"'{folder}': {double} is in {found[double].name} and in {file.name}, and one of them is another "
                    "copy's; take a fresh one"
                )
            found |= dict.fromkeys(names, file)
            for name in sorted(names.intersection(() if packed else floating)):
                if not (kind := tensors.get_slice(name).get_dtype()).startswith(FRACTIONS):
                    raise UserError(
                        f"'{folder}': {name} is of whole numbers ({kind}), and its config.json says nothing of a "
                        "quantization; take the model as it was before it was packed, or its whole folder"
                    )


def _files(folder: Path) -> list[Path]:
    if (folder / WHOLE).is_file() or not (folder / INDEX).is_file():
        return [folder / WHOLE] if (folder / WHOLE).is_file() else []
    return shards(folder / INDEX)


def shards(index: Path) -> list[Path]:
    """The files that an index names."""
    return sorted({index.parent / name for name in plain(index.read_bytes())["weight_map"].values()})
