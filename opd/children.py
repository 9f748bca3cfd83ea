"""Other processes of Python that are started: they import this very opd, and nothing of the folder that one is in."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""Where this opd is: a checkout, or among what is installed."""
INSTALLED = ("site-packages", "dist-packages")
PLACES = "PYTHONPATH"
"""The variable for places where Python looks first."""
SAFE = {"PYTHONSAFEPATH": "1"}
"""What `-P` says, for processes whose command is somebody else's."""


def command(module: str, *arguments: str) -> list[str]:
    """That of a module. Without -P the folder that one is in would go before all others, and it may be anybody's."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables, by default this process's, with which they find this opd, also where it is not installed."""
    found = dict(os.environ if given is None else given)
    places = found.get(PLACES, "").split(os.pathsep)
    if ROOT.name not in INSTALLED and str(ROOT) not in places:
        found[PLACES] = os.pathsep.join([str(ROOT), *filter(None, places)])
    return found
