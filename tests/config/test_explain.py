"""`opd config explain`: what a setting means, may be, is, and who has set it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from opd.config.annotations import alternatives
from opd.config.catalog import PACKAGED, described, groups
from opd.config.explain import _comment, docs, explain
from opd.config.settings import Config
from opd.types import UserError
from tests.tiny import cli_code


@pytest.mark.parametrize(("key", "conf", "overrides", "value", "origin"), [
    ("optim.lr", "quickstart", [], "0.001", "conf/models/quickstart.yaml"),
    ("optim.lr", "math_qwen", [], "0.0001", "conf/math_qwen.yaml"),
    ("optim.lr", "math_qwen", ["optim.lr=3e-5"], "3e-05", "optim.lr=3e-5"),
    ("student.lora.rank", "math_qwen", [], "128", "conf/math_qwen.yaml"),
    ("student.gradient_checkpointing", "math_qwen", [], "true", "conf/student/lora.yaml"),
    ("rollout.threads", "quickstart", [], "1", "conf/rollout/vllm_tiny.yaml"),
    ("rollout.batch_size", "quickstart", ["rollout=hf"], "256", "conf/rollout/hf.yaml"),
    ("data.max_prompt_tokens", "quickstart", ["data.max_prompt_tokens=20"], "20", "data.max_prompt_tokens=20"),
    ("checkpoint.keep", "quickstart", [], "2", "conf/base.yaml"),
    ("reference", "quickstart", [], "null", "conf/base.yaml"),
    ("optim.eps", "quickstart", [], "1e-08", ""),
])  # fmt: skip
def test_a_setting_has_its_value_and_who_has_set_it(
    key: str, conf: str, overrides: list[str], value: str, origin: str
) -> None:
    found = explain(key, conf, overrides)
    assert found.value == value
    assert found.origin.endswith(origin)
    assert bool(found.origin) == bool(origin)


def test_a_config_of_ones_own_is_named_before_what_it_starts_from(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("defaults: [base, {models: quickstart}, _self_]\nname: own\noptim: {lr: 0.5}  # too high\n")
    assert explain("optim.lr", str(own)).origin == str(own)
    assert explain("optim.schedule", str(own)).origin.endswith("conf/models/quickstart.yaml")


def test_a_part_has_its_settings_and_a_group_its_options() -> None:
    part = explain("objective", "quickstart", ["objective=gkd"])
    assert part.value == "opd.objectives.gkd.GKD"
    assert "top_k" in part.options
    assert part.settings["beta"].startswith("1.0 ")
    assert part.allowed == ""
    inner = explain("objective.beta", "quickstart", ["objective=gkd"])
    assert (inner.value, inner.default, inner.options) == ("1.0", "0.5", ()) or inner.default
    assert "a number" in inner.allowed


def test_a_setting_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"^optim\.lrr: no such setting, did you mean lr\? optim has lr, betas"):
        explain("optim.lrr", "quickstart")
    with pytest.raises(UserError, match=r"^optim\.lr\.x: no such setting; optim\.lr has no settings of its own"):
        explain("optim.lr.x", "quickstart")
    with pytest.raises(UserError, match=r"^lr: no such setting, did you mean optim\.lr\? allowed here: "):
        explain("lr", "quickstart")
    with pytest.raises(UserError, match=r"^objectiv: no such setting, did you mean objective\?"):
        explain("objectiv", "quickstart")


def parts() -> Iterator[tuple[type[Any], str]]:
    """Every dataclass that a config which ships is made of, with the key that it stands at."""
    found: dict[str, str] = {}

    def look(node: Any, key: str) -> None:
        if isinstance(node, dict):
            if str(node.get("_target_", "")).startswith("opd."):
                found.setdefault(node["_target_"], key)
            for name, inner in node.items():
                look(inner, f"{key}.{name}" if key else name)
        elif isinstance(node, list):
            for inner in node:
                look(inner, key)

    for file in PACKAGED.rglob("*.yaml"):
        look(yaml.safe_load(file.read_text()), file.parent.name if file.parent != PACKAGED else "")
    todo: list[tuple[type[Any], str]] = [(Config, "")]
    for name, key in found.items():
        module, _, attribute = name.rpartition(".")
        todo.append((getattr(importlib.import_module(module), attribute), key))
    seen: set[type[Any]] = set()
    while todo:
        cls, key = todo.pop()
        if cls not in seen:
            seen.add(cls)
            yield cls, key
            for name, hint in get_type_hints(cls).items():
                todo += [(a, f"{key}.{name}" if key else name) for a in alternatives(hint) if is_dataclass(a)]


def test_every_setting_says_what_it_means() -> None:
    silent = [
        f"{cls.__name__}.{f.name}"
        for cls, key in parts()
        for f in fields(cls)
        if f.init and f.name not in groups() and not docs(cls).get(f.name)
        and not any(map(is_dataclass, alternatives(get_type_hints(cls)[f.name])))  # which says so itself
        and not _comment(f"{key}.{f.name}" if key else f.name, PACKAGED / "base.yaml")
    ]  # fmt: skip
    assert silent == []


@pytest.mark.parametrize("group", groups())
def test_every_option_of_a_group_has_a_comment(group: str) -> None:
    found = described(group)
    assert found
    assert [name for name, text in found.items() if not text] == []


def test_the_commands_print_both_for_people_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["config", "explain", "sampling.n"]) == 0
    assert "sampling.n = 1\n  Samples per prompt.\n  allowed:  a whole number from 1" in capsys.readouterr().out
    assert cli_code(["config", "explain", "sampling.n", "conf=math_qwen", "sampling.n=8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["origin"] == "sampling.n=8"
    assert cli_code(["config", "ls", "objective", "--json"]) == 0
    assert "gkd" in json.loads(capsys.readouterr().out)
    assert cli_code(["config", "ls", "objectiv"]) == 2
    assert "did you mean objective?" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [
    (["teacher.url"], "teacher=server has it: opd config explain teacher.url teacher=server"),
    (["student.lora.rank", "conf=quickstart"], "opd config explain student.lora.rank student=lora"),
    (["data.tasks.mine.path"], "data.tasks has arithmetic (in conf=quickstart: no conf=NAME is given)"),
    (["conf=gkd"], "the first word is a setting's name, as in opd config explain optim.lr conf=gkd"),
])  # fmt: skip
def test_what_cannot_be_explained_says_what_can(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_code(["config", "explain", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    for proposed in (said.partition("opd config ")[2].split(),) if "has it" in err else ():
        assert cli_code(["config", *proposed]) == 0  # what is proposed works


def test_without_a_setting_all_parts_of_a_config_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["config", "explain", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert [*parts] == [f.name for f in fields(Config)]
    assert all(parts.values())
