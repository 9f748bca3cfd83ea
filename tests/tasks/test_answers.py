"""The verifiers of row tasks: right answers in many clothes, and wrong ones."""

import importlib.util
import json
import re
import threading
from pathlib import Path

import pytest

from opd.extras import install
from opd.protocols import Task
from opd.tasks.exact_match import ExactMatch
from opd.tasks.gsm8k import Gsm8k, final_number
from opd.tasks.math import Math
from opd.tasks.rouge import RougeL
from opd.text.boxes import last_boxed
from opd.text.numbers import number
from opd.types import Example, UserError


def one(tmp_path: Path, cls, row, **settings):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    task = cls(path=str(tmp_path / "rows.jsonl"), eval_fraction=0, **settings)
    assert isinstance(task, Task)
    return task, task.examples("train")[0]


GSM = {"question": "How many?", "answer": "First 2*600=<<2*600=1200>>1200.\n#### 1,200"}


@pytest.mark.parametrize("number", ["4,2", "1,20", "12,00", "", "many"])
def test_a_gsm8k_row_whose_number_is_none_is_refused(tmp_path: Path, number: str) -> None:
    with pytest.raises(UserError, match="does not end with '#### NUMBER'"):
        one(tmp_path, Gsm8k, {"question": "How many?", "answer": f"#### {number}"})


@pytest.mark.parametrize("answer", ["The", "!!!", "..."])
def test_an_answer_of_which_nothing_is_compared_is_refused(tmp_path: Path, answer: str) -> None:
    with pytest.raises(UserError, match="normalize=words leaves nothing to compare"):
        one(tmp_path, ExactMatch, {"prompt": "q", "answer": answer}, normalize="words")


@pytest.mark.parametrize("text", ["it is -5", "2.5", "5.7", "1,5", "5,000", "5/2"])
def test_a_number_within_a_text_is_compared_whole(tmp_path: Path, text: str) -> None:
    task, example = one(tmp_path, ExactMatch, {"prompt": "q", "answer": "5"}, within=True)
    assert task.verify(example, text) == 0.0
    assert task.verify(example, f"{text}, no: 5.") == 1.0


def test_gsm8k_accepts_its_own_solution(tmp_path: Path) -> None:
    task, example = one(tmp_path, Gsm8k, GSM)
    assert example.answer == "1200"
    assert task.verify(example, GSM["answer"]) == 1.0


@pytest.mark.parametrize(
    "text",
    ["1200", "It is $1,200.", "\\boxed{1200}", "The answer is 1200.0 eggs", "so 12*100=1200", "#### 1200\nBye 7"],
)
def test_gsm8k_accepts_the_number_in_any_form(tmp_path: Path, text: str) -> None:
    task, example = one(tmp_path, Gsm8k, GSM)
    assert task.verify(example, text) == 1.0


@pytest.mark.parametrize("text", ["", "none", "-1200", "1200, no, 1201", "#### 12\n1200", "1200.5", "12000"])
def test_gsm8k_refuses_other_numbers(tmp_path: Path, text: str) -> None:
    task, example = one(tmp_path, Gsm8k, GSM)
    assert task.verify(example, text) == 0.0


def test_gsm8k_refuses_rows_without_a_number(tmp_path: Path) -> None:
    task, _ = one(tmp_path, Gsm8k, GSM)
    with pytest.raises(UserError, match="does not end with '#### NUMBER'"):
        task.answer({"question": "q", "answer": "no idea"})


def test_numbers_are_read_exactly() -> None:
    assert number("0.1") == number("1/10")
    assert number("1/0") is None
    assert final_number("3-5") is None
    assert final_number("from 9 to -5") == -5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("#### 1. Find it\n#### 2. Finish\nThe answer is \\boxed{42}", 42),
        ("\\boxed{7}\n#### 42", 42),
        ("The answer is 7. No: the answer is 42.", 42),
        ("She sells 6*7 = <<6*7=42>>42 clips", 42),
        ("#### 41\nSo the answer is: **42**", 42),
        ("the answer is $\\frac{3}{4}$", number("3/4")),
        ("\\boxed{-\\dfrac{3}{4}}", number("-3/4")),
        ("\\boxed{\\text{no}} 3\nThe answer is 8", 8),
    ],
)
def test_the_marker_that_stands_last_has_the_answer(text: str, found) -> None:
    assert final_number(text) == found


@pytest.mark.parametrize(
    ("how", "given", "right"),
    [
        ("none", "Paris", True),
        ("none", " Paris", False),
        ("space", " Paris\n", True),
        ("space", "paris", False),
        ("words", "The paris!", True),
        ("words", "Lyon", False),
        ("words", "", False),
    ],
)
def test_exact_match_compares_in_the_form_that_is_asked_for(tmp_path: Path, how, given: str, right: bool) -> None:
    task, example = one(tmp_path, ExactMatch, {"prompt": "Capital?", "answer": "Paris"}, normalize=how)
    assert task.verify(example, given) == float(right)


def test_a_sign_before_a_number_counts_among_words(tmp_path: Path) -> None:
    task, example = one(tmp_path, ExactMatch, {"prompt": "q", "answer": "-5"}, normalize="words")
    assert [task.verify(example, said) for said in ("-5", "It -5!", "5", "the -5.")] == [1.0, 0.0, 0.0, 1.0]


def test_exact_match_takes_any_of_several_answers_after_the_last_marker(tmp_path: Path) -> None:
    task, example = one(tmp_path, ExactMatch, {"prompt": "q", "answer": [4, "four"]}, marker="Answer:")
    assert task.verify(example, "Answer: 5. No. Answer: four\nDone") == 1.0
    assert task.verify(example, "Answer: 4") == 1.0
    assert task.verify(example, "4") == task.verify(example, "Answer:") == 0.0


@pytest.mark.parametrize(
    ("given", "right"),
    [("It opens at 7:30.", True), ("At 7-30 sharp", True), ("at 17:30", False), ("at 7:301", False), ("", False)],
)
def test_an_answer_within_a_sentence_counts_unless_it_is_part_of_a_longer_one(
    tmp_path, given: str, right: bool
) -> None:
    row = {"prompt": "When?", "answer": "7:30"}
    task, example = one(tmp_path, ExactMatch, row, normalize="words", within=True)
    assert task.verify(example, given) == float(right)


MATH = {"problem": "Half?", "answer": "\\frac{1}{2}", "solution": "It is $\\boxed{\\frac{1}{2}}$."}


@pytest.mark.parametrize("column", ["answer", "solution"])
def test_math_reads_answers_and_boxed_solutions(tmp_path: Path, column: str) -> None:
    task, example = one(tmp_path, Math, MATH, answer_column=column)
    assert example.answer == "\\frac{1}{2}"
    assert task.verify(example, MATH["solution"]) == 1.0


def test_math_compares_by_meaning(tmp_path: Path) -> None:
    task, example = one(tmp_path, Math, MATH)
    assert [task.verify(example, t) for t in ("\\boxed{0.5}", "so it is $1/2$", "\\boxed{\\dfrac{2}{4}}")] == [1.0] * 3
    assert [task.verify(example, t) for t in ("\\boxed{0.6}", "", "\\boxed{", "a half")] == [0.0] * 4


def test_math_grades_in_any_thread(tmp_path: Path) -> None:
    task, example = one(tmp_path, Math, MATH)
    scores: list[float] = []
    threads = [threading.Thread(target=lambda: scores.append(task.verify(example, "\\boxed{0.5}"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == [1.0] * 3


@pytest.mark.parametrize("column", ["70", "70.", "\\boxed{70.}"])
def test_a_full_stop_within_the_box_is_not_part_of_the_answer(tmp_path: Path, column: str) -> None:
    task, example = one(tmp_path, Math, {"problem": "p", "answer": column})
    assert example.answer == "70"
    assert [task.verify(example, f"so \\boxed{{{given}}}") for given in ("70.", "70", "70.0.")] == [1.0, 1.0, 1.0]


def test_math_says_how_to_install_its_library(tmp_path: Path, monkeypatch) -> None:
    task, _ = one(tmp_path, Math, MATH)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=re.escape(install("tasks"))):
        task.examples("train")


def test_boxes_are_read_with_their_braces() -> None:
    assert last_boxed("\\boxed{1} then \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert last_boxed("\\boxed{1") is None
    assert last_boxed("no box") is None


def test_empty_math_answers_are_refused(tmp_path: Path) -> None:
    task, _ = one(tmp_path, Math, MATH)
    with pytest.raises(UserError, match="holds no answer"):
        task.answer({"problem": "p", "answer": " $ $ "})
    assert Example(id="x", messages=()).answer == ""


def test_gsm8k_completes_with_the_working_and_its_verifier_takes_it(tmp_path: Path) -> None:
    task, example = one(tmp_path, Gsm8k, GSM)
    assert example.completion == "First 2*600=1200.\n#### 1,200"
    assert task.verify(example, example.completion) == 1.0


@pytest.mark.parametrize(
    ("settings", "completion"),
    [
        ({}, ""),
        ({"answer_column": "solution"}, MATH["solution"]),
        ({"completion_column": "solution"}, MATH["solution"]),
    ],
)
def test_math_completes_with_a_solution_where_there_is_one(tmp_path: Path, settings, completion: str) -> None:
    task, example = one(tmp_path, Math, MATH, **settings)
    assert example.completion == completion
    assert not completion or task.verify(example, completion) == 1.0


@pytest.mark.parametrize("marker", ["", "Answer:"])
def test_exact_match_completes_with_an_answer_that_it_accepts(tmp_path: Path, marker: str) -> None:
    task, example = one(tmp_path, ExactMatch, {"prompt": "q", "answer": ["four", 4]}, marker=marker)
    assert example.completion == f"{marker} four".strip()
    assert task.verify(example, example.completion) == 1.0


DOLLY = {"instruction": "Name it in {}.", "context": "A {cat}.", "response": "the cat sat on the mat"}


def dolly(tmp_path: Path, row=DOLLY, **settings):
    pytest.importorskip("rouge_score")
    return one(tmp_path, RougeL, row, input_column="context", answer_column="response", **settings)


def test_rouge_l_is_twice_the_words_in_common_in_order_over_all_words(tmp_path: Path) -> None:
    task, example = dolly(tmp_path)
    assert task.verify(example, example.completion) == 1.0
    assert task.verify(example, "The cats SAT!") == pytest.approx(2 * 3 / (3 + 6))
    assert task.verify(example, "mat on") == pytest.approx(2 * 1 / (2 + 6))
    assert task.verify(example, "dogs") == task.verify(example, "") == 0.0


def test_the_best_of_several_references_counts(tmp_path: Path) -> None:
    task, example = dolly(tmp_path, {**DOLLY, "response": ["a dog", "a cat"]})
    assert task.verify(example, "a cat") == 1.0
    assert example.completion == "a dog"


def test_an_instruction_is_worded_with_its_input_where_there_is_one(tmp_path: Path) -> None:
    words = {"wording": "Do {instruction} now", "wording_with_input": "Given {input}: {instruction}"}
    assert dolly(tmp_path, **words)[1].messages[0]["content"] == "Given A {cat}.: Name it in {}."
    without = dolly(tmp_path, {**DOLLY, "context": " "}, **words)[1]
    assert without.messages[0]["content"] == "Do Name it in {}. now"
    with pytest.raises(ValueError, match="wording='Do it': allowed is a text with"):
        RougeL(path="x.jsonl", wording="Do it")
