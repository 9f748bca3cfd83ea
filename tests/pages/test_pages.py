"""What of the pages is made from the code is as the code is now."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from opd.config.catalog import groups, options
from opd.config.compose import load
from opd.run.metrics import read_metrics
from tests.pages import config as reference
from tests.pages import hardware, part
from tests.tiny import cli_code

ROOT = Path(__file__).parents[2]


def test_the_reference_of_settings_is_not_stale() -> None:
    assert part(reference.PAGE) == reference.made(), "make docs"


@pytest.mark.slow
def test_the_page_of_hardware_is_as_the_plan_is_now() -> None:
    page = hardware.PAGE.read_text(encoding="utf-8")
    assert all(" ".join(settings) in page for settings in (hardware.WORK, hardware.ALL))
    assert len([line for line in part(hardware.PAGE).splitlines() if line.startswith("| Qwen")]) == len(hardware.ROWS)
    assert hardware.made(hardware.ROWS[:1]).splitlines()[-1] in part(hardware.PAGE), "make docs"


def keys(settings: object, key: str = "") -> list[str]:
    """Full names of the settings of a part, without those of parts that a mapping holds, and of models."""
    found = []
    for f in (f for f in fields(settings) if f.init):
        name, inner = f"{key}.{f.name}".lstrip("."), getattr(settings, f.name)
        found += keys(inner, name) if is_dataclass(inner) and f.name != "model" else [name]
    return found


@pytest.mark.parametrize("overrides", [
    [], ["student=lora"], ["objective=gkd"], ["teacher=server", "objective=top_k"], ["rollout=hf", "devices=apart"],
])  # fmt: skip
def test_every_setting_that_a_run_has_is_in_the_reference(overrides: list[str]) -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    had = keys(load("quickstart", overrides).config)
    assert len(had) > 60
    assert [key for key in had if f"| `{key}` |" not in page] == []


def test_every_choice_of_a_part_is_in_the_reference() -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    assert {g for g in groups() if g in reference.KINDS} == reference.GROUPS
    assert [f"{g}={o}" for g in reference.GROUPS for o in options(g) if f"`{g}={o}`" not in page] == []


# Metrics

GLOSSARY = [reference.PAGE.with_name(f"{name}.md") for name in ("metrics", "evaluation", "costs")]
KINDS = "kl|rollout|optim|perf|eval|cost"


def explained() -> re.Pattern[str]:
    """Names in the tables of the glossary; PHASE and K stand for any."""
    rows = [line for page in GLOSSARY for line in page.read_text(encoding="utf-8").splitlines()
            if line.startswith("| `")]  # fmt: skip
    names = [re.escape(name) for row in rows for name in re.findall(rf"`((?:{KINDS})/[^`]+)`", row)]
    anything = "|".join(re.sub("PHASE|K", r"\\w+", name) for name in names)
    return re.compile(rf"({anything})(/\w+)?")  # the task behind it


def test_every_metric_that_a_tiny_run_writes_is_in_the_glossary(config: Path, tmp_path: Path) -> None:
    assert cli_code(["train", f"conf={config}", f"run={tmp_path / 'run'}", "steps=1", "eval.n=2", "eval.k=[1,2]"]) == 0
    written = {name for row in read_metrics(tmp_path / "run" / "metrics.jsonl") for name in row} - {"step"}
    assert len(written) > 40
    assert sorted(name for name in written if not explained().fullmatch(name)) == []


def test_every_metric_that_the_code_names_is_in_the_glossary() -> None:
    known, named = explained(), set()
    for path in (ROOT / "opd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and re.fullmatch(rf"({KINDS})/[a-z_]+\d?", str(node.value)):
                named.add(node.value)
    assert len(named) > 40
    assert sorted(name for name in named if not known.fullmatch(name)) == []


def test_a_metric_that_is_not_explained_is_noticed() -> None:
    assert explained().fullmatch("perf/update_share")
    assert explained().fullmatch("eval/accuracy/sums")
    assert not explained().fullmatch("kl/forward")
    assert not explained().fullmatch("perf/update_flops")
