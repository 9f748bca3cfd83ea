"""What a step is given."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import opd
from opd.data import source
from opd.data.prompts import Data
from opd.evaluation.held_out import trained_on
from opd.tasks.arithmetic import Arithmetic
from opd.tasks.lazy import Lazy
from opd.tasks.text import Prompts
from opd.types import Example, RunError, Split, UserError
from tests.text.test_chat import tokenizer


@dataclass(frozen=True)
class Words:
    """A fake task: `size` prompts of 1 to `longest` letters."""

    size: int = 10
    longest: int = 1
    letter: str = "a"

    def examples(self, split: Split) -> Sequence[Example]:
        words = [self.letter * (1 + i % self.longest) for i in range(self.size)]
        return [Example(f"{split}-{i}", ({"role": "user", "content": w},)) for i, w in enumerate(words)]

    def verify(self, example: Example, text: str) -> float:
        return float(text == self.letter)


@dataclass(frozen=True)
class Held(Words):
    """A fake task that is there to evaluate on only."""

    def examples(self, split: Split) -> Sequence[Example]:
        return super().examples(split) if split == "eval" else []


TOKENIZER = tokenizer(template=None, adds="$A:0")


def stream(seed: int = 0, **settings):
    return Data(**{"tasks": {"a": Words()}, "prompts_per_step": 4, **settings}).start(TOKENIZER, seed)


def ids(prompts) -> list[str]:
    return [prompt.example.id for prompt in prompts]


def test_a_step_does_not_depend_on_what_was_asked_for_before() -> None:
    tasks = {"a": Words(), "b": Words(7, letter="b"), "c": Arithmetic()}
    walked = stream(tasks=tasks)
    in_order = [walked.take(step) for step in range(12)]
    for step in (11, 3, 0, 7):
        assert stream(tasks=tasks).take(step) == in_order[step]
        assert walked.take(step) == in_order[step]


def test_another_prompt_is_of_the_same_task_fits_and_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {"a": Words(), "b": Words(7, longest=3, letter="b"), "c": Arithmetic()}
    given = stream(tasks=tasks, max_prompt_tokens=30).take(0)
    for prompt in given:
        drawn = [stream(tasks=tasks, max_prompt_tokens=30).another(prompt, seed) for seed in range(200)]
        walked = stream(tasks=tasks, max_prompt_tokens=30)
        assert [walked.another(prompt, seed) for seed in reversed(range(200))] == drawn[::-1]
        assert {p.example.task for p in drawn} == {prompt.example.task}
        others = set(ids(drawn))
        assert prompt.example.id not in others
        assert len(others) == {"a": 9, "b": 6}.get(prompt.example.task, len(others))
    long = stream(tasks={"b": Words(60, longest=3, letter="b")}, max_prompt_tokens=2)
    for _ in range(2):
        assert all(len(long.another(long.take(0)[0], seed).tokens) <= 2 for seed in range(50))
        monkeypatch.setattr(source, "LOOK_THROUGH", 10)  # and where a split is not looked through
        long = stream(tasks={"b": Words(60, longest=3, letter="b")}, max_prompt_tokens=2)


def test_of_a_task_with_one_prompt_there_is_no_other() -> None:
    alone = stream(tasks={"a": Words(1)})
    (prompt, *_) = alone.take(0)
    assert ids(alone.another(prompt, seed) for seed in range(9)) == [prompt.example.id] * 9
    assert ids([stream(tasks={"a": Words(2)}).another(prompt, 0)]) == ["a/train-1"]


@dataclass(frozen=True)
class Calls(Words):
    """A fake task whose third prompt is one of tools, which plain text cannot say."""

    def examples(self, split: Split) -> Sequence[Example]:
        items = list(super().examples(split))
        turn = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
        items[2] = replace(items[2], messages=(*items[2].messages, turn, *items[2].messages), where="a.jsonl, line 3")
        return items


def test_a_prompt_that_cannot_be_rendered_is_named_by_its_row() -> None:
    with pytest.raises(UserError, match=r"data\.tasks\.a: a\.jsonl, line 3: .*template=chat"):
        stream(tasks={"a": Calls()}, prompts_per_step=10).take(0)


def test_a_system_turn_of_the_settings_that_a_template_refuses_is_named_as_such() -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    template = refuses + "{% for m in messages %}{{ m.content }}{% endfor %}"
    data = Data(tasks={"a": Words()}, system="Be brief.")
    with pytest.raises(UserError, match=r"data\.system: set it to null, .*no system turn"):
        data.start(tokenizer(template=template, adds="$A:0"), 0).take(0)


def test_another_seed_gives_another_order() -> None:
    assert [ids(stream(0).take(s)) for s in range(3)] != [ids(stream(1).take(s)) for s in range(3)]


def test_every_epoch_has_each_prompt_once_and_its_own_order() -> None:
    drawn = ids([p for step in range(5) for p in stream().take(step)])
    first, second = drawn[:10], drawn[10:]
    assert sorted(first) == sorted(second) == sorted(f"a/train-{i}" for i in range(10))
    assert first != second


def test_without_shuffling_the_order_is_the_files() -> None:
    data = stream(shuffle=False)
    assert ids(data.take(0) + data.take(1) + data.take(2)) == [f"a/train-{i % 10}" for i in range(12)]


def test_a_task_can_be_evaluated_on_without_being_trained_on() -> None:
    data = stream(tasks={"a": Words(), "b": Words()}, weights={"a": 1}, evaluated=("b", "a"))
    assert {p.example.task for p in data.take(0)} == {"a"}
    assert [p.example.task for p in data.eval_prompts(4)] == ["a", "a", "b", "b"]
    with pytest.raises(UserError, match=r"data\.evaluated\.c: no such task; there are a, b"):
        stream(tasks={"a": Words(), "b": Words()}, evaluated=("c",))


def test_weights_are_honoured_and_epochs_of_each_task_are_whole() -> None:
    data = stream(tasks={"a": Words(), "b": Words(7)}, weights={"a": 3, "b": 1}, prompts_per_step=1000)
    prompts = data.take(0)
    counts = Counter(prompt.example.task for prompt in prompts)
    assert 700 < counts["a"] < 800
    of_b = [p.example.id for p in prompts if p.example.task == "b"]
    assert all(len(set(of_b[i : i + 7])) == 7 for i in range(0, len(of_b) - 7, 7))


def test_a_task_without_weight_is_never_drawn_nor_evaluated() -> None:
    data = stream(tasks={"a": Words(), "b": Words()}, weights={"b": 2})
    assert {p.example.task for p in data.take(0) + data.eval_prompts(200)} == {"b"}


def test_adding_a_task_moves_no_other_ones_order() -> None:
    alone = ids(p for s in range(3) for p in stream().take(s))
    mixed = stream(tasks={"z": Words(), "a": Words()})
    of_a = [i for i in ids(p for s in range(20) for p in mixed.take(s)) if i.startswith("a/")]
    assert of_a[:12] == alone


def test_long_prompts_are_left_out_and_counted() -> None:
    data = stream(tasks={"a": Words(20, longest=5)}, max_prompt_tokens=2)
    assert data.dropped == {"a": 12}
    prompts = [p for step in range(2) for p in data.take(step)]
    assert len({p.example.id for p in prompts}) == 8
    assert all(len(p.tokens) <= 2 for p in prompts + data.eval_prompts(200))


def test_a_split_too_long_to_look_through_skips_long_prompts_as_they_come(monkeypatch) -> None:
    monkeypatch.setattr(source, "LOOK_THROUGH", 5)
    data = stream(tasks={"a": Words(20, longest=5)}, max_prompt_tokens=2)
    prompts = [p for step in range(10) for p in data.take(step)]
    assert all(len(p.tokens) <= 2 for p in prompts)
    assert data.take(9) == prompts[-4:]
    assert data.dropped == {"a": 0}
    with pytest.raises(UserError, match="max_prompt_tokens: 1 is too few for the prompts of task"):
        stream(tasks={"bb": Words(20, letter="bb")}, max_prompt_tokens=1).take(0)


def test_eval_prompts_are_the_same_for_every_seed_and_shared_evenly() -> None:
    tasks = {"a": Words(50), "b": Words(50)}
    first = stream(0, tasks=tasks).eval_prompts(9)
    assert ids(first) == ids(stream(5, tasks=tasks).eval_prompts(9))
    assert Counter(p.example.task for p in first) == {"a": 5, "b": 4}
    assert all("/eval-" in i for i in ids(first))
    assert ids(stream(tasks=tasks).eval_prompts(4)) == ids(first[:2] + first[5:7])
    assert stream(tasks=tasks).eval_prompts(0) == []
    assert len(stream(tasks={"a": Words(3)}).eval_prompts(10)) == 3


def test_the_tasks_own_verifier_judges() -> None:
    data = stream(tasks={"a": Words(), "b": Words(letter="b")}, prompts_per_step=20)
    for prompt in data.take(0):
        assert data.verify(prompt, prompt.example.task) == 1.0
        assert data.verify(prompt, "other") == 0.0


def test_ids_are_unique_across_tasks_and_splits() -> None:
    data = stream(tasks={"a": Words(), "b": Words()}, prompts_per_step=40)
    assert len(set(ids(data.take(0)))) == 20
    assert not set(ids(data.take(0))) & set(ids(data.eval_prompts(200)))


def test_a_task_may_be_there_to_evaluate_on_only() -> None:
    data = Data(tasks={"a": Held()}).start(TOKENIZER, 0, train=False)
    assert len(data.eval_prompts(5)) == 5
    with pytest.raises(UserError, match=r"data\.tasks\.a: it has no train prompts"):
        data.require_train()


def test_mistakes_are_named() -> None:
    tasks = {"words": Words()}
    with pytest.raises(UserError, match=r"data\.weights\.word: no such task, did you mean words\?; there are words"):
        Data(tasks=tasks, weights={"word": 1})
    with pytest.raises(UserError, match=r"data\.weights: .* more than 0 in sum"):
        Data(tasks=tasks, weights={"words": 0})
    with pytest.raises(UserError, match=r"data\.tasks: there is no task"):
        Data(tasks={})
    with pytest.raises(UserError, match=r"data\.tasks\.a: got 3, allowed is"):
        Data(tasks={"a": 3})
    with pytest.raises(UserError, match=r"data\.tasks\.a: it has no train prompts"):
        stream(tasks={"a": Words(0)})
    with pytest.raises(
        UserError, match=r"data\.max_prompt_tokens: 1 is less than each of the 10 prompts of data\.tasks\.a"
    ):
        stream(tasks={"a": Words(letter="aa")}, max_prompt_tokens=1)


@dataclass(frozen=True)
class Listed:
    """A fake task of rows that are given; one that is None cannot be read."""

    rows: tuple[Example | None, ...]

    def examples(self, split: Split) -> Sequence[Example]:
        return Read(self.rows) if split == "train" else []

    def verify(self, example: Example, text: str) -> float:
        return 0.0


@dataclass(frozen=True)
class Read(Lazy[Example]):
    """Its rows, one by one."""

    rows: tuple[Example | None, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, index: int) -> Example:
        if (row := self.rows[index]) is None:
            raise UserError("line 7: no prompt")
        return row


@pytest.mark.parametrize("looked", [True, False])
def test_data_is_told_from_other_data_by_all_that_is_asked_and_verified_with_and_by_its_order(
    looked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "LOOK_THROUGH", 100 if looked else 0)

    def mark(*rows: Example | None, **settings: int) -> str:
        return stream(tasks={"a": Listed(rows)}, **settings).marks()["a"]

    one, two = (Example(word, ({"role": "user", "content": word},), answer=word) for word in ("aa", "b"))
    others = [(two, one), (one,), (one, replace(two, answer="c")), (one, replace(two, meta={"unit": 1}))]
    assert len({mark(one, two), *(mark(*rows) for rows in others)}) == 5
    assert mark(one, replace(two, meta={"by": {1, 2}})) == mark(one, replace(two, meta={"by": {3}})), "no text of it"
    assert mark(one, two) == mark(replace(one, where="elsewhere"), two)
    if looked:
        assert mark(one, two, max_prompt_tokens=1) == mark(two), "what is too long is not in use"
    else:
        assert mark(one, None) != mark(one), "a row that may never be asked for is nobody's fault here"


def test_what_one_task_holds_out_and_another_trains_on_is_counted(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": "a" * i}) + "\n" for i in range(1, 41)))
    one, other = (Prompts(path=str(tmp_path / "rows.jsonl"), eval_fraction=share) for share in (0.25, 0.75))
    assert stream(tasks={"a": one, "b": one, "c": Arithmetic()}, max_prompt_tokens=99).trained_too(stream()) == {}
    both = stream(tasks={"a": one, "b": other, "c": Arithmetic()}, max_prompt_tokens=99)
    held = {e.messages[0]["content"] for e in other.examples("eval")}
    known = held & {e.messages[0]["content"] for e in one.examples("train")}
    assert both.trained_too(both) == {"b": (len(known), len(held))}
    (said,) = trained_on(both, 100)
    assert f"data.tasks.b: {len(known)} of the {len(held)} prompts" in said
    assert list(trained_on(stream(tasks={"a": one, "b": one}, max_prompt_tokens=99), 100)) == []


@dataclass(frozen=True)
class Given(Words):
    """A fake task that gives whatever it is told to."""

    items: Any = ()

    def examples(self, split: Split) -> Any:
        return self.items


HI = ({"role": "user", "content": "a"},)


@pytest.mark.parametrize(("items", "said"), [
    ((Example(i, HI) for i in "ab"), "its examples are a generator; allowed is a sequence, such as a list"),
    (None, "its examples are a NoneType"),
    (["a"], "an item is a str; allowed is an opd.types.Example"),
    ([Example("a", "hi")], "messages of example a are hi; allowed is a tuple of mappings of role and content"),
    ([Example("a", ())], r"messages of example a are \[\]"),
    ([Example("a", ({"role": "user", "content": 3},))], "a turn of example a is .*; its role and content have"),
    ([Example("a", ({"content": "a"},))], "a turn of example a is .*; its role and content have"),
    ([Example("a", HI), Example("b", HI), Example("a", HI)], "two of its items have the id 'a'; each has its own"),
])  # fmt: skip
def test_what_a_task_gives_is_looked_at(items: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"^data.tasks.mine: {said}"):
        stream(tasks={"mine": Given(items=items)})


def test_a_task_that_trains_on_what_it_holds_out_is_told_of() -> None:
    items = [Example(c, ({"role": "user", "content": c},)) for c in "abcd"]
    assert [*trained_on(stream(tasks={"mine": Given(items=items)}), 3)] == [
        "data.tasks.mine: 3 of 3 held-out prompts are trained on too, and its figures are not of unseen prompts; have "
        "its examples('train') leave out those of examples('eval')"
    ]


def test_whatever_asks_a_verifier_has_its_score_looked_at() -> None:
    texts = {file.name: file.read_text() for file in (Path(opd.__file__).parent).rglob("*.py")}
    asks = {
        name for name, text in texts.items() if re.search(r"\.verify\((self\.|prompt\.|c\.)*(prompt\.)?example", text)
    }
    assert asks == {"verdict.py", "data.py", "test_task.py"}  # opd.survey only looks whether there is a verifier


@pytest.mark.parametrize("score", [2.0, -0.1, float("nan"), "1", [1.0]])
def test_a_score_that_is_none_is_refused_with_its_task(score: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = stream()
    (prompt, *_) = drawn.take(0)
    assert drawn.verify(prompt, "a") == 1.0
    monkeypatch.setattr(Words, "verify", lambda self, example, text: score)
    with pytest.raises(RunError, match=r"data\.tasks\.a: its verifier gave .*; allowed is a number from 0 to 1"):
        drawn.verify(prompt, "a")
