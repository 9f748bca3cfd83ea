"""A hub that does not answer is waited for once, and shortly; one that says anything at all answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from opd.models import hub
from opd.models.loading import load_config
from opd.tasks.files import load
from opd.types import Pretrained, UserError


class Lost(BaseHTTPRequestHandler):
    """Finds nothing."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def lost_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with HTTPServer(("127.0.0.1", 0), Lost) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()
        thread.join()


def test_a_silent_hub_is_asked_once_for_models_and_data(silent_hub: list[str]) -> None:
    for name in ("nobody/small", "nobody/large"):
        with pytest.raises(UserError, match=rf"'{name}'.*the cached files; nor is there a folder of this name here"):
            load_config(Pretrained(name))
    with pytest.raises(UserError, match=r"path: nobody/rows, .*not a local file or folder, and no dataset"):
        load("nobody/rows", columns=["prompt"])
    assert len(silent_hub) == 1
    assert not constants.HF_HUB_OFFLINE, "it may answer later"


def test_a_hub_is_not_asked_where_nobody_may_or_need(
    silent_hub: list[str], student_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_config(Pretrained(str(student_dir)))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="nobody/small"):
        load_config(Pretrained("nobody/small"))
    assert silent_hub == []


@pytest.mark.usefixtures("lost_hub")
def test_a_hub_that_says_no_has_answered() -> None:
    assert hub.answers()
    with hub.asked("nobody/small"):
        assert not constants.HF_HUB_OFFLINE
