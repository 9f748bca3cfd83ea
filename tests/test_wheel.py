"""The wheel carries the configs and the models that ship, and finds them from anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

from opd.config.catalog import PACKAGED, shipped
from opd.models.shelf import SHELF

ROOT = Path(__file__).parents[1]


def call(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Stdout of a command that must succeed."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tried(opd: Path, folder: Path) -> None:
    """Some configs, and the shortest whole run: trained without vLLM, measured, exported."""
    for conf in ("quickstart", "gold", "math_qwen"):
        assert "steps: " in call(opd, "train", f"conf={conf}", "rollout=hf", "--dry-run", cwd=folder)
    few = ("steps=1", "data.prompts_per_step=4", "eval.size=4", "preflight.prompts=2")
    call(opd, "train", "conf=quickstart", "rollout=hf", "run=tiny", *few, "--quiet", cwd=folder)
    assert "student after 1 step" in call(opd, "eval", "run=tiny", cwd=folder)
    assert "exported: " in call(opd, "export", "run=tiny", cwd=folder)


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_lists_and_builds_the_configs(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    call(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("opd-*.whl")
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    call(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # What opd depends on is taken from here, after what the wheel brings: its editable install is not looked at.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    opd = tmp_path / "venv" / "bin" / "opd"
    where = call(python, "-c", "import opd; print(opd.__file__)", cwd=elsewhere)
    assert where.startswith(str(tmp_path))
    listed = call(opd, "config", "ls", cwd=elsewhere)
    assert [line.split()[0] for line in listed.splitlines()] == list(shipped())
    assert "steps: 5" in call(opd, "config", "show", "math_qwen", "steps=5", "log=tensorboard", cwd=elsewhere)
    assert "ok    configs" in call(opd, "doctor", cwd=elsewhere)
    tried(opd, elsewhere)
    assert next(packages.glob("opd-*.dist-info/licenses/LICENSE")).read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert {p.name for p in (packages / "opd" / "report").glob("page.*")} == {
        "page.py",
        "page.html",
        "page.css",
        "page.js",
    }
    inside = {p.relative_to(packages / "opd" / "conf") for p in (packages / "opd" / "conf").rglob("*.yaml")}
    assert inside == {p.relative_to(PACKAGED) for p in PACKAGED.rglob("*.yaml")}
    shipped_files = {p.relative_to(SHELF) for p in SHELF.rglob("*")}
    there = packages / "opd" / "models" / "shipped"
    assert {p.relative_to(there) for p in there.rglob("*")} == shipped_files
    show = "from opd.config.compose import load; print(load('quickstart').config.student.model.path())"
    student = call(python, "-c", show, cwd=elsewhere, OPD_CACHE=str(tmp_path / "cache"))
    assert Path(student.strip()).parent == there
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_the_source_distribution_has_the_models_that_ship(tmp_path: Path) -> None:
    call(sys.executable, "-m", "build", "--sdist", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (path,) = tmp_path.glob("opd-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/opd/models/shipped/")[2] for name in archive.getnames()}
    assert names - {""} == {str(p.relative_to(SHELF)) for p in SHELF.rglob("*") if p.is_file()}
