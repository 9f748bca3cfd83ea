"""Stamps: what is done, what is half done, and what is not the runner's to remove."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opd.recipe.stamps import Stamps
from opd.types import UserError


@pytest.fixture
def stamps(tmp_path: Path) -> Stamps:
    return Stamps(tmp_path)


def left(stamps: Stamps, stage: str) -> Path:
    """A file in a stage's place."""
    file = stamps.folder / stage / "half"
    file.parent.mkdir()
    file.write_text("")
    return file


def test_a_stage_is_done_once_it_has_ended(stamps: Stamps) -> None:
    stamps.begin("a", "one")
    assert not stamps.done("a", "one")
    stamps.end("a", "one", 2.5)
    assert stamps.done("a", "one")
    assert stamps.seconds("a") == 2.5


def test_a_folder_that_no_stamp_tells_of_is_never_removed(stamps: Stamps) -> None:
    file = left(stamps, "a")
    with pytest.raises(UserError, match="no stamp says that this stage was begun"):
        stamps.begin("a", "one")
    assert file.exists()


@pytest.mark.parametrize("kind", ["started", "done"])
@pytest.mark.parametrize("text", ["", '{"says": "on', "[]", "null", '{"seconds": 1}'])
def test_a_truncated_stamp_is_one_of_a_stage_that_must_begin_anew(stamps: Stamps, kind: str, text: str) -> None:
    stamps.begin("a", "one")
    stamps.end("a", "one", 1.0)
    file = left(stamps, "a")
    (stamps.folder / kind / "a.json").write_text(text)
    if kind == "started":
        stamps.forget("a")
    assert not stamps.done("a", "one")
    stamps.begin("a", "one")
    assert not file.exists()


def test_a_stage_done_before_beginnings_were_stamped_is_done_and_can_be_done_again(stamps: Stamps) -> None:
    (stamps.folder / "done").mkdir()
    (stamps.folder / "done" / "a.json").write_text(json.dumps({"says": "one", "seconds": 3.0}))
    file = left(stamps, "a")
    stamps.adopt()
    assert stamps.done("a", "one")
    assert file.exists()
    stamps.forget("a")
    stamps.begin("a", "two")
    assert not file.exists()
