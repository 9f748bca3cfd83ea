"""Whose code a config may run: one's own may name anything; a run's folder may be anybody's, and is not believed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from opd.hints import shown
from opd.types import UserError

OURS = ("opd",)
"""Packages that ship. What is called `recipes` may be a folder of whatever folder one is in."""
VARIABLE = "OPD_PARTS"
"""Of the environment: modules and packages that any run may name, with spaces between."""
TRUST = "trust_remote_code"
"""The setting by which code that comes with a model may run."""
KEY = "api_key_env"
"""The setting that names a variable whose value is sent to a server."""
REFERENCE = re.compile(r"(?<!\\)(?:\\\\)*\$\{")
"""Begins what stands for something else in a config."""
GROUP = "opd.parts"
"""Entry points of installed packages whose parts any run may name."""


def check_trusted(
    settings: Mapping[str, Any],
    overrides: Sequence[str],
    parts: Sequence[str],
    where: str,
    models: bool = True,
    named: Collection[str] = (),
) -> None:
    """Refuse settings of a run's folder that would run code which nobody has allowed; nothing is imported for it.

    Args:
        settings: as they are read, before anything is built of them.
        overrides: what the person has typed, which is trusted.
        parts: modules and packages that may be imported.
        where: the file, for the message.
        models: whether code that comes with models would be run.
        named: classes that the person has named, or that are in files which were.

    Raises:
        UserError: a `_target_` is in another module, code that comes with a model is to run, or a key is to be sent.
    """
    check_names(parts)
    allowed = (*parts, *_standing())
    typed = {text.lstrip("+~") for text in overrides}
    for path, key, value in _leaves(settings, ""):
        at = f"{path}.{key}" if path else key
        if key == "_target_":
            module = str(value).rpartition(".")[0]
            here = module in sys.modules or module == script()  # its code has run: to name it runs nothing
            if not (here or _within(module, allowed) or f"{at}={value}" in typed or value in named):
                raise UserError(
                    f"{at}={shown(value)}: {where} names a part that does not ship with opd, and a run's folder may be "
                    f"anybody's; if {shown(module)} is yours, allow it:  --parts {module}"
                )
        elif models and key == TRUST and value is True and not any(t.startswith(f"{at}=") for t in typed):
            raise UserError(
                f"{at}=true: {where} asks for code that comes with a model to be run, and a run's folder may be "
                f"anybody's; if you trust that model, say so:  {at}=true"
            )
        elif models and key == KEY and value is not None and f"{at}={value}" not in typed:
            raise UserError(
                f"{at}={shown(value)}: {where} asks for this variable of your environment to be sent to a server, and "
                f"a run's folder may be anybody's; if that server is yours, say so:  {at}={value}"
            )


def check_values(settings: Any, overrides: Sequence[str], where: str) -> None:
    """Refuse a run's config, as it lies in the folder, that refers to something else: to your environment, say.

    Raises:
        UserError: a text of it is none, as opd writes them; what the person has typed in its place is not looked at.
    """
    typed = {text.lstrip("+~").partition("=")[0] for text in overrides}
    for path, key, value in _leaves(settings, ""):
        at = f"{path}.{key}".lstrip(".")
        if isinstance(value, str) and at not in typed and REFERENCE.search(value):
            raise UserError(
                f"{at}={shown(value)}: {where} refers to something else, and a run's folder may be anybody's; write "
                f"out what is meant, or type it:  {at}=..."
            )


def classes_in(settings: Any) -> set[str]:
    """Every class that settings name, however deep."""
    return {str(value) for _, key, value in _leaves(settings, "") if key == "_target_"}


def others(settings: Any) -> set[str]:
    """The modules of those classes that do not ship."""
    modules = {name.rpartition(".")[0] for name in classes_in(settings)}
    return {m for m in modules if m.split(".")[0] not in OURS}


def allowances(settings: Any) -> list[str]:
    """What a command of a run with these settings needs to be allowed them, beyond what it is anyway."""
    modules = (m for m in sorted(others(settings)) if not _within(m, _standing()))
    leaves = [(f"{path}.{key}", key, value) for path, key, value in _leaves(settings, "")]
    code = [f"{at}=true" for at, key, value in leaves if key == TRUST and value is True]
    sent = [f"{at}={value}" for at, key, value in leaves if key == KEY and value is not None]
    return [*(word for module in modules for word in ("--parts", module)), *code, *sent]


def script() -> str:
    """What the script that runs would be imported as; `__main__` for a notebook, which has no file."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return str(main.__spec__.name)
    return Path(str(main.__file__)).stem if getattr(main, "__file__", None) else "__main__"


def _standing() -> tuple[str, ...]:
    """Modules and packages that are allowed without a word: what ships, is installed as parts, or is in `VARIABLE`."""
    return (*OURS, *os.environ.get(VARIABLE, "").split(), *(e.module for e in entry_points(group=GROUP)))


def _within(module: str, packages: Sequence[str]) -> bool:
    return any(module == p or module.startswith(f"{p}.") for p in packages)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Where each setting stands, its name and its value; what a list holds goes by its place."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield path, str(key), inner
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield path, str(i), inner
            yield from _leaves(inner, f"{path}[{i}]")


def check_names(parts: Sequence[str]) -> None:
    """UserError where what is allowed is no module's name."""
    for name in parts:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
            raise UserError(f"--parts {shown(name)}: allowed is the name of a module or package, as in --parts mine")
