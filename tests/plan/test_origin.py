"""A model that is made on first use has the sizes that it is planned with, and is not made for that."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from opd.config.compose import load
from opd.models.gguf import PackagedGguf, SplitGguf
from opd.models.pruned import Pruned
from opd.models.tiny import Tiny
from opd.plan.origin import Made, config_of, origin
from opd.plan.shape import read_shape
from opd.types import Pretrained, UserError
from tests.tiny import cli_code, save_model


def same(source: Tiny | Pruned | PackagedGguf) -> bool:
    """Whether a made model has the planned shapes; makes it, if it does not ship."""
    planned, real = read_shape(Made(source)), read_shape(Pretrained(source.path()))
    return (planned.weights, planned.head, planned.cache) == (real.weights, real.head, real.cache)


@pytest.mark.parametrize("conf", ["quickstart", "gold"])
def test_models_that_ship_are_as_planned(conf: str) -> None:
    config = load(conf).config
    for model in (config.student.model, getattr(config.teacher, "model", None)):
        assert isinstance(model, Tiny)
        assert same(model)


def test_a_model_without_some_layers_is_as_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPD_CACHE", str(tmp_path / "cache"))
    source = Pruned(str(save_model(tmp_path / "base", "qwen3", seed=0, tied=False, layers=4)), (1, 2))
    assert read_shape(Made(source)).layers == 2
    assert not (tmp_path / "cache").exists()
    assert same(source)


@pytest.mark.slow
@pytest.mark.parametrize("source", [PackagedGguf(), SplitGguf()], ids=["smollm2", "gemma"])
def test_models_of_packages_are_as_planned(source: PackagedGguf) -> None:
    package = getattr(source, "parts", [source.package])[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    assert same(source)


def test_planning_makes_no_model_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPD_CACHE", str(tmp_path / "cache"))
    assert cli_code(["plan", "conf=quickstart", "student.model.seed=5", "--gpu", "l4"]) == 0
    assert cli_code(["plan", "conf=smollm2", "--gpu", "l4"]) == 0
    assert not list(tmp_path.iterdir())


def test_sources_whose_sizes_are_known_only_when_made_are_refused() -> None:
    source = PackagedGguf(package="mine", file="mine.gguf", hub="me/mine")
    with pytest.raises(UserError, match=r"PackagedGguf\(me/mine\): it is made on first use.*name a folder"):
        config_of(origin(source))
    assert origin("me/mine", True) == Pretrained("me/mine", True)
