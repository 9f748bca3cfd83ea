"""The wheel on other Pythons: built, installed into a new environment, and a whole tiny run without vLLM.

    python -m tests.pythons 3.12 3.13

An interpreter is taken where uv finds or fetches one. Nothing is pinned, as for somebody who installs it so.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.test_wheel import ROOT, call, tried


def check(version: str, uv: Path, folder: Path) -> str:
    """What became of a version of Python."""
    venv = folder / version
    made = subprocess.run([uv, "venv", "--quiet", "--python", version, venv], capture_output=True, text=True)
    if made.returncode:
        return f"no such Python here: {made.stderr.strip().splitlines()[-1]}"
    call(uv, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("opd-*.whl")
    call(uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python", wheel, cwd=folder)
    elsewhere = folder / f"runs of {version}"
    elsewhere.mkdir()
    opd = venv / "bin" / "opd"
    found = call(opd, "doctor", cwd=elsewhere)
    tried(opd, elsewhere)
    return found.splitlines()[1].strip()


def main(versions: list[str]) -> None:
    """One line for each."""
    uv = Path(sys.executable).with_name("uv")
    for version in versions:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{version}: {check(version, uv, Path(folder))}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
