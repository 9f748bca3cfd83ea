"""The Dockerfile: what it copies is there, what it runs is a target, and what it starts is the command."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
STEPS = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()


def steps(word: str) -> list[str]:
    """What follows an instruction, each time."""
    return [line.removeprefix(word).strip() for line in STEPS if line.startswith(f"{word} ")]


def copied() -> list[Path]:
    """All that the image is made from."""
    sources = [name for step in steps("COPY") for name in step.split()[:-1]]
    assert all(list(ROOT.glob(name)) for name in sources)
    return [path for name in sources for path in ROOT.glob(name)]


def test_the_linter_finds_nothing() -> None:
    done = subprocess.run([Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"], capture_output=True)
    assert done.returncode == 0, done.stdout.decode()


def test_what_the_package_is_built_from_is_copied_and_not_ignored() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", PROJECT["project"]["readme"], "LICENSE"}
    there = {path.name for path in copied()}
    assert needed <= there
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in let_in) for name in there)


@pytest.mark.parametrize("build", ["cpu", "gpu"])
def test_its_build_is_a_target_that_installs_what_was_asked_for_with_files_that_were_copied(build: str) -> None:
    (command,) = [step for step in steps("RUN") if "make" in shlex.split(step)[0]]
    words = [word.replace("${BUILD}", build).replace("${EXTRA}", "tasks,quant") for word in shlex.split(command)]
    done = subprocess.run([*words, "-n", "VENV=nowhere"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f'-e ".[{build},tasks,quant]"' in done
    files = re.findall(r"(?:--constraints|--overrides) (\S+)", done)
    assert f"constraints-{build}.txt" in files
    assert set(files) <= {path.name for path in copied()}


def test_it_starts_the_command_on_a_python_that_the_project_takes() -> None:
    assert steps("ENTRYPOINT") == [f'["{next(iter(PROJECT["project"]["scripts"]))}"]']
    (version,) = [step.removeprefix("PYTHON=") for step in steps("ARG") if step.startswith("PYTHON=")]
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    assert version in ("3.11", "3.12", "3.13")
