"""What a part is called in a config: errors name what one writes, not the class behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_HERE = Path(__file__).resolve().parent
PACKAGED = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
"""The configs that ship: inside the wheel, or at the top of a checkout."""


def called(group: str, part: object) -> str:
    """What stands behind `group=` for a part: an option that ships, or the class where several or none are of it."""
    import yaml

    kind = type(part)
    path = f"{kind.__module__}.{kind.__qualname__}"
    options = {file.stem: yaml.safe_load(file.read_text("utf-8")) for file in sorted((PACKAGED / group).glob("*.yaml"))}
    alike = {
        name: sum(_same(getattr(part, key, None), value) for key, value in settings.items())
        for name, settings in options.items()
        if settings.get("_target_") == path
    }
    plain = kind.__module__.rpartition(".")[2]
    if plain in alike:
        return plain
    nearest = [name for name, count in alike.items() if count == max(alike.values())]
    return nearest[0] if len(nearest) == 1 else path


def _same(own: object, value: object) -> bool:
    """Whether a setting is as an option has it; of parts within it, whether they have the same names."""
    if isinstance(own, Mapping) and isinstance(value, Mapping):
        return set(own) == set(value)
    return own == value
