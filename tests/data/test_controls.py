"""Special tokens that rows write as text, and characters that nobody knows, are told of with row and token."""

import json
from pathlib import Path

import pytest

from opd.data.controls import Controls
from opd.data.prompts import Data
from opd.tasks.text import Prompts
from opd.types import Example
from tests.text.test_chat import TEMPLATE, tokenizer
from tests.tiny import cli_code

PLAIN = [{"role": "user", "content": "hi you"}]


def rows(tmp_path: Path, *cells: object) -> Prompts:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps({'prompt': cell})}\n" for cell in cells), encoding="utf-8")
    return Prompts(path=str(file), eval_fraction=0)


@pytest.mark.parametrize("template", [TEMPLATE, None], ids=["chat", "plain"])
def test_rows_that_write_special_tokens_are_counted_and_the_first_is_named(
    template: str | None, tmp_path: Path
) -> None:
    task = rows(tmp_path, "hi you", "end<eos><|user|>me", "an <eos> again", "a and b")
    (said,) = Data(tasks={"mine": task}).start(tokenizer(template), 0).misread()
    assert said.startswith("data.tasks.mine: 2 of 4 rows write special tokens")
    assert f"'<eos>' in {tmp_path}/rows.jsonl, line 2" in said
    assert ("data.template=plain" in said) == (template is not None)


def test_what_the_template_writes_itself_is_nothing_to_be_told(tmp_path: Path) -> None:
    assert not [*Data(tasks={"mine": rows(tmp_path, PLAIN)}, system="be kind").start(tokenizer(), 0).misread()]


@pytest.mark.parametrize(
    "example",
    [
        Example("", ({"role": "system", "content": "be <pad>"}, *PLAIN)),
        Example("", tuple(PLAIN), completion="no<pad>"),
        Example("", tuple(PLAIN), completion="no", closing={"reasoning_content": "so<pad>"}),
    ],
)
def test_turns_answers_and_thoughts_are_all_looked_at(example: Example) -> None:
    assert Controls(tokenizer()).first(example) == "<pad>"


def test_a_tokenizer_that_splits_special_tokens_in_texts_reads_none() -> None:
    made = tokenizer()
    made.split_special_tokens = True
    assert not Controls(made).first(Example("", ({"role": "user", "content": "a<eos>b"},)))


def test_prompts_with_characters_that_nobody_knows_are_counted(tmp_path: Path) -> None:
    task = rows(tmp_path, "hi you", "WHAT is it?", "a 1")
    (said,) = Data(tasks={"mine": task}).start(tokenizer(), 0).misread()
    assert said.startswith("data.tasks.mine: 2 of 3 prompts have characters that the student's tokenizer does not know")
    assert f"such as 'WHAT?', and reads as one and the same (the first: {tmp_path}/rows.jsonl, line 2)" in said


def test_a_dry_run_and_a_run_both_tell(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "1 of 3 rows write special tokens, which the student's tokenizer reads as such and not as text (the first: "
    said += f"'<eos>' in {tmp_path}/rows.jsonl, line 2)"
    task = rows(tmp_path, "1+1", "1<eos>+1", "2+1")
    order = ["train", f"conf={config}", f"run={tmp_path / 'run'}", f"data={task.path}", "steps=1", "eval.every=0",
             "sampling.max_tokens=2", "data.max_prompt_tokens=50", "data.tasks.rows.eval_fraction=0"]  # fmt: skip
    assert cli_code([*order, "--dry-run"]) == 0
    assert capsys.readouterr().out.count(said) == 1
    assert cli_code([*order, "--quiet"]) == 0
    assert " ".join(capsys.readouterr().err.split()).count(said) == 1
