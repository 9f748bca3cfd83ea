"""Is a model's name a path, and is anything there? Told before a hub is asked, which takes its time to say no."""

from __future__ import annotations

from pathlib import Path

from opd.hints import nearest
from opd.types import UserError

STARTS = ("/", "./", "../", "~", "\\")
ENDINGS = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".json", ".yaml", ".tar", ".gz", ".zip")
"""What files end in, and names of a hub do not: those have dots too (Qwen2.5-0.5B)."""


def is_path(name: str) -> bool:
    """Whether a name can be no hub's, which is NAME or OWNER/NAME."""
    bare = name.rstrip("/")
    return name.startswith(STARTS) or bare in (".", "..") or bare.count("/") > 1 or bare.lower().endswith(ENDINGS)


def check_there(name: str) -> None:
    """Raise UserError where a model's name is a path at which there is no folder; one of a hub may be anything."""
    try:
        place = Path(name)
        if place.is_dir():
            return
        found = place.is_file()
    except (OSError, ValueError) as error:  # names that no disk takes
        raise UserError(
            f"model {name[:80]!r}: no folder can have this name; name one, or OWNER/NAME of a hub"
        ) from error
    if not name.strip():
        raise UserError("model: its name is an empty text; allowed is a folder, or OWNER/NAME of a hub")
    if found:
        raise UserError(f"model {name}: this is a file; allowed is the folder of a model, or OWNER/NAME of a hub")
    if is_path(name):
        raise UserError(f"model {name}: there is no such folder{_beside(place)}")


def _beside(place: Path) -> str:
    """The nearest name where the path leaves what is there, and some of what is."""
    missing, folder = place, place.parent
    while not folder.is_dir() and folder != folder.parent:
        missing, folder = folder, folder.parent
    there = sorted(str(p) for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    near = nearest(str(missing), there)
    return near or f"; in {folder} there are {', '.join(Path(p).name for p in there[:5]) or 'no folders'}"
