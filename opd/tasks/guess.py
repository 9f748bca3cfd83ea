"""Which task a file of rows is, by the names of its columns: `data=FILE`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd.tasks.files import CHATS, load, locate
from opd.tasks.readers import read
from opd.tasks.rows import Rows
from opd.types import UserError

PROMPTS = ("prompt", *CHATS, "question", "instruction", "problem", "query", "input", "text")
ANSWERS = ("answer", "answers", "expected_answer", "final_answer", "ground_truth", "solution", "target", "label",
           "answerKey")  # fmt: skip
CHOICES = ("choices", "options", "endings")
EACH = re.compile(r"(?:option|choice|op)?([a-j])")
"""How columns are called that hold a choice each."""
COMPLETIONS = ("completion", "response", "output", "chosen")
INPUTS = ("input", "context")
"""Beside an instruction: what it is about."""
"""What columns are called, the likeliest names first."""
READ = {"system_column": ("system turns", Rows.system_column), "tools_column": ("tools", Rows.tools_column)}
"""What a task reads wherever rows have it, by its setting."""
MOST = 6
"""Columns that are named as not used."""
LONG = 12
"""Words beyond which no completion has an answer in it as it stands."""
LOOKED_AT = 50
"""Rows whose answers are looked at."""


@dataclass(frozen=True)
class Guess:
    """A task's settings under its name, and a line that says what was made of the file."""

    name: str
    settings: Mapping[str, Any]
    said: str


def guess(path: str, given: Mapping[str, Any] | None = None) -> Guess:
    """Look at a file's columns and its first answers.

    Args:
        path: The file.
        given: Settings by their keys; columns that are named in them (`data.tasks.NAME.prompt_column`) are taken.

    Raises:
        UserError: the file cannot be read, or no column is called as prompts are.
    """
    try:
        return _guessed(path, given or {})
    except UserError as error:  # whoever typed data=FILE knows of no path
        raise UserError(re.sub(r"^path: ", "data: ", str(error))) from error


def _guessed(path: str, given: Mapping[str, Any]) -> Guess:
    columns = _columns(path)
    name = re.sub(r"\W+", "_", Path(path).name.split(".")[0]).strip("_").lower() or "rows"
    named = {"prompt": PROMPTS, "answer": ANSWERS, "completion": COMPLETIONS}
    prompt, answer, completion = (
        column if (column := given.get(f"data.tasks.{name}.{kind}_column")) in columns else _first(names, columns)
        for kind, names in named.items()
    )
    if prompt is None:
        raise UserError(
            f"data={path}: no column is called as prompts are ({', '.join(PROMPTS)}); there are {', '.join(columns)}; "
            f"rename it, or name it:  data={path} data.tasks.{name}.prompt_column=COLUMN (and answer_column)"
        )
    settings: dict[str, Any] = {"_target_": "opd.tasks.text.Prompts", "path": path, "prompt_column": prompt}
    said = [f"prompts from {prompt}"]
    about = _first(INPUTS, columns) if prompt == "instruction" and completion and answer is None else None
    if about and completion:  # without it many rows would be the same prompt
        settings |= {"_target_": "opd.tasks.rouge.RougeL", "input_column": about, "answer_column": completion}
        said = [
            f"prompts from {prompt} and {about}",
            f"answers from {completion}: Rouge-L, and sources may train on them",
        ]
        completion = None
    elif answer is not None:
        choices = _choices(columns)
        target, how = _compared(path, answer, choices)
        settings |= {"_target_": target, "answer_column": answer}
        if target.endswith("ExactMatch"):
            settings["within"] = True
        elif target.endswith("MultipleChoice"):
            settings |= {"choices_column": choices, "suffix": "\n\nAnswer with the letter alone."}
        said.append(f"answers from {answer}: {how}")
    else:
        said.append("no answers, so nothing is verified")
    used = {key: column for key, (_, usual) in READ.items() if (column := _first((usual,), columns))}
    said += [f"{READ[key][0]} from {column}" for key, column in used.items()]
    settings |= {key: column for key, column in used.items() if column != READ[key][1]}
    if completion is not None:
        settings["completion_column"] = completion
        said.append(f"completions from {completion}, for sources that train on them")
    taken = {
        c for value in (*settings.values(), *used.values()) for c in (value if isinstance(value, list) else [value])
    }
    if unused := [c for c in columns if c not in taken]:
        said.append(f"not used: {', '.join(unused[:MOST])}" + (", ..." if len(unused) > MOST else ""))
    kind = str(settings["_target_"]).rpartition(".")[2]
    return Guess(name, settings, f"{path} is data.tasks.{name} ({kind}): {'; '.join(said)}")


def _columns(path: str) -> Sequence[str]:
    place = locate(path)
    if not place.is_file():
        load(path, columns=())  # says what is wrong
    found = next(iter(read(place, ())), None)
    if found is None:
        raise UserError(f"data={path}: it has no rows")
    return list(found[1])


def _first(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """The column that is called by the first of these names; by one in capitals or with blanks where none is."""
    alike = {_bare(column): column for column in reversed(columns)}
    exact = next((name for name in names if name in columns), None)
    return exact or next((alike[_bare(name)] for name in names if _bare(name) in alike), None)


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def _choices(columns: Sequence[str]) -> str | list[str]:
    """The column of the choices, or the columns that hold one each; empty where there are none."""
    each = {match[1]: column for column in columns if (match := EACH.fullmatch(_bare(column)))}
    in_order = [each[letter] for letter, _ in zip("abcdefghij", each, strict=False) if letter in each]
    return _first(CHOICES, columns) or (in_order if len(in_order) == len(each) > 1 else "")


def _compared(path: str, column: str, choices: str | list[str]) -> tuple[str, str]:
    """The task that compares such answers, and how it does."""
    wanted = [column, *([choices] if isinstance(choices, str) else choices)]
    rows = [row for _, _, row in itertools.islice(read(locate(path), wanted), LOOKED_AT)]
    if choices and (isinstance(choices, list) or all(isinstance(row.get(choices), list | Mapping) for row in rows)):
        shown = choices if isinstance(choices, str) else ", ".join(choices)
        return "opd.tasks.multiple_choice.MultipleChoice", f"one of {shown}, by its place, label, letter or text"
    answers = [str(row.get(column, "")) for row in rows]
    if all("####" in text for text in answers):
        return "opd.tasks.gsm8k.Gsm8k", "the number behind ####"
    if all("\\boxed" in text for text in answers):
        return "opd.tasks.math.Math", "what is in the last box, as mathematics"
    if 2 * sum(len(text.split()) > LONG for text in answers) > len(answers):
        return "opd.tasks.rouge.RougeL", "long texts: Rouge-L, and sources may train on them"
    if all(re.fullmatch(r"\s*[A-J]\s*", text) for text in answers):
        seen = "right where the letter stands in the completion (do the prompts say what it stands for?)"
        return "opd.tasks.exact_match.ExactMatch", seen
    return "opd.tasks.exact_match.ExactMatch", "right where it stands in the completion (within=false: where it is all)"
