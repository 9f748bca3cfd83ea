"""Of ranks under torchrun that have the same to say one is heard; what one alone has to say is heard, too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from opd.devices import aloud

Say = Callable[[int, str], str]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """What is printed of some words by a rank that torchrun started."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    around = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True}
    for name, value in around.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(aloud, "WAIT", 0.3)

    def said(rank: int, words: str) -> str:
        monkeypatch.setenv("RANK", str(rank))
        aloud.say(words)
        return capsys.readouterr().err

    yield said
    del store


def test_what_the_first_rank_says_the_others_do_not(say: Say) -> None:
    assert [say(rank, "steps=0: at least 1") for rank in range(3)] == ["steps=0: at least 1\n", "", ""]


def test_what_one_rank_alone_has_to_say_is_heard_whatever_the_others_say(say: Say) -> None:
    assert say(0, "rank 1 is lost") == "rank 1 is lost\n"
    assert say(2, "no such file here") == "no such file here\n"
    assert say(1, "no such file here") == ""


def test_after_a_restart_the_same_is_said_again(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    for again in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", again)
        assert [say(rank, "no") for rank in range(2)] == ["no\n", ""]


def test_where_there_is_no_store_all_are_heard(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setattr(aloud, "REACHED", 0.2)
    assert say(1, "no") == "no\n"
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert say(1, "no") == "no\n"


@pytest.mark.slow
@pytest.mark.parametrize(("mine", "theirs", "told"), [
    ("steps=0", "steps=0", "opd: steps=0: "), ("objective=gkt", "objective=gkt", "gkt"),
    ("objective=gkd", "objective=gkt", "gkt"),
])  # fmt: skip
def test_torchrun_shows_a_mistake_once(mine: str, theirs: str, told: str, tmp_path: Path) -> None:
    (script := tmp_path / "rank.py").write_text(
        f"import os\nfrom opd.cli import main\nown = {theirs!r} if os.environ['RANK'] == '1' else {mine!r}\n"
        "main(['train', 'conf=quickstart', 'devices=ranks', 'rollout=hf', own])\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)]
    done = subprocess.run(torchrun, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("opd: "))
    assert told in line
