"""Checkpoints that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd.models import shelf
from opd.types import UserError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A shelf with two folders on it."""
    for name in ("teacher-tiny-1", "student-tiny-2"):
        (tmp_path / "shipped" / name).mkdir(parents=True)
        (tmp_path / "shipped" / name / "config.json").write_text(name)
        (tmp_path / "shipped" / name / "model.safetensors").write_bytes(b"weights")
    shelf.write_sums(tmp_path / "shipped")
    return tmp_path / "shipped"


def test_a_folder_is_found_by_the_name_that_the_cache_gives_it_and_no_other_is(place: Path) -> None:
    assert shelf.find("tiny-1", place) == place / "teacher-tiny-1"
    assert shelf.find("tiny-2", place) == place / "student-tiny-2"
    assert shelf.find("tiny-3", place) is None
    assert shelf.find("tiny-1", place / "nowhere") is None


@pytest.mark.parametrize("how", ["changed", "missing", "more", "unlisted"])
def test_what_is_not_as_it_was_is_refused_by_name_with_what_to_do(place: Path, how: str) -> None:
    file = place / "teacher-tiny-1" / "model.safetensors"
    if how == "changed":
        file.write_bytes(b"Weights")
    elif how == "missing":
        file.unlink()
    elif how == "more":
        file = file.with_name("model2.safetensors")
        file.write_bytes(b"weights")
    else:
        lines = (place / shelf.SUMS).read_text().splitlines(keepends=True)
        (place / shelf.SUMS).write_text("".join(line for line in lines if "teacher-tiny-1/model" not in line))
    said = r"not as it came with opd.*; reinstall opd, or .*python -m opd\.commands\.ship"
    with pytest.raises(UserError, match=said) as error:
        shelf.find("tiny-1", place)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)
    assert shelf.find("tiny-2", place), "the other folder is whole"


def test_what_a_file_manager_leaves_there_does_not_matter(place: Path) -> None:
    (place / "teacher-tiny-1" / ".DS_Store").write_bytes(b"icons")
    assert shelf.find("tiny-1", place)
