"""What the settings of several processes come to, without starting any."""

from __future__ import annotations

import pytest

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
    monkeypatch.setenv("RANK", "0")
    assert cli_code(["export", "run=nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    for typed in (["recipe", "ls"], ["train", "conf=quickstart", "--multirun", "steps=1,2"]):
        assert cli_code(typed) == 2
        assert "2 processes were started (WORLD_SIZE); " in capsys.readouterr().err
