"""Rules for the form of an answer: kept, broken, and met with text that no one expects."""

import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from opd.protocols import Task
from opd.tasks.constraints import KINDS, kept
from opd.tasks.instructions import Instructions
from opd.types import Example, Split, UserError

EXACTLY, LEAST, MOST = ({"how": how, "count": 3} for how in ("exactly", "at least", "at most"))
CASES = [
    ("words", LEAST, "One well-kept rule", "don't stop"),
    ("words", MOST, "It's - like this!", "one two three four"),
    ("sentences", EXACTLY, "One. Two! Three?", "One. Two."),
    ("sentences", EXACTLY, "One\nTwo 3.5 times\n\nThree...", "Version 3.5 is it."),
    ("sentences", MOST, "No stop at all", "A. B. C. D."),
    ("bullets", EXACTLY, "Look:\n- a\n* b\n  - c", "- a\n* b\n• c"),
    ("bullets", EXACTLY, "- a\n- b\n- c", "-a\n--b\n1. c\n- "),
    ("bullets", LEAST, "- a\n- b\n- c\n- d", "- a - b - c"),
    ("paragraphs", {"count": 2}, "One\nand.\n \n\nTwo.", "One.\nTwo."),
    ("paragraphs", {"count": 2}, "One\r\nand.\r\n\r\nTwo.", "One.\r\nTwo."),
    ("json", {}, '{"a": [1, null]}', '{"a": 1} there'),
    ("json", {}, "[]", "3"),
    ("json", {}, '```json\n{"a": 1}\n```', '```json\n{"a": 1}'),
    ("include", {"word": "home"}, "At HOME.", "homes and 2home"),
    ("include", {"word": "today"}, "In today's news", "todays"),
    ("include", {"word": "today"}, "Do it _today_!", "to day"),
    ("repeat", {"word": "you", "count": 2}, "You and you", "you and your young"),
    ("exclude", {"word": "very"}, "every bravery", "Very good"),
    ("exclude", {"word": "very"}, "everything", "a very-good one"),
    ("exclude", {"word": "very"}, "éveryé", "the very's end"),
    ("exclude", {"word": "very"}, "slavery", "_very_"),
    ("lower", {}, "all small é 3!", "all Small"),
    ("upper", {}, "ALL LARGE É 3!", "ALL LARGe"),
    ("commas", {}, "none; at all", "one, two"),
    ("digits", {}, "three", "3"),
    ("exclamation", {}, "calm.", "wow!"),
    ("starts", {"phrase": "Short answer"}, "  short answer: no", "A short answer"),
    ("ends", {"phrase": "That is all."}, "Well. THAT IS ALL.\n", "That is all. Bye"),
    ("title", {}, "<<Eggs>>\nBoil.", "<< >> <Eggs>"),
    ("quoted", {}, '"All of it."', '"Half" of it.'),
    ("quoted", {}, '"a"', '"'),
    ("marked", {"count": 2}, "*one* and **two**", "*one* and * two *"),
    ("marked", {"count": 1}, "(*one*)", "2*3*4*5*6"),
    ("postscript", {}, "Text.\nP.S. More.", "P.S. More.\nText."),
]
ODD = [
    "*" * 100_000,
    "<" * 100_000,
    "<<" + "a" * 100_000,
    "<<a" * 30_000,
    "```" + "\n" * 100_000 + "x",
    "[" * 100_000,
    "[" + "9" * 10_000 + "]",
    '{"a":' * 50_000,
    "- " * 50_000,
    "a-" * 50_000,
    ("." * 999 + " ") * 100,
    " \t" * 50_000 + "x",
    "\n \n" * 30_000 + "x",
    "*a " * 30_000,
    "\x00\u2028\ud800\u202e",
    '"' * 100_000,
]


@pytest.mark.parametrize(("kind", "params", "right", "wrong"), CASES)
def test_a_rule_tells_an_answer_that_keeps_it_from_one_that_does_not(kind, params, right: str, wrong: str) -> None:
    assert kept(kind, params, right)
    assert not kept(kind, params, wrong)


def test_every_rule_is_in_the_cases() -> None:
    assert {case[0] for case in CASES} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_answer_keeps_no_rule_and_no_text_is_too_odd_or_too_slow(kind: str) -> None:
    rng = np.random.default_rng(0)
    params = KINDS[kind].draw(rng)
    assert not kept(kind, params, "")
    assert not kept(kind, params, " \n")
    for text in ODD:
        start = time.process_time()
        kept(kind, params, text)
        assert time.process_time() - start < 1.0


def test_the_words_of_a_phrase_break_no_other_rule() -> None:
    """What one rule demands, no other that may stand beside it forbids."""
    phrases = [v for k in ("starts", "ends") for v in KINDS[k].choices["phrase"]]
    demanded = [*phrases, *KINDS["include"].choices["word"], *KINDS["repeat"].choices["word"]]
    for text in demanded:
        for kind in ("commas", "digits", "exclamation"):
            assert kept(kind, {}, text)
        for word in KINDS["exclude"].choices["word"]:
            assert kept("exclude", {"word": word}, text)


def test_rules_of_a_prompt_claim_different_sides_and_are_all_told() -> None:
    task = Instructions(min_rules=3, max_rules=4)
    assert isinstance(task, Task)
    seen = set()
    for example in task.examples("train")[:300]:
        rules = example.meta["rules"]
        assert 3 <= len({rule["kind"] for rule in rules}) == len(rules) <= 4
        for a, b in combinations(rules, 2):
            assert not KINDS[a["kind"]].claims & KINDS[b["kind"]].claims
        for rule in rules:
            assert KINDS[rule["kind"]].say.format(**rule) in example.messages[0]["content"]
        seen |= {rule["kind"] for rule in rules}
    assert seen == set(KINDS)


def prompts(split: Split, **settings) -> set[str]:
    return {e.messages[0]["content"] for e in Instructions(**settings).examples(split)[:2000]}


def test_no_prompt_is_in_both_splits() -> None:
    assert not prompts("train") & prompts("eval")
    assert not prompts("train", max_rules=1) & prompts("eval", max_rules=1, seed=3)


def test_the_score_is_the_share_of_rules_kept_or_with_strict_all_of_them() -> None:
    rules = '[{"kind": "commas"}, {"kind": "lower"}, {"kind": "digits"}]'
    for text, share in [("so it is", 1.0), ("So it is", 2 / 3), ("So, 1", 0.0), ("", 0.0)]:
        example = Instructions().example("one", "How?", rules)
        assert Instructions().verify(example, text) == pytest.approx(share)
        assert Instructions(strict=True).verify(example, text) == float(share == 1.0)


def test_a_rule_is_kept_loosely_where_a_line_or_asterisks_are_all_that_breaks_it() -> None:
    rules = [{"kind": "commas"}, {"kind": "starts", "phrase": "Short answer"}]
    example = Example("i", (), meta={"rules": rules})
    said = {
        "Short answer: no": (1, 2, 1, 2),
        "Sure, here it is:\n**Short answer**: no\nShall I, perhaps, go on?": (0, 0, 1, 2),
        "Short answer: yes, no": (0, 1, 0, 1),
        "": (0, 0, 0, 0),
    }
    names = ("prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose")
    for text, points in said.items():
        found = Instructions().details(example, text)
        assert {name: found[name][0] for name in names} == dict(zip(names, points, strict=True))
        assert [found[name][1] for name in names] == [1, 2, 1, 2]


def test_items_are_the_same_in_every_session_and_name_their_rules_in_the_answer() -> None:
    example = Instructions(seed=7).examples("eval")[12]
    assert example == Instructions(seed=7).examples("eval")[12]
    assert example.answer.startswith('[{"kind": ')


def test_requests_and_rules_may_be_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"prompt": "Sing {this}!"}\n')
    task = Instructions(path=str(tmp_path / "own.jsonl"), kinds=("lower", "upper"), max_rules=3)
    texts = {e.messages[0]["content"].split("\n")[0] for e in task.examples("train")[:3]}
    assert texts == {"Sing {this}!"}
    assert {len(e.meta["rules"]) for e in task.examples("train")[:9]} == {1}


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kinds: no rule 'bulets', did you mean bullets"):
        Instructions(kinds=("bulets",))
    with pytest.raises(ValueError, match="max_rules=1: allowed is at least min_rules=2"):
        Instructions(min_rules=2, max_rules=1)
    with pytest.raises(UserError, match="does not exist"):
        Instructions(path=str(tmp_path / "none.jsonl")).examples("train")
