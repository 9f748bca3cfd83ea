"""Two real runs of seconds, and the pages made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import cli_code, save_config


@pytest.fixture(scope="session")
def real_runs(tmp_path_factory: pytest.TempPathFactory, student_dir: Path, teacher_dir: Path) -> list[Path]:
    """Two runs on random models that differ in their learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    config = save_config(folder / "tiny.yaml", student_dir, teacher_dir)
    for name, lr in {"fast": "3e-3", "slow": "1e-4"}.items():
        assert cli_code(["train", f"conf={config}", f"run={folder / name}", f"optim.lr={lr}", "-q"]) == 0
    return [folder / "fast", folder / "slow"]
