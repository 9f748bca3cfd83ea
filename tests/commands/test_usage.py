"""The lines that use an export are for what it is, and for where it is."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from opd.commands.export.formats import Written
from opd.commands.export.order import Order
from opd.commands.export.usage import forms, lines
from opd.run.checkpoint import Checkpoint
from opd.run.directory import RunFolder
from opd.types import Pretrained

SUBJECT: Any = SimpleNamespace(
    base=Pretrained("the/base"), config=SimpleNamespace(name="Mine"), run=RunFolder(Path("/my runs/a")),
    checkpoint=Checkpoint(Path("/my runs/a/checkpoints/step_000020")), made=SimpleNamespace(overrides=("threads=1",)),
)  # fmt: skip
HERE = "/a folder/x"


def shown(order: Order, where: str, chat: bool = False) -> dict[str, str]:
    folder = Path(where)
    written = Written(folder, order, folder / "Mine-F16.gguf")
    return dict(lines(SUBJECT, written, where, hub=where == "me/mine", chat=chat))


@pytest.mark.parametrize(
    "order", [Order(), Order(quantize="int8"), Order(quantize="int4"), Order(adapter=True), Order(format="gguf")]
)
@pytest.mark.parametrize("where", [HERE, "me/mine", '/a $HOME `x`/"y"!'])
@pytest.mark.parametrize("chat", [False, True])
def test_there_are_lines_that_a_shell_takes_and_python_compiles(order: Order, where: str, chat: bool) -> None:
    found = shown(order, where, chat)
    assert 2 <= len(found) <= 3
    assert not any("opd " in line or "/my runs" in line for line in found.values())  # a card goes to whoever has no run
    for line in found.values():
        words = shlex.split(line)
        if words[0] == "python":
            compile(words[2], "line", "exec")
            assert where in words[2]


def test_what_vllm_does_not_read_is_not_given_to_it() -> None:
    assert "vLLM" in shown(Order(quantize="int8"), HERE)
    assert "vLLM" not in shown(Order(quantize="int4"), HERE)


@pytest.mark.parametrize("order", [Order(), Order(quantize="int8"), Order(quantize="int4")])
def test_a_student_of_chats_is_asked_in_one(order: Order) -> None:
    assert "p([{'role': 'user', 'content': 'What is 1+2?'}])" in shown(order, HERE, chat=True)["transformers"]
    assert "p('1+2=')" in shown(order, HERE, chat=False)["transformers"]


def test_a_file_on_the_hub_is_fetched_from_there() -> None:
    assert shown(Order(format="gguf"), "me/mine")["Ollama"] == "ollama run hf.co/me/mine"
    assert shown(Order(format="gguf"), HERE)["llama.cpp"] == "llama-server -m '/a folder/x/Mine-F16.gguf'"


def test_an_adapter_goes_onto_the_model_that_it_was_made_from() -> None:
    assert shown(Order(adapter=True), HERE)["vLLM"] == (
        "vllm serve the/base --enable-lora --lora-modules mine='/a folder/x'"
    )


@pytest.mark.parametrize(("order", "more"), [(Order(), ["--format", "gguf"]), (Order(adapter=True), [])])
def test_another_form_is_of_the_same_run_and_step(order: Order, more: list[str]) -> None:
    (line,) = forms(SUBJECT, order).values()
    assert shlex.split(line) == ["opd", "export", "run=/my runs/a", "step=20", *more, "threads=1"]
