"""A model's path that leads nowhere is refused at once; what may be a hub's name is not."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from opd.commands.serve import check
from opd.models.facts import read_facts
from opd.models.loading import load_config, stop_ids, tokenizer_of
from opd.models.there import check_there, is_path
from opd.types import Pretrained, UserError
from tests.tiny import cli_code


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the network fails the test."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_names_of_hubs_are_no_paths_and_paths_are() -> None:
    for name in ("gpt2", "Qwen/Qwen2.5-0.5B", "HuggingFaceTB/SmolLM2-135M-Instruct", "a/b.v1.0", "runs/x"):
        assert not is_path(name)
    for name in ("/a", "./a", "../a", "~/a", "~nobody/a", "a/b/c", ".", "..", "x.gguf", "a/model.safetensors", "/a/"):
        assert is_path(name)


@pytest.mark.parametrize("load", [load_config, tokenizer_of, read_facts, lambda model: stop_ids(model, None)])
@pytest.mark.usefixtures("no_network")
def test_every_way_of_loading_refuses_a_path_that_is_not_there(load: Any, tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    with pytest.raises(UserError, match=r"model .*/studnt: there is no such folder, did you mean .*/student\?"):
        load(Pretrained(str(tmp_path / "studnt")))


@pytest.mark.parametrize("key", ["student.model", "teacher.model"])
@pytest.mark.usefixtures("no_network")
def test_a_run_whose_model_is_not_there_ends_before_any_is_read(
    key: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opd.learner.student.load_causal_lm", None)
    run = tmp_path / "run"
    for name in ("~nobody-of-this-name/x", f"{tmp_path}/x", "a/b/c"):
        assert cli_code(["train", f"conf={config}", f"run={run}", "-q", f'{key}="{name}"']) == 2
        assert f"{name}: there is no such folder" in capsys.readouterr().err
    assert not run.exists()


def test_what_no_model_can_be_is_said(tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.touch()
    for name, says in (
        (str(file), "this is a file"),
        ("a" * 300, "no folder can"),
        (" ", "an empty text"),
    ):
        with pytest.raises(UserError, match=says):
            check_there(name)
    with pytest.raises(UserError, match=r"there is no such folder; in .* there are no folders"):
        check_there(str(tmp_path / "far" / "away"))
    with pytest.raises(UserError, match="there is no such folder"):
        check("./nothing-here", "127.0.0.1", 0)


def test_ones_own_home_is_put_in(monkeypatch: pytest.MonkeyPatch, student_dir: Path) -> None:
    monkeypatch.setenv("HOME", str(student_dir.parent))
    assert load_config(Pretrained(f"~/{student_dir.name}")).model_type == "qwen3"


def test_a_run_is_no_model_and_is_called_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match="it is a run: name the folder that opd export writes"):
        load_config(Pretrained(str(tmp_path)))
