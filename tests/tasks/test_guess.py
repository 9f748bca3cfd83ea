"""`data=FILE`: which task a file is, by its columns, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from opd.config.compose import load
from opd.tasks.exact_match import ExactMatch
from opd.tasks.guess import guess
from opd.tasks.text import Prompts
from opd.types import UserError
from tests.tiny import cli_code


def written(folder: Path, *rows: Any, name: str = "my-rows.v2.jsonl") -> str:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.mark.parametrize(("row", "kind", "settings"), [
    ({"prompt": "a"}, "Prompts", {"prompt_column": "prompt"}),
    ({"messages": [{"role": "user", "content": "a"}]}, "Prompts", {"prompt_column": "messages"}),
    ({"id": 1, "question": "a", "answer": 4}, "ExactMatch",
     {"prompt_column": "question", "answer_column": "answer", "within": True}),
    ({"question": "a", "answer": "so\n#### 4"}, "Gsm8k", {"prompt_column": "question", "answer_column": "answer"}),
    ({"problem": "a", "solution": "so \\boxed{4}"}, "Math", {"prompt_column": "problem", "answer_column": "solution"}),
    ({"question": "a", "choices": ["b", "c"], "answer": 1}, "MultipleChoice",
     {"prompt_column": "question", "choices_column": "choices", "answer_column": "answer",
      "suffix": "\n\nAnswer with the letter alone."}),
    ({"question": "a", "choices": {"text": ["b", "c"], "label": ["1", "2"]}, "answerKey": "2"}, "MultipleChoice",
     {"prompt_column": "question", "choices_column": "choices", "answer_column": "answerKey",
      "suffix": "\n\nAnswer with the letter alone."}),
    ({"question": "a", "answer": "as " * 7 + "good " * 6}, "RougeL",
     {"prompt_column": "question", "answer_column": "answer"}),
    ({"question": "a", "options": ["b", "c"], "answer": "B"}, "MultipleChoice",
     {"prompt_column": "question", "choices_column": "options", "answer_column": "answer",
      "suffix": "\n\nAnswer with the letter alone."}),
    ({"question": "a", "A": "b", "B": "c", "Answer": "B"}, "MultipleChoice",
     {"prompt_column": "question", "choices_column": ["A", "B"], "answer_column": "Answer",
      "suffix": "\n\nAnswer with the letter alone."}),
    ({"question": "a", "opb": "c", "opa": "b", "answer": "c"}, "MultipleChoice",
     {"prompt_column": "question", "choices_column": ["opa", "opb"], "answer_column": "answer",
      "suffix": "\n\nAnswer with the letter alone."}),
    ({"question": "a", "B": "c", "answer": "c"}, "ExactMatch",
     {"prompt_column": "question", "answer_column": "answer", "within": True}),
    ({"question": "a", "choices": "b, c", "answer": "b"}, "ExactMatch",
     {"prompt_column": "question", "answer_column": "answer", "within": True}),
    ({"instruction": "a", "output": "b"}, "Prompts", {"prompt_column": "instruction", "completion_column": "output"}),
    ({"instruction": "a", "input": "b", "output": "c"}, "RougeL",
     {"prompt_column": "instruction", "input_column": "input", "answer_column": "output"}),
    ({"instruction": "a", "context": "b", "response": "c"}, "RougeL",
     {"prompt_column": "instruction", "input_column": "context", "answer_column": "response"}),
    ({"prompt": "a", "input": "b", "text": "c"}, "Prompts", {"prompt_column": "prompt"}),
    ({"text": "a"}, "Prompts", {"prompt_column": "text"}),
])  # fmt: skip
def test_columns_say_what_a_file_is(row: dict[str, Any], kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, row, row)
    found = guess(path)
    assert found.name == "my_rows"
    assert str(found.settings["_target_"]).endswith(f".{kind}")
    assert {k: v for k, v in found.settings.items() if k not in ("_target_", "path")} == settings
    assert f"data.tasks.my_rows ({kind})" in found.said
    named = [column for name, column in settings.items() if name.endswith("_column")]
    assert all(one in found.said for column in named for one in ([column] if isinstance(column, str) else column))


@pytest.mark.parametrize(("header", "settings"), [
    ("Question ,Answer", {"prompt_column": "Question ", "answer_column": "Answer", "within": True}),
    ("PROMPT, Final Answer", {"prompt_column": "PROMPT", "answer_column": " Final Answer", "within": True}),
    ("Instruction,Response,System", {"prompt_column": "Instruction", "completion_column": "Response",
                                     "system_column": "System"}),
    ("Question,question", {"prompt_column": "question"}),
])  # fmt: skip
def test_columns_in_capitals_or_with_blanks_are_known_too(
    header: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f"{header}\n{','.join('abc'[: header.count(',') + 1])}\n")
    found = guess(str(file))
    assert {k: v for k, v in found.settings.items() if k not in ("_target_", "path")} == settings
    assert load("quickstart", [f"data={file}"]).config.data.tasks["rows"].examples("train") is not None


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    said = guess(written(tmp_path, {"id": 1, "prompt": "a", "answer": "b", "source": "c"})).said
    assert said.endswith("; not used: id, source")
    assert "not used" not in guess(written(tmp_path, {"prompt": "a", "answer": "b"})).said


def test_columns_that_are_read_wherever_they_are_are_not_called_unused(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": "a", "system": "Be brief.", "tools": [], "id": 1}, name="rows.jsonl")
    found = guess(path)
    assert "system turns from system; tools from tools; not used: id" in found.said
    data = load("quickstart", [f"data={path}"]).config.data
    (example,) = (e for split in ("train", "eval") for e in data.tasks["rows"].examples(split))
    assert example.messages[0] == {"role": "system", "content": "Be brief."}


def test_answers_of_several_forms_are_compared_as_texts(tmp_path: Path) -> None:
    rows = {"question": "a", "answer": "#### 4"}, {"question": "b", "answer": "5"}
    assert str(guess(written(tmp_path, *rows)).settings["_target_"]).endswith("ExactMatch")


@pytest.mark.parametrize(("rows", "words"), [
    ([{"x": 1, "y": 2}], r"no column is called as prompts are \(prompt, .*\); there are x, y; rename it, or name it: "),
    ([], "it has no rows"),
    ([3], "my-rows"),
])  # fmt: skip
def test_a_file_that_is_none_is_told_in_one_line(rows: list[Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as caught:
        guess(written(tmp_path, *rows))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    written(tmp_path, {"prompt": "a"})
    with pytest.raises(UserError, match=r"^data: .*my-rows\.jsonl does not exist.*my-rows\.v2\.jsonl"):
        guess(str(tmp_path / "my-rows.jsonl"))


def test_a_file_is_the_data_of_a_config_and_of_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path, {"question": "1+1=", "answer": "2"}, name="a b${x}'.jsonl")
    made = load("quickstart", [f"data={path}", "data.prompts_per_step=7", "data.tasks.a_b_x.limit=3"])
    (task,) = made.config.data.tasks.values()
    assert isinstance(task, ExactMatch)
    assert (task.path, task.limit, task.within) == (path, 3, True)
    assert made.config.data.prompts_per_step == 7
    assert len(made.notes) == 1
    again = tmp_path / "again.yaml"
    again.write_text(made.yaml)
    assert load(str(again)).config.data == made.config.data


def test_what_ships_goes_before_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, {"prompt": "a"}, name="everyday.jsonl")
    assert load("quickstart", ["data=everyday"]).notes == ()
    (task,) = load("quickstart", ["data=everyday.jsonl"]).config.data.tasks.values()
    assert isinstance(task, Prompts)
    assert task.path == "everyday.jsonl"


def test_a_run_says_what_it_made_of_the_file(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"{i}+{j}=", "answer": str(i + j)} for i in range(9) for j in range(9)]
    path = written(tmp_path, *rows, name="sums.jsonl")
    run = tmp_path / "run"
    asked = ["train", f"conf={config}", f"run={run}", "steps=1", "eval.size=2", f"data={path}"]
    assert cli_code([*asked, "--dry-run"]) == 0
    assert "is data.tasks.sums (ExactMatch)" in capsys.readouterr().out
    assert cli_code([*asked, "data.prompts_per_step=2", "data.max_prompt_tokens=16", "data.template=plain"]) == 0
    assert "is data.tasks.sums (ExactMatch): prompts from question; answers from answer" in capsys.readouterr().out


def test_columns_that_are_typed_beside_the_file_are_taken(tmp_path: Path) -> None:
    path = written(tmp_path, {"User Query": "1+1", "Gold": 2, "question": "no"}, name="rows.jsonl")
    data = load("quickstart", [f"data={path}", "data.tasks.rows.prompt_column=User Query",
                               "data.tasks.rows.answer_column=Gold"]).config.data  # fmt: skip
    task = data.tasks["rows"]
    assert isinstance(task, ExactMatch)
    assert (task.prompt_column, task.answer_column, task.within) == ("User Query", "Gold", True)


def test_of_answers_that_are_letters_without_choices_it_is_asked_what_they_stand_for(tmp_path: Path) -> None:
    assert "do the prompts say what it stands for?" in guess(written(tmp_path, {"prompt": "a", "answer": "B"})).said


def test_a_file_of_another_kind_is_no_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.txt").write_text("1+1\n")
    with pytest.raises(UserError, match=r"data=rows.txt: it is there, and is no file of rows \(\.jsonl"):
        load("quickstart", ["data=rows.txt"])
