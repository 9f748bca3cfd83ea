"""What the settings of several processes come to, without starting any."""

from __future__ import annotations

from pathlib import Path

import pytest

import opd
from opd.config.compose import load
from opd.devices.ranks import copies
from opd.types import UserError
from tests.tiny import cli_code


def test_all_ranks_have_one_copy_of_the_weights_unless_they_are_told_otherwise() -> None:
    assert copies(8, None) == copies(8, 8) == (8,)
    assert copies(8, 4) == (2, 4)
    assert copies(8, 1) == (8, 1)


@pytest.mark.parametrize("shard", [3, 16])
def test_groups_that_do_not_divide_the_ranks_are_refused_with_those_that_do(shard: int) -> None:
    with pytest.raises(UserError, match=rf"devices.shard={shard}: 8 ranks .* allowed are 1, 2, 4, 8, or null"):
        copies(8, shard)


@pytest.mark.parametrize(
    "devices", [["devices=ranks", "devices.ranks=3"], ["devices=apart"], ["devices=ray", "devices.ranks=3"]]
)
def test_such_groups_are_refused_before_anything_is_started(devices: list[str]) -> None:
    with pytest.raises(UserError, match=r"^devices.shard=2: \d ranks are no groups of 2"):
        load("quickstart", [*devices, "devices.shard=2"])


def test_a_mistake_in_devices_is_told_by_each_of_several_that_were_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    for typed, says in (("devices.rank=2", "did you mean ranks?"), ("devices.ranks=0", "allowed is a whole number")):
        assert cli_code(["train", "conf=quickstart", "devices=ranks", typed]) == 2
        said = capsys.readouterr().err
        assert f"opd: {typed}: " in said
        assert says in said


def test_what_one_process_does_is_left_to_the_first_of_several_that_were_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    for what in ("export", "sample", "config", "train --dry-run"):
        assert cli_code([*what.split(), *(["ls"] if what == "config" else ["run=nowhere"])]) == 0
        assert capsys.readouterr().err == f"opd {what}: rank 1 leaves it to rank 0\n"
    with pytest.raises(UserError, match=r"opd.export: this is rank 1 of 2, .* call it where RANK is 0"):
        opd.export("nowhere")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="nowhere"):
        opd.export("nowhere")
    assert cli_code(["export", "run=nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    for typed in (["recipe", "ls"], ["train", "conf=quickstart", "--multirun", "steps=1,2"]):
        assert cli_code(typed) == 2
        assert "2 processes were started (WORLD_SIZE); " in capsys.readouterr().err


@pytest.mark.parametrize(("told", "said"), [
    ({"RANK": "x"}, "RANK='x': allowed is a whole number from 0 to"),
    ({"RANK": "-1"}, "RANK='-1': allowed is a whole number from 0 to"),
    ({"RANK": ""}, "RANK='': allowed is a whole number from 0 to"),
    ({"RANK": "²"}, "RANK='²': allowed is a whole number from 0 to"),
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two': allowed is a whole number from 1 to"),
    ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0': allowed is a whole number from 1 to"),
    ({"RANK": "2"}, "RANK=2: of 2 processes (WORLD_SIZE) the ranks are 0 to 1"),
    ({"MASTER_PORT": "x"}, "MASTER_PORT='x': allowed is a whole number from 1 to"),
    ({"MASTER_PORT": "65536"}, "MASTER_PORT='65536': allowed is a whole number from 1 to"),
    ({"MASTER_ADDR": ""}, "MASTER_ADDR= MASTER_PORT=1: ranks meet at a port of rank 0's machine; set both"),
    ({"LOCAL_RANK": "a"}, "LOCAL_RANK='a': allowed is a whole number from 0 to"),
    ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE='0': allowed is a whole number from 1 to"),
])  # fmt: skip
def test_variables_of_a_launcher_that_say_no_number_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], told: dict[str, str], said: str
) -> None:
    around = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in {**around, **told}.items():
        monkeypatch.setenv(name, value)
    assert cli_code(["train", "conf=quickstart", f"run={tmp_path / 'run'}", "devices=ranks"]) == 2
    assert f"opd: {said}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
