"""Answers to generators that evaluate them: no code gets through, every right answer does."""

from __future__ import annotations

import inspect
import re
import time
from functools import cache
from pathlib import Path

import pytest

from opd.tasks.evaluated import EVALUATING, harmless
from opd.tasks.grader import Grader
from opd.tasks.gym import ReasoningGym, scorer
from opd.types import Example

pytest.importorskip("reasoning_gym")

ATTACKS = [
    '__import__("os").system("echo x > {}")',
    "().__class__.__base__.__subclasses__()",
    "[c for c in ().__class__.__base__.__subclasses__() if c.__name__=='Popen'][0](['touch', '{}'])",
    "getattr(E, 'func')",
    "open('{}', 'w').write('x')",
    "[open('{}','w')]",
    'exec(\'open("{}", "w")\')',
    'f\'{open("{}", "w")}\'',
    "['{x}', f'{x!r}']",
    "[[x for y in (1,)] for x in [print(1)]]",
    "(lambda: 1)()",
    "(x := 1)",
    "ｅｘｅｃ('1')",  # letters that Python reads as ASCII ones
    "𝐨𝐩𝐞𝐧('{}', 'w')",
    "x.__class__",
    "E.__class__",
    "E . __class__",
    "x.evalf(10)",
    "1 .real",
    "5..as_integer_ratio()",
    "numpy.fromfile('{}')",
    "np.save('{}', 1)",
    "sympify('1')",
    "preview(x, output='png')",
    "lambdify(x, x)(1)",
    "x.sin(1)",
    "[1][0]()",
    "['a'].clear()",
    "'%s' % 1",
    "`id`",
    "1;import os",
    "1 if open('{}','w') else 2",
    "print\n(1)",
    "@x",
    "{1: 2}",
    "\\x5f\\x5fimport\\x5f\\x5f",
    "1, 2, (open)('{}', 'w')",
]


@cache
def examples(name: str) -> list[Example]:
    return list(ReasoningGym(name=name, size=20, eval_size=1).examples("train")[:6])


@pytest.mark.parametrize("name", EVALUATING)
def test_right_answers_score_1(name: str) -> None:
    task = ReasoningGym(name=name, size=20, eval_size=1)
    assert [task.verify(e, f"<answer>{e.answer}</answer>") for e in examples(name)] == [1.0] * 6


@pytest.mark.parametrize("name", EVALUATING)
def test_code_is_never_evaluated(name: str, tmp_path: Path) -> None:
    task, example = ReasoningGym(name=name, size=20, eval_size=1), examples(name)[0]
    for attack in ATTACKS:
        code = attack.replace("{}", str(tmp_path / "made"))
        for text in (code, f"{example.answer}{code}", f"{example.answer} + {code}"):
            assert not harmless(name, example.meta["entry"], text)
            assert task.verify(example, f"<answer>{text}</answer>") == 0.0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["countdown", "puzzle24"])
@pytest.mark.parametrize("text", ["9**9**9**9", "9 ** 9", "factorial(9)", "1e9"])
def test_games_of_four_operators_have_no_others(name: str, text: str) -> None:
    assert not harmless(name, examples(name)[0].meta["entry"], text)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["9**(9**(9**9))", "(x+1)**9**9"])
def test_a_power_tower_scores_nothing_in_time_and_the_next_answer_is_scored(text: str) -> None:
    name = "polynomial_multiplication"
    entry = examples(name)[0].meta["entry"]
    grader = Grader(seconds=1)
    assert grader.score(scorer, (name, "{}", 0), entry["answer"], entry) == 1.0
    start = time.monotonic()
    assert grader.score(scorer, (name, "{}", 0), text, entry) == 0.0
    assert time.monotonic() - start < 10
    assert grader.score(scorer, (name, "{}", 0), entry["answer"], entry) == 1.0
    grader.close()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spiral_matrix", "[1, 2, -3]"),
        ("string_insertion", "['A', \"B\"]"),
        ("n_queens", "[['_', 'Q'],\n ['Q', '_']]"),
        ("countdown", "(3 + 4.5) / 2 - -1*7"),
        ("simple_integration", "2*{}**3 + sqrt(2.5)*log({}) + C"),
        ("intermediate_integration", "-E**({}) / 2 + atan(3*{})"),
    ],
)
def test_answers_in_other_words_are_let_through(name: str, text: str) -> None:
    entry = examples(name)[0].meta["entry"]
    assert harmless(name, entry, text.replace("{}", entry["metadata"].get("variable", "")))


def test_a_generator_of_several_is_guarded_as_the_one_that_it_took_the_problem_from() -> None:
    entry = examples("countdown")[0].meta["entry"]
    assert not harmless("composite", entry, "open('x')")
    assert harmless("chain_sum", {"answer": "1", "metadata": {}}, "open('x')")


def test_every_scorer_that_evaluates_text_is_known() -> None:
    from reasoning_gym.factory import DATASETS

    evaluates = re.compile(r"\b(?:eval|exec|parse_expr|sympify|literal_eval|S)\(")
    found = {name for name, (kind, _) in DATASETS.items() if evaluates.search(inspect.getsource(kind.score_answer))}
    assert found == EVALUATING.keys() | {"number_sorting"}  # which evaluates its own answer, never the model's
