"""Where parts stand in a config, and how one takes the place of another, whose settings would not fit it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from opd.tasks.readers import OTHERS

CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
"""The dotted path of a class."""
BY_CLASS = ("objective", "teacher", "source", "rollout", "devices", "data", "reference")
"""Settings that are a part of some class, all but the last groups of options."""
BY_FILE = (*BY_CLASS, "student", "optim", "eval", "log")
"""Settings that a file of one's own may be given for."""
MODELS = "models"
"""The group whose files say many of them at once: one of one's own is an option, which Hydra has to find."""
GIVEN, GLOBAL = "given", "# @package _global_"
"""What an option of it is called that is a file of one's own, and the line that makes it one of a whole run."""
FILES = (".yaml", ".yml", ".py")
TASK = re.compile(r"data\.tasks\.\w+")


def names_part(key: str, value: Any) -> bool:
    """Whether a value in the place of a part looks like a file or class."""
    if not isinstance(value, str):
        return False
    by_class = key in BY_CLASS or TASK.fullmatch(key) is not None
    file = value.endswith(FILES) and (by_class or key in BY_FILE or key == MODELS)
    return file or (by_class and CLASS.fullmatch(value) is not None and not value.lower().endswith(OTHERS))


def put_part(node: DictConfig, at: str, part: DictConfig) -> None:
    """Set a part: one of another class takes the place of what is there, else what it says goes over that."""
    now = OmegaConf.select(node, at, throw_on_missing=False)
    there = now.get("_target_") if isinstance(now, DictConfig) else None
    if not isinstance(now, DictConfig) or part.get("_target_", there) != there:
        OmegaConf.update(node, at, part, merge=False, force_add=True)
        return
    rest, parts = lift(part)
    OmegaConf.update(node, at, rest, merge=True, force_add=True)
    for key, inner in parts.items():
        put_part(node, f"{at}.{key}", inner)


def lift(node: DictConfig) -> tuple[DictConfig, Mapping[str, DictConfig]]:
    """A mapping without the mappings in it that name a class, and these by their paths."""
    rest, parts = OmegaConf.create(), {}
    for name, value in node.items_ex(resolve=False):
        key = str(name)
        if not isinstance(value, DictConfig) or not re.fullmatch(r"\w+", key):
            rest[name] = value
        elif "_target_" in value:
            parts[key] = value
        else:
            rest[name], inner = lift(value)
            parts |= {f"{key}.{path}": part for path, part in inner.items()}
    return rest, parts


def escaped(value: Any) -> Any:
    """Texts that hold `${` by themselves, in the spelling that reads back as such."""
    if isinstance(value, Mapping):
        return {k: escaped(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [escaped(v) for v in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value
