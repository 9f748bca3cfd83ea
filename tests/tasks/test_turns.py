"""Chat turns are handed on whole, or refused by row, turn and field; so are answers and tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opd.tasks.exact_match import ExactMatch
from opd.tasks.gsm8k import Gsm8k
from opd.tasks.math import Math
from opd.tasks.multiple_choice import MultipleChoice
from opd.tasks.text import Prompts
from opd.tasks.turns import ROLES, closing_turns, messages_of, tools_of
from opd.types import UserError

CALL = {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
ASKED = {"role": "user", "content": "Weather in Paris?"}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_every_field_of_a_turn_is_handed_on() -> None:
    turns = [
        {**ASKED, "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Look it up."},
        {"role": "tool", "content": "12 C", "tool_call_id": "c1"},
    ]
    read = messages_of(turns, "row 1")
    assert read == (turns[0], {**turns[1], "content": ""}, turns[2])


@pytest.mark.parametrize("role", ROLES)
def test_roles_go_by_many_names_in_any_letter_case(role: str) -> None:
    for name in ROLES[role]:
        for written in (name, name.capitalize(), f" {name.upper()}"):
            shapes = ({"role": written, "content": "x"}, {"from": written, "value": "x"})
            assert [dict(closing_turns([ASKED, s]) or messages_of([ASKED, s], "")[-1]) for s in shapes] == [
                {"role": role, "content": "x"}
            ] * 2


def test_fields_that_a_table_fills_up_with_null_are_left_out(tmp_path: Path) -> None:
    cells = [[ASKED, {"role": "assistant", "content": "12"}], [{**ASKED, "name": "ann"}]]
    table = datasets.Dataset.from_list([{"prompt": json.loads(json.dumps(c))} for c in cells])
    table.to_parquet(tmp_path / "a.parquet")
    items = Prompts(path=str(tmp_path / "a.parquet"), eval_fraction=0).examples("train")
    assert [e.messages for e in items] == [(ASKED,), ({**ASKED, "name": "ann"},)]


def test_arguments_of_a_call_that_are_json_become_values() -> None:
    call = {"function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    odd = {"function": {"name": "weather", "arguments": "Paris"}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call, odd]}
    read = closing_turns([ASKED, turn])["tool_calls"]
    assert [c["function"]["arguments"] for c in read] == [{"city": "Paris"}, "Paris"]


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "image": None}]
    assert messages_of([{"role": "user", "content": parts}], "") == ({"role": "user", "content": "ab"},)


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        ({"role": "narrator", "content": "x"}, "turn 2: 'narrator' is no role that is known; known are ai, assistant"),
        ({"content": "x"}, "turn 2: it has no role"),
        ({"role": "user"}, "turn 2: its content is None"),
        ({"role": "user", "content": 3}, "turn 2: its content is 3"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "u"}]},
            r"parts that are no text \('image_url'",
        ),
        ({"role": "user", "content": "x", "from": "gpt"}, "both role and from, and they differ"),
        ({"role": "assistant", "content": "x", "tool_calls": ["weather"]}, "a tool call is 'weather'"),
    ],
)
def test_what_cannot_be_read_of_a_turn_is_named(turn: dict[str, Any], says: str, tmp_path: Path) -> None:
    task = Prompts(path=write(tmp_path / "a.jsonl", {"prompt": "fine"}, {"prompt": [ASKED, turn]}))
    with pytest.raises(UserError, match=rf"a\.jsonl, line 2: .*{says}"):
        task.examples("train")


def test_the_closing_turn_keeps_its_reasoning_and_calls(tmp_path: Path) -> None:
    closing = {"role": "assistant", "content": "12", "reasoning_content": "Look it up.", "tool_calls": [CALL]}
    rows = [{"prompt": [ASKED, closing], "tools": [TOOL]}, {"prompt": [ASKED], "tools": json.dumps([TOOL])}]
    one, two = Prompts(path=write(tmp_path / "a.jsonl", *rows), eval_fraction=0).examples("train")
    assert (one.messages, one.completion) == ((ASKED,), "12")
    assert one.closing == {"reasoning_content": "Look it up.", "tool_calls": [CALL]}
    assert one.tools == two.tools == (TOOL,)
    with pytest.raises(UserError, match="several assistant turns close these messages, and one has reasoning_content"):
        closing_turns([ASKED, closing, closing])


@pytest.mark.parametrize("cell", ["no json", "[1]", [1], {"name": "x"}])
def test_tools_that_are_no_list_of_descriptions_are_refused(cell: Any) -> None:
    with pytest.raises(UserError, match="its tools"):
        tools_of(cell, "row 1")


@pytest.mark.parametrize("cell", [None, float("nan"), float("inf"), [], [None], True, {"a": 1}])
@pytest.mark.parametrize("kind", [ExactMatch, Math, Gsm8k])
def test_what_is_no_answer_is_refused_with_its_row(kind: type, cell: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "answer": answer} for i, answer in enumerate(["1", cell])]
    task = kind(path=write(tmp_path / "a.jsonl", *rows), prompt_column="prompt", eval_fraction=0)
    items = task.examples("train")
    assert items[0].answer == "1"
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: column 'answer' holds "):
        items[1]


def test_a_number_is_compared_with_the_digits_that_the_file_has(tmp_path: Path) -> None:
    written = ["5", "5.0", "0.10", "1e3", "-7", "12345678901234567890.125", "100000000000000000000000"]
    (tmp_path / "a.jsonl").write_text("".join(f'{{"prompt": "q{i}", "answer": {n}}}\n' for i, n in enumerate(written)))
    task = ExactMatch(path=str(tmp_path / "a.jsonl"), eval_fraction=0)
    items = task.examples("train")
    assert [e.answer for e in items] == written
    assert [task.verify(e, n) for e, n in zip(items, written, strict=True)] == [1.0] * len(written)


def test_a_number_of_a_table_has_no_exponent_and_no_trailing_zero(tmp_path: Path) -> None:
    values = [5.0, 0.1, 1e22, 1e-7, -2.5]
    datasets.Dataset.from_list([{"prompt": f"q{v}", "answer": v} for v in values]).to_parquet(tmp_path / "a.parquet")
    items = ExactMatch(path=str(tmp_path / "a.parquet"), eval_fraction=0).examples("train")
    assert [e.answer for e in items] == ["5", "0.1", "1" + "0" * 22, "0.0000001", "-2.5"]


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["role", "content", "from", "value", "name", "tool_calls", "reasoning_content"])
TURNS = st.lists(
    st.dictionaries(FIELDS, CELLS | st.sampled_from(["user", "assistant", "tool", "human"]), max_size=4), max_size=3
)


@pytest.mark.parametrize("kind", [Prompts, ExactMatch, Math, MultipleChoice])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=CELLS | TURNS, answer=CELLS, choices=CELLS, tools=CELLS)
def test_any_row_that_json_can_hold_is_read_whole_or_refused_in_one_line(
    tmp_path: Path, kind: type, prompt: Any, answer: Any, choices: Any, tools: Any
) -> None:
    row = {"prompt": prompt, "answer": answer, "choices": choices, "tools": tools}
    task = kind(path=write(tmp_path / "a.jsonl", row), prompt_column="prompt", eval_fraction=0)
    refused = None
    try:
        (example,) = task.examples("train")
    except UserError as error:
        refused = str(error)
    if refused is not None:
        assert "a.jsonl" in refused and "\n" not in refused  # noqa: PT018
        return
    said = json.dumps([*example.messages, example.completion, dict(example.closing)], ensure_ascii=False)
    if isinstance(prompt, list):  # every text of every turn is there
        texts = [
            v for turn in prompt for k, v in turn.items() if isinstance(v, str) and k in ("content", "value", "name")
        ]
        assert all(json.dumps(text, ensure_ascii=False)[1:-1] in said for text in texts)


def test_messages_in_the_text_of_a_cell_are_messages_and_other_lists_are_text() -> None:
    packed = json.dumps([ASKED, {"role": "assistant", "content": "Sunny."}])
    assert messages_of(packed, "here") == (ASKED,)
    assert closing_turns(packed, "here") == {"role": "assistant", "content": "Sunny."}
    for text in ("[1, 2]", "[draft] write it", "[]", '[{"a": 1}]'):
        assert messages_of(text, "here") == ({"role": "user", "content": text},)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_prompt_without_a_word_is_refused(text: str, tmp_path: Path) -> None:
    task = Prompts(path=write(tmp_path / "rows.jsonl", {"prompt": "a"}, {"prompt": text}), eval_fraction=0)
    with pytest.raises(UserError, match="line 2: column 'prompt': this prompt is an empty text"):
        list(task.examples("train"))


def test_an_answer_that_is_not_to_be_learned_is_refused_and_weights_reach_no_template() -> None:
    def turns(weight: int) -> list[Any]:
        return [{**ASKED, "weight": 0}, {"role": "assistant", "content": "Sunny.", "weight": weight}]

    assert messages_of(turns(1), "here") == (ASKED,)
    assert closing_turns(turns(1), "here") == {"role": "assistant", "content": "Sunny."}
    with pytest.raises(UserError, match="here: the turn that closes these messages has the weight 0"):
        closing_turns(turns(0), "here")
