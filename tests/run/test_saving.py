"""What is saved is finite, and proven before older checkpoints go."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from opd.learner.config import StudentConfig
from opd.learner.optim import Optim
from opd.learner.student import Student
from opd.models.finite import not_finite
from opd.rollout.hf import Hf, HfSampler
from opd.run import manifest
from opd.run.checkpoint import checkpoints, latest
from opd.run.saving import save
from opd.types import Pretrained, RunError, Weights
from tests.tiny import char_tokenizer, cli_code, save_config

HUGE = "optim.weight_decay=1e300"
"""Every gradient is finite, and the first update multiplies the weights by a number that float32 has not."""


@dataclass(frozen=True)
class Wary(Hf):
    """A transformers engine that no weights may be pushed to which are no numbers."""

    def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> HfSampler:
        sampler = super().start(model, max_len=max_len, seed=seed)
        load = sampler.load_weights

        def load_weights(weights: Weights, version: int) -> None:
            named = [(name, tensor.clone()) for name, tensor in weights]
            assert not_finite(named) is None
            load(named, version)

        sampler.load_weights = load_weights
        return sampler


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, student_dir: Path, teacher_dir: Path) -> Path:
    """A run of two steps, on an engine that is wary."""
    folder = tmp_path_factory.mktemp("begun")
    config = save_config(folder / "tiny.yaml", student_dir, teacher_dir)
    own = ["rollout._target_=tests.run.test_saving.Wary", "preflight.prompts=2", "eval.every=0", "eval.size=2"]
    assert cli_code(["train", f"conf={config}", f"run={folder / 'run'}", "-q", "steps=2", *own]) == 0
    return folder / "run"


def test_a_run_whose_last_step_makes_its_weights_infinite_is_no_success(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(begun, tmp_path / "run")
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=3", "checkpoint.every=1", HUGE]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("opd: step 3: the update has made weights that are not finite, first model.embed_tokens")
    assert "try a lower optim.lr (0.003) or optim.weight_decay (1e+300), or a higher optim.eps (1e-08)" in line
    assert f"the last good checkpoint is {run}/checkpoints/step_000002" in line
    assert [c.step for c in checkpoints(run / "checkpoints")] == [2]
    assert cli_code(["train", "--resume", f"run={run}", "-q", "steps=3", "optim.weight_decay=0"]) == 0


def test_without_a_checkpoint_that_is_said(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    short = ["steps=1", "preflight.prompts=2", "eval.every=0", "eval.size=2"]
    assert cli_code(["train", f"conf={config}", f"run={run}", "-q", *short, HUGE]) == 1
    assert "there is no checkpoint yet" in capsys.readouterr().err
    assert not checkpoints(run / "checkpoints")


def learner(folder: Path) -> Student:
    """A student whose optimizer has a state of each weight."""
    student = Student.load(StudentConfig(str(folder), dtype="float32"), Optim(), 1.0)
    for p in student.params:
        p.grad = torch.full_like(p, 1e-3)
    student.optimizer.step()
    student.optimizer.zero_grad()
    return student


class Average:
    """A judge that has learned something."""

    def __init__(self, value: float) -> None:
        self.value = value

    def state(self) -> dict[str, torch.Tensor]:
        return {"mean": torch.tensor([0.0, self.value])}

    def load_state(self, state: object) -> None:
        raise AssertionError


@pytest.mark.parametrize("part", ["model", "optimizer", "teacher"])
def test_nothing_that_is_not_finite_is_saved_and_what_was_saved_stays(
    student_dir: Path, tmp_path: Path, part: str
) -> None:
    student, good = learner(student_dir), Average(1.0)
    save(tmp_path, 1, student, {"teacher": good}, char_tokenizer(), keep=1)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    if part == "model":
        student.params[3].data[0] = math.nan
    elif part == "optimizer":
        student.optimizer.state[student.params[3]]["exp_avg_sq"][0] = math.inf
    judge = Average(math.inf) if part == "teacher" else good
    with pytest.raises(RunError, match=rf"no checkpoint was written: of {part} .* is not finite; try a lower optim.lr"):
        save(tmp_path, 2, student, {"teacher": judge}, char_tokenizer(), keep=1)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_what_the_disk_does_not_give_back_takes_the_place_of_nothing(
    student_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = learner(student_dir)
    save(tmp_path, 1, student, {}, char_tokenizer(), keep=1)
    write = manifest.write

    def bad_disk(folder: Path) -> None:
        write(folder)
        file = folder / "optimizer.safetensors"
        file.write_bytes(bytes(file.stat().st_size))

    monkeypatch.setattr(manifest, "write", bad_disk)
    with pytest.raises(RunError, match=r"the disk does not give back what was written .optimizer.safetensors is not"):
        save(tmp_path, 2, student, {}, char_tokenizer(), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]
    found, damaged = latest(tmp_path)
    assert (found, damaged) == (checkpoints(tmp_path)[0], [])


def test_sums_tell_what_is_not_finite_and_what_is_only_large() -> None:
    large = torch.full((3, 2), 3e38)
    assert not_finite([("a", large), ("b", large.half().nan_to_num(0, 6e4)), ("ids", torch.ones(2).long())]) is None
    assert not_finite([]) is None
    assert not_finite([("a", large), ("b", large * 2)]) == "b (6 of 6 numbers, infinite)"
    mixed = torch.tensor([math.inf, -math.inf, 1.0, math.nan])
    assert not_finite([("m", mixed)]) == "m (3 of 4 numbers, NaN)"
    assert not_finite([("f", torch.tensor([1.0, math.nan]).to(torch.float8_e4m3fn))]) == "f (1 of 2 numbers, NaN)"
