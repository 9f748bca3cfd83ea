"""How something missing is installed: a command that works for whoever reads it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opd.extras import BUILDS, install

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PIP = f"{sys.executable} -m pip install"


@dataclass
class Installed:
    """What an installer leaves behind."""

    noted: str | None
    version: str = "1"

    def read_text(self, name: str) -> str | None:
        return self.noted if name == "direct_url.json" else None


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that nothing is below of."""
    (tmp_path / "else where").mkdir()
    monkeypatch.chdir(tmp_path / "else where")
    return tmp_path


def noted(monkeypatch: pytest.MonkeyPatch, origin: Any) -> None:
    text = origin if origin is None or isinstance(origin, str) else json.dumps(origin)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(text))


@pytest.mark.parametrize(("origin", "what"), [
    (None, '"opd[tasks]"'),
    ("not json", '"opd[tasks]"'),
    ([1], '"opd[tasks]"'),
    ({"url": "file:///gone/checkout", "dir_info": {"editable": True}}, '"opd[tasks]"'),
    ({"url": "file:///dist/opd-0.1.0-py3-none-any.whl", "archive_info": {}},
     '"opd[tasks] @ file:///dist/opd-0.1.0-py3-none-any.whl"'),
    ({"url": "https://host/opd.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
     '"opd[tasks] @ git+https://host/opd.git@abc"'),
])  # fmt: skip
def test_it_comes_from_where_opd_came_from(
    origin: Any, what: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(monkeypatch, origin)
    assert install("tasks") == f"{PIP} {what}"


@pytest.mark.parametrize("editable", [True, False])
def test_a_checkout_is_installed_as_it_was_and_its_engines_by_make(
    editable: bool, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = elsewhere / "check out"
    checkout.mkdir()
    noted(monkeypatch, {"url": checkout.as_uri(), "dir_info": {"editable": editable}})
    flag = "-e " if editable else ""
    assert install("tasks") == f'{PIP} {flag}"{checkout}[tasks]"'
    (checkout / "Makefile").touch()
    assert install("gpu") == f"make -C '{checkout}' install BUILD=gpu VENV={sys.prefix}"
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(sys, "prefix", str(checkout / ".venv"))
    assert install("tasks") == f'{PIP} {flag}".[tasks]"'
    assert install("cpu") == "make install BUILD=cpu"


def unknown(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


def test_a_hint_leaves_what_is_imported_later_as_it_was() -> None:
    later = "from opd.extras import install; install('tasks'); import setuptools; print(install('cpu'))"
    assert subprocess.run([sys.executable, "-c", later], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("active", [True, False])
def test_where_there_is_no_pip_uv_installs_into_this_environment(
    active: bool, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(monkeypatch, None)
    monkeypatch.setattr(importlib.metadata, "version", unknown)
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix if active else "/another")
    into = "" if active else f" --python {sys.executable}"
    assert install("tasks") == f'uv pip install{into} "opd[tasks]"'


def test_every_hint_names_an_extra_that_there_is_and_none_is_written_by_hand() -> None:
    texts = {path: path.read_text() for path in (ROOT / "opd").rglob("*.py")}
    named = {name for text in texts.values() for name in re.findall(r"\binstall\(['\"](\w+)['\"]\)", text)}
    named |= {name for text in texts.values() for name in re.findall(r"extra: str = \"(\w+)\"", text)}
    assert {"tasks", "ray", "gemma"} <= named <= set(EXTRAS)
    assert set(BUILDS) <= set(EXTRAS)
    assert [path for path, text in texts.items() if "opd[" in text and path.name != "extras.py"] == []


@pytest.mark.slow
def test_the_command_is_one_that_the_shell_and_the_installer_take() -> None:
    command = install("tasks") + " --dry-run --quiet --no-deps"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert shlex.split(install("cpu"))[0] == "make"
