"""Questions with choices, in the layouts that datasets have."""

import json
from pathlib import Path

import pytest

from opd.data.prompts import Data
from opd.protocols import Choosing, Task
from opd.tasks.multiple_choice import MultipleChoice
from opd.tasks.text import Passages
from opd.types import Example, UserError
from tests.text.test_chat import tokenizer


def one(tmp_path: Path, cls, row, **settings):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    task = cls(path=str(tmp_path / "rows.jsonl"), eval_fraction=1, **settings)
    assert isinstance(task, Task)
    assert isinstance(task, Choosing)
    return task, task.examples("eval")[0]


MMLU = {"question": "2+2?", "choices": ["3", "4", "22"], "answer": 1}
ARC = {"question": "2+2?", "choices": {"text": ["3", "four", "22"], "label": ["1", "2", "3"]}, "answer": "2"}

NUMBERED = {"question": "2+2?", "choices": {"text": ["3", "4", "22"], "label": [1, 2, 3]}, "answer": 2}

LABELLED = {"question": "2+2?", "choices": {"A": "3", "B": "4", "C": "22", "D": None}, "answer": "B"}


@pytest.mark.parametrize(
    "row", [LABELLED, MMLU, {**MMLU, "answer": "1"}, {**MMLU, "answer": "B"}, {**MMLU, "answer": "4"}, ARC, NUMBERED]
)
def test_the_right_choice_is_named_by_place_label_letter_or_text(tmp_path: Path, row) -> None:
    task, example = one(tmp_path, MultipleChoice, row)
    assert example.answer == example.completion == "B"
    assert list(task.choices(example)) == ["A", "B", "C"]


def test_choices_may_stand_in_a_column_each_of_which_some_rows_leave_some_empty(tmp_path: Path) -> None:
    row = {"question": "2+2?", "A": "3", "B": "4", "C": "22", "D": "", "answer": "B"}
    task, example = one(tmp_path, MultipleChoice, row, choices_column=("A", "B", "C", "D"))
    assert example.answer == "B"
    assert list(task.choices(example)) == ["A", "B", "C"]


def test_an_empty_choice_before_others_is_refused_as_letters_would_be_those_of_the_next(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "C", "A": "one", "B": "", "C": "three", "D": "four"}
    with pytest.raises(UserError, match=r"B.* is empty before others"):
        one(tmp_path, MultipleChoice, row, choices_column=("A", "B", "C", "D"))


def test_choices_are_shown_with_letters_between_question_and_suffix(tmp_path: Path) -> None:
    _, example = one(tmp_path, MultipleChoice, MMLU, suffix="\n\nLetter?")
    assert example.messages == ({"role": "user", "content": "2+2?\n\nA. 3\nB. 4\nC. 22\n\nLetter?"},)


def test_texts_are_compared_unseen_where_letters_are_not_wanted(tmp_path: Path) -> None:
    task, example = one(tmp_path, MultipleChoice, MMLU, letters=False, prefix=" ")
    assert example.messages[0]["content"] == "2+2?"
    assert list(task.choices(example)) == [" 3", " 4", " 22"]
    assert (example.answer, example.completion) == ("4", " 4")
    assert task.verify(example, " 4") == 1.0
    assert task.verify(example, "B") == 0.0


def test_the_greatest_log_prob_is_picked_by_byte_where_that_is_wanted(tmp_path: Path) -> None:
    task, example = one(tmp_path, MultipleChoice, ARC, letters=False)
    assert task.pick(example, [-2.0, -4.0, -3.0]) == 0
    assert task.pick(example, [-2.0, -2.0, -3.0]) == 0
    task, example = one(tmp_path, MultipleChoice, ARC, letters=False, per_byte=True)
    assert task.pick(example, [-2.0, -4.0, -3.0]) == 1


@pytest.mark.parametrize(
    ("text", "score"),
    [
        *((text, 1) for text in ("B", " b\n", "(B) 4", "**B.** It is", "4", "B. 4", "B: because", "B\nIt is four.")),
        *((text, 1) for text in ("The answer is B", "Answer: B", "So \\boxed{B}", "the answer is (B).")),
        *((text, 1) for text in ("The answer is: B", "The answer is A. No: the answer is B")),
        ("The answer is B. No: the answer is A", 0),
        *((text, 0) for text in ("B. 22", "B or C", "B and C", "B, C", "B/C", "B is wrong", "B\nC", "B four", "B) 3")),
        *((text, 0) for text in ("The answer is not B", "The answer is B or C", "answer: Because", "The answer is A")),
        *((text, 0) for text in ("", "A", "Because", "A or B", "B'day", "((((", "(" * 100_000, "22")),
    ],
)
def test_a_written_completion_counts_by_the_letter_that_it_begins_with(tmp_path: Path, text: str, score: int) -> None:
    task, example = one(tmp_path, MultipleChoice, MMLU)
    assert task.verify(example, text) == score


@pytest.mark.parametrize(
    "row",
    [
        {**MMLU, "answer": 3},
        {**MMLU, "answer": -1},
        {**MMLU, "answer": "D"},
        {**MMLU, "answer": None},
        {**MMLU, "choices": ["4", "4", "5"], "answer": "4"},
        {**MMLU, "choices": ["4"]},
        {**MMLU, "choices": "4 or 5"},
        {**MMLU, "choices": ["4", ""]},
        {**MMLU, "choices": ["3", "4", None]},
        {**ARC, "choices": {"text": ["3", "four", "22"], "label": ["1", "2"]}},
        {**ARC, "choices": {"text": ["3", "four"], "label": "12"}},
    ],
)
def test_rows_that_are_no_question_are_named(tmp_path: Path, row) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: column '(answer|choices)'"):
        one(tmp_path, MultipleChoice, row)


def passage(tmp_path: Path, text: str) -> tuple[Passages, Example]:
    return one(tmp_path, Passages, {"text": text}, lead=2)


def test_a_passage_is_predicted_from_its_first_words(tmp_path: Path) -> None:
    task, example = passage(tmp_path, " Once  upon\na time.\n")
    assert example.messages[0]["content"] == "Once  upon"
    assert list(task.choices(example)) == ["\na time."]
    assert task.pick(example, [-9.0]) == 0
    assert task.verify(example, "anything") is None


@pytest.mark.parametrize("text", ["", "Once", "Once upon"])
def test_passages_too_short_to_predict_anything_are_refused_where_there_are_no_others(tmp_path: Path, text) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl: none of its 1 passages has more than lead=2 words"):
        passage(tmp_path, text)


def test_passages_too_short_to_predict_anything_are_left_out_and_counted(tmp_path: Path) -> None:
    texts = ["a b c", "", "a b", "d e f"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    task = Passages(path=str(tmp_path / "rows.jsonl"), eval_fraction=1, lead=2)
    assert [example.completion for example in task.examples("eval")] == [" c", " f"]
    stream = Data(tasks={"mine": task}, template="plain").start(tokenizer(template=None, adds="$A:0"), 0, train=False)
    assert len(stream.eval_prompts(9)) == 2
    assert stream.notes == [
        f"mine: 2 of the 4 passages of {task.path} have no more than lead=2 words, and are left out"
    ]
