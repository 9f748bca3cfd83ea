"""`dtype: auto` is what the machine is fast in, and a run writes down what that was."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from opd.commands.doctor import compute as examined
from opd.config.compose import load
from opd.devices import compute
from opd.devices.compute import dtype_name, emulated, multiplies_bfloat16, pick_dtype, settled, slowdown
from opd.learner.config import StudentConfig
from opd.learner.student import Student
from opd.rollout.hf import Hf
from opd.teachers.local import LocalTeacher
from opd.teachers.routed import RoutedTeacher
from opd.types import Pretrained
from tests.tiny import cli_code


@dataclass(frozen=True)
class Around:
    """An engine that asks another one."""

    engine: Any

    def start(self, model: Pretrained, *, max_len: int, seed: int) -> Any:
        return self.engine.start(model, max_len=max_len, seed=seed)


def test_auto_is_the_format_that_this_machine_multiplies_faster() -> None:
    fast = slowdown("bfloat16")
    assert fast < 1.5 if pick_dtype("auto", "cpu") == torch.bfloat16 else fast > 0.7


def test_a_cpu_that_is_told_to_do_without_avx512_computes_in_float32() -> None:
    told = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    code = "from opd.devices.compute import dtype_name; print(dtype_name('auto', 'cpu'))"
    for name in told:  # each by itself
        env = os.environ | {name: told[name]}
        found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "float32"


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_gpus_from_ampere_on_compute_in_bfloat16(
    capability: tuple[int, int], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    multiplies_bfloat16.cache_clear()
    assert str(pick_dtype("auto", torch.device("cuda"))) == f"torch.{name}"
    multiplies_bfloat16.cache_clear()


def test_what_is_named_is_obeyed() -> None:
    assert (dtype_name("bfloat16"), dtype_name("float16"), dtype_name("float32")) == ("bfloat16", "float16", "float32")


def test_student_and_teacher_and_engine_compute_in_what_auto_is_here(student_dir: Path) -> None:
    config = load("quickstart", [f"student.model={student_dir}", "student.dtype=auto"]).config
    learner = Student.load(config.student, config.optim, 1.0)
    assert learner.compute == pick_dtype("auto")
    assert LocalTeacher(model=str(student_dir)).dtype == StudentConfig(model=str(student_dir)).dtype == "auto"
    engine = Hf(device="cpu").start(Pretrained(str(student_dir)), max_len=8, seed=0)
    assert next(engine._network.parameters()).dtype == pick_dtype("auto", "cpu")


def test_every_part_is_settled_however_deep() -> None:
    teachers = {"one": LocalTeacher(model="a"), "two": LocalTeacher(model="b", dtype="float16")}
    routed = settled(RoutedTeacher(teachers=teachers, routes={}, default="one"))
    assert [t.dtype for t in routed.teachers.values()] == [dtype_name("auto"), "float16"]
    assert settled(routed) is routed


def test_a_run_goes_on_in_what_it_began_with(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(compute, "multiplies_bfloat16", lambda kind: False)
    begin = ["train", f"conf={config}", f"run={run}", "-q", "student.dtype=auto", "teacher.dtype=auto", "steps=2"]
    assert cli_code(begin) == 0
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert {written[part]["dtype"] for part in ("student", "teacher", "rollout")} == {"float32"}
    assert written["threads"] >= 1
    monkeypatch.setattr(compute, "multiplies_bfloat16", lambda kind: True)
    assert load(str(run / "config.yaml")).settled().config.student.dtype == "float32"


def test_an_engine_left_to_auto_computes_as_the_student_does(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fast in (True, False):
        monkeypatch.setattr(compute, "multiplies_bfloat16", lambda kind, fast=fast: fast)
        for named in ("float32", "bfloat16"):
            made = load(str(config), [f"student.dtype={named}", "rollout.dtype=auto"]).settled().config
            assert made.rollout.dtype == named


def test_so_does_one_inside_of_another(config: Path) -> None:
    for named in ("float32", "bfloat16"):
        composed = load(str(config), [f"student.dtype={named}"])
        around = replace(composed, config=replace(composed.config, rollout=Around(Hf(dtype="auto"))))
        assert around.settled().config.rollout.engine.dtype == named


def test_a_device_that_is_not_here_can_be_planned_for_and_is_refused_by_name_when_it_is_wanted(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    elsewhere = ["student.device=xpu", "student.dtype=auto"]
    assert cli_code(["train", f"conf={config}", "--dry-run", *elsewhere]) == 0
    assert cli_code(["train", f"conf={config}", f"run={tmp_path / 'run'}", *elsewhere]) == 2
    assert "device=xpu: torch has no such device here" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_plan_says_what_is_computed_in(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["train", f"conf={config}", "--dry-run", "rollout.dtype=float32", "threads=1"]) == 0
    assert "computes   float32, 1 thread\n" in capsys.readouterr().out
    assert cli_code(["train", f"conf={config}", "--dry-run", "rollout.dtype=bfloat16", "threads=1"]) == 0
    assert "computes   student float32, teacher float32, engine bfloat16, 1 thread\n" in capsys.readouterr().out


def test_an_emulated_format_is_obeyed_with_a_warning_that_says_how_slow_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "multiplies_bfloat16", lambda kind: False)
    monkeypatch.setattr(compute, "slowdown", lambda dtype: 19.2)
    chosen = ["student.model=a", "teacher.model=b", "student.dtype=bfloat16", "student.device=cpu"]
    config = load("quickstart", [*chosen, "teacher=local", "teacher.dtype=float32"]).config
    (warning,) = emulated(config)
    assert warning.startswith("student.dtype=bfloat16: ")
    assert "19 times as long" in warning
    monkeypatch.setattr(compute, "multiplies_bfloat16", lambda kind: True)
    assert not list(emulated(config))


def test_doctor_measures_both_formats_and_gives_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined()
    assert "float32" in found.found
    assert "bfloat16" in found.found
    auto = dtype_name("auto")
    slow = {"float32": 100.0, "bfloat16": 100.0} | {auto: 1.0}
    monkeypatch.setattr(compute, "speed", lambda name, device: slow[name])
    assert examined().verdict == "warn"
    other = ({"float32", "bfloat16"} - {auto}).pop()
    assert f"student.dtype={other}" in examined().fix
