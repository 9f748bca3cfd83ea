"""The models that ship are those of the configs, and are used without anything being made."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from opd.commands import ship
from opd.config.compose import load
from opd.models import shelf
from opd.models.tiny import Tiny
from opd.types import UserError
from tests.models.test_tiny import TINY


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the checkpoints of a test in its own folder."""
    monkeypatch.setenv("OPD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", ship.CONFIGS)
def test_the_settings_of_the_configs_lead_to_the_shelf(name: str, own_cache: Path) -> None:
    config = load(name).config
    for model in (config.student.model, config.teacher.model):
        assert Path(model.path()).parent == shelf.SHELF, (
            f"conf={name} has settings whose model does not ship, so that every user trains it: "
            "python -m opd.commands.ship makes it, and then figures in README.md and recipes have to be measured again"
        )
    assert not own_cache.exists()


def test_nothing_else_is_on_the_shelf_than_these_models_and_their_checksums() -> None:
    used = {Path(model.path()).name for model in ship.models().values()}
    assert {p.name for p in shelf.SHELF.iterdir()} == used | {shelf.SUMS}


def test_what_ships_can_be_loaded_and_is_no_larger_than_it_has_to_be() -> None:
    for label, model in ship.models().items():
        folder = Path(model.path())
        assert folder.name.startswith(f"{label}-")
        assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == model.hidden_size
    assert sum(f.stat().st_size for f in shelf.SHELF.rglob("*")) < 5e6


def test_other_settings_are_made_and_cached(own_cache: Path) -> None:
    assert Path(TINY.path()).parent == own_cache


def test_a_shelf_is_filled_anew_and_what_was_on_it_is_gone(tmp_path: Path) -> None:
    place = tmp_path / "shipped"
    (place / "old-tiny-1").mkdir(parents=True)
    ship.remake(place, {"new": TINY})
    (folder,) = (f for f in place.iterdir() if f.is_dir())
    assert folder.name.startswith("new-tiny-")
    assert shelf.find(folder.name.removeprefix("new-"), place) == folder
    assert [p.name for p in tmp_path.glob("shipped*")] == ["shipped"]


def test_a_shelf_stays_as_it_was_where_making_a_model_fails(tmp_path: Path) -> None:
    place = tmp_path / "shipped"
    (place / "old-tiny-1").mkdir(parents=True)
    with pytest.raises(UserError):
        ship.remake(place, {"new": TINY, "wrong": Tiny(task=3)})
    assert [p.name for p in place.iterdir()] == ["old-tiny-1"]
    assert [p.name for p in tmp_path.glob("shipped*")] == ["shipped"]
