"""Errors call a part what one writes for it in a config."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import opd
from opd.called import called
from opd.config.catalog import options
from opd.config.compose import load
from opd.objectives import GRPO, ReverseKL, Term, Weighted
from opd.teachers.own import SelfTeacher

NEEDED = {"by_task": ["source.tasks={}"], "recorded": ["source.path=r"]}


@dataclass(frozen=True)
class Own:
    """A part of somebody's own."""


@pytest.mark.parametrize("group", ["source", "rollout", "devices"])
def test_what_a_part_is_called_composes_to_its_class(config: Path, group: str) -> None:
    for name in options(group):
        part = getattr(load(str(config), [f"{group}={name}", "objective=sft", *NEEDED.get(name, [])]).config, group)
        again = [f"{group}={called(group, part)}", "objective=sft", *NEEDED.get(name, [])]
        assert type(getattr(load(str(config), again).config, group)) is type(part)
        assert called(group, part) in options(group)


def test_what_several_options_or_none_are_of_is_called_by_its_settings_or_its_class() -> None:
    assert called("teacher", SelfTeacher(weights="base")) == "self_base"
    assert called("teacher", SelfTeacher(weights="ema", decay=0.5)) == "self_ema"
    near, kl = Term(GRPO()), Term(ReverseKL())
    assert called("objective", Weighted(terms={"reward": near, "teacher": kl})) == "reverse_kl_grpo"
    assert called("objective", Weighted(terms={"mine": near})) == "opd.objectives.weighted.Weighted"
    assert called("source", Own()) == f"{__name__}.Own"


def test_no_message_has_a_class_in_the_place_of_what_one_writes() -> None:
    folder = Path(opd.__file__).parent
    named = re.compile(r"\w=\{type\(|\w=\"\s+f\"\{type\(")
    assert [p.name for p in folder.rglob("*.py") if named.search(p.read_text(encoding="utf-8"))] == []
