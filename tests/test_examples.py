"""The scripts of `docs/examples` do what they say, as anyone would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
QUICK = ["rollout=hf", "rollout.dtype=float32", "eval.every=0", "log.rollouts_every=1"]


def script(file: Path, folder: Path, *settings: str) -> str:
    command = [sys.executable, str(file), *QUICK, *settings]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


def evaluated(output: str) -> dict[int, tuple[float, float]]:
    """Accuracy and KL by step, as the scripts print them."""
    rows = re.findall(r"student, step (\d+) +(\S+) +(\S+)", output)
    return {int(step): (float(accuracy), float(kl)) for step, accuracy, kl in rows}


@pytest.mark.slow
def test_the_first_example_trains_samples_and_exports(tmp_path: Path) -> None:
    output = script(EXAMPLES / "train.py", tmp_path, "steps=10", "data.prompts_per_step=64")
    found = evaluated(output)
    assert found[10][1] < 0.9 * found[0][1]
    assert "the teacher liked least" in output
    assert "9-4+7-5: 9" in output
    assert len(list((tmp_path / "runs").glob("*/export/step_000010/model.safetensors"))) == 1


@pytest.mark.slow
def test_parts_of_ones_own_train_in_one_file_and_the_run_goes_on(tmp_path: Path) -> None:
    copy = tmp_path / "own_parts.py"
    copy.write_text((EXAMPLES / "own_parts.py").read_text())
    first = evaluated(script(copy, tmp_path, "steps=12", "checkpoint.every=6", "eval.size=100"))
    assert first[12][1] < 0.7 * first[0][1]
    assert first[12][0] > first[0][0]
    (run,) = (tmp_path / "runs").iterdir()
    command = [sys.executable, "-m", "opd", "train", "--resume", f"run={run}", "steps=13", "-q", "--parts", "own_parts"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
