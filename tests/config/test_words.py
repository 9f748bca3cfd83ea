"""What other trainers call the settings is answered with what they are called here."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from opd.config.compose import load
from opd.config.explain import explain
from opd.config.schema import build
from opd.config.settings import Config
from opd.config.words import ELSEWHERE, here
from opd.types import UserError
from tests.tiny import cli_code

VARIANTS = [
    (), ("student=lora",), ("objective=gkd", "source=mixed"), ("devices=ranks", "devices.ranks=2"),
    ("devices=apart",),
]  # fmt: skip


def keys(node: object, at: str = "") -> set[str]:
    """All settings below one, with dots."""
    items = node.items() if isinstance(node, dict) else vars(node).items() if hasattr(node, "__dict__") else ()
    below = [(f"{at}.{name}" if at else name, value) for name, value in items]
    return {name for name, _ in below} | {deeper for name, value in below for deeper in keys(value, name)}


def test_every_answer_names_settings_that_there_are() -> None:
    there = {key for overrides in VARIANTS for key in keys(load("quickstart", overrides).config)} | {"run", "conf.data"}
    named = {name for said in ELSEWHERE for name in re.findall(r"[a-z_]+(?:\.[a-z_]+)*(?==)|[a-z_]+\.[a-z_]+", said)}
    assert {"optim.lr", "student.lora", "source.shares", "run"} <= named
    assert named - there == {"data.tasks"} - there


def test_no_word_has_two_answers_and_none_is_a_setting_of_a_run() -> None:
    words = Counter(word for said in ELSEWHERE.values() for word in said)
    assert max(words.values()) == 1
    assert words.keys() & {*Config.__dataclass_fields__} == set()


@pytest.mark.parametrize(("given", "said"), [
    ("learning_rate=1e-5", "learning_rate=1e-05: no such setting, here it is optim.lr;"),
    ("optim.learning-rate=1", "here it is optim.lr;"),
    ("num_generations=8", "here it is sampling.n;"),
    ("sampling.max_new_tokens=8", "here it is sampling.max_tokens;"),
    ("lora_r=16", "here it is student=lora student.lora.rank;"),
    ("seq_kd=true", "here it is source=teacher,"),
    ("lmbda=0.7", "'source.shares={student: 0.5, dataset: 0.5}'"),
    ("gradient_accumulation_steps=8", "data.prompts_per_step is of a whole optimizer step"),
    ("student.lora.r=16", "here it is student=lora student.lora.rank;"),
    ("lr=1", "did you mean optim.lr?"),
    ("sampling.max_tokns=1", "did you mean max_tokens?"),
])  # fmt: skip
def test_a_mistake_says_what_it_is_here(given: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_code(["config", "show", "quickstart", given]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("part", [(), *VARIANTS[1:], ("rollout=hf",)])
def test_a_word_has_the_same_answer_whatever_the_run_is_made_of(part: tuple[str, ...]) -> None:
    settings = load("quickstart", part).settings
    for said, word in [(said, word) for said, words in ELSEWHERE.items() for word in words]:
        with pytest.raises(UserError, match=rf"^{word}=4: .*here it is {re.escape(said)};"):
            build(Config, {**settings, word: 4})


def test_explain_answers_another_trainers_word_as_a_setting_does() -> None:
    with pytest.raises(UserError, match=r"^optim.learning_rate: no such setting, here it is optim.lr; optim has lr"):
        explain("optim.learning_rate", "quickstart")


def test_a_word_of_nobodys_has_no_answer() -> None:
    assert here("flux_capacitor") == ""
    with pytest.raises(UserError, match=r"flux_capacitor=1: no such setting; allowed here"):
        load("quickstart", ["flux_capacitor=1"])


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("devices.ranks=2", r"no such setting, devices=apart or ranks or ray has it; allowed here: ahead"),
        ("teacher.decay=0.5", r"no such setting, teacher=self_base or self_ema or self_live has it"),
        ("rollout.batch_size=2", r"no such setting, rollout=hf has it"),
    ],
)
def test_a_setting_of_another_option_of_its_group_is_named_with_that(typed: str, says: str) -> None:
    with pytest.raises(UserError, match=f"^{typed}: {says}"):
        load("quickstart", [typed])
