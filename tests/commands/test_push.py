"""What was found to be the learner's model goes to the hub, for nobody else's eyes unless that is said."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from opd.commands.export import export, formats, push
from opd.commands.export.parity import Parity
from tests.tiny import cli_code


@dataclass
class Hub:
    """A hub that somebody is logged in to; `private` of the repositories that are there."""

    private: dict[str, bool] = field(default_factory=dict)
    token: str | None = "secret"
    files: dict[str, bytes] = field(default_factory=dict)
    broken: str | None = None

    def whoami(self) -> dict[str, str]:
        return {"name": "me"}

    def repo_info(self, name: str) -> Any:
        if name not in self.private:
            answer = httpx.Response(404, request=httpx.Request("GET", "http://127.0.0.1/"))
            raise RepositoryNotFoundError("404: there is none", response=answer)
        return SimpleNamespace(private=self.private[name])

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.private.setdefault(name, private)

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if self.broken:
            raise ConnectionError(f"{self.broken}\nand more of it")
        assert repo_id in self.private
        assert commit_message
        self.files = {p.name: p.read_bytes() for p in folder_path.iterdir()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr(push, "hub", lambda: made)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, student_dir: Path, teacher_dir: Path) -> Path:
    from tests.tiny import save_config

    place = tmp_path_factory.mktemp("pushed")
    config = save_config(place / "tiny.yaml", student_dir, teacher_dir)
    short = ["steps=1", "data.prompts_per_step=4", "eval.every=0", "eval.size=4", "preflight.prompts=4"]
    assert cli_code(["train", f"conf={config}", f"run={place / 'run'}", "-q", "sampling.max_tokens=4", *short]) == 0
    return place / "run"


def test_an_export_is_pushed_whole_and_private_with_a_card_that_names_the_repository(run: Path, hub: Hub) -> None:
    assert cli_code(["export", f"run={run}", "-q", "--push", "me/mine"]) == 0
    assert hub.private == {"me/mine": True}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= hub.files.keys()
    card = hub.files["README.md"].decode()
    assert "vllm serve me/mine" in card
    assert "pipeline('text-generation', 'me/mine')" in card
    assert b"secret" not in b"".join(hub.files.values())


def test_a_public_one_has_to_be_asked_for_also_where_it_is_there(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.private["me/open"] = False
    assert cli_code(["export", f"run={run}", "-q", "--push", "me/open"]) == 2
    assert "everybody can read it; say --public" in capsys.readouterr().err
    assert not hub.files
    assert cli_code(["export", f"run={run}", "-q", "--push", "me/new", "--public"]) == 0
    assert hub.private["me/new"] is False


def test_nothing_is_pushed_that_is_not_the_learners_model(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    off = Parity(9.0, 0.0, "Hf", 1, tolerance=0.1, engine_tolerance=0.1)
    monkeypatch.setattr(export, "check_parity", lambda *given: off)
    assert cli_code(["export", f"run={run}", "-q", "--push", "me/mine"]) == 1
    assert "transformers 9, Hf 0 nats a token from the learner (allowed 0.1, 0.1)" in capsys.readouterr().err
    assert hub == Hub()


@pytest.mark.parametrize(
    ("name", "token", "said"),
    [
        ("me/mine", None, "nobody is logged in; `hf auth login` does it"),
        ("mine", "secret", "a repository is OWNER/NAME"),
        ("me/mi ne", "secret", "a repository is OWNER/NAME"),
        ("a/b/c", "secret", "a repository is OWNER/NAME"),
    ],
)  # fmt: skip
def test_what_the_hub_would_refuse_is_refused_before_anything_is_loaded(
    run: Path, hub: Hub, name: str, token: str | None, said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(formats, "write", lambda *given: pytest.fail("it was written"))
    hub.token = token
    assert cli_code(["export", f"run={run}", "-q", "--push", name]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_a_push_that_fails_is_one_line_and_the_export_stays(
    run: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.broken = "the line is dead"
    assert cli_code(["export", f"run={run}", "-q", "--push", "me/mine", "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == f"opd: --push=me/mine: the line is dead; the export is whole, at {tmp_path / 'out'}"
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_hub_that_is_not_there_is_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr(push, "hub", lambda: HfApi(endpoint="http://127.0.0.1:9", token="secret"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert cli_code(["export", f"run={run}", "-q", "--push", "me/mine"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "the hub does not answer as it should" in line
    assert "secret" not in line
