"""Whatever a template leaves out of a conversation is refused by name, wherever in the conversation it stands."""

from __future__ import annotations

from typing import Any

import pytest

from opd.text.chat import completion_ids, render, reply_ids
from opd.types import UserError
from tests.text.families import CHATML, FAMILIES, GEMMA, LLAMA3, QWEN3, byte_tokenizer
from tests.text.tool_families import TOOL_FAMILIES

HI = {"role": "user", "content": "hi"}
YES = {"role": "assistant", "content": "yes"}
SYSTEM = {"role": "system", "content": "be brief"}
LONG = "word " * 40
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
SUNNY = {"role": "tool", "content": "sunny", "name": "weather", "tool_call_id": "abcdefghi"}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TURNS = "{% for m in messages %}TURN<e>{% endfor %}"
CALLED = "{{ m.content }}{% for c in m.tool_calls or [] %}CALL{% endfor %}"


def of(turn: str) -> Any:
    """A tokenizer whose template writes each turn so."""
    return byte_tokenizer(TURNS.replace("TURN", turn), ("<e>",), "<e>")


@pytest.mark.parametrize(
    ("turn", "messages", "lost"),
    [
        ("{{ m.content if m.role != 'system' }}", [SYSTEM, HI], "a turn of role 'system': 'be brief'"),
        # once more, where another turn says the same
        ("{{ m.content if m.role != 'system' }}", [SYSTEM, {**HI, "content": "be brief"}], "a turn of role 'system'"),
        # and where what the template itself writes has it
        ("assistant{{ m.content if m.role != 'user' }}", [{**HI, "content": "a"}], "a turn of role 'user': 'a'"),
        ("{{ m.content if m.role == 'user' }}", [HI, YES, HI], "a turn of role 'assistant': 'yes'"),
        ("{{ m.content if loop.last }}", [HI, YES, HI], "a turn of role 'user': 'hi'"),
        ("{{ m.content if m.role != 'assistant' }}", [HI, {**YES, "content": "hi"}, HI], "a turn of role 'assistant'"),
        ("{{ m.content[:100] }}", [{**HI, "content": LONG}], "a turn of role 'user': 'word word"),
        ("{{ m.content[5:] }}", [{**HI, "content": LONG}], "a turn of role 'user': 'word word"),
        ("{{ m.content.split('\n')[0] }}", [{**HI, "content": "one\ntwo"}], "a turn of role 'user': 'one"),
        ("{{ m.content if m.role != 'tool' }}", [HI, YES, SUNNY], "a turn of role 'tool': 'sunny'"),
        (CALLED.replace("CALL", ""), [HI, {**CALLS, "content": "weather"}, SUNNY], "the call of the tool 'weather'"),
        (CALLED.replace("CALL", "{{ c.function.name }}"), [HI, CALLS, SUNNY], "the arguments of a call of the tool"),
        (CALLED.replace("CALL", "{{ c.function }}").replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"),
         [HI, {**CALLS, "tool_calls": [CALL, CALL]}, SUNNY], "the call of the tool 'weather'"),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_of_a_prompt_is_named(turn: str, messages: list[Any], lost: str) -> None:
    with pytest.raises(UserError, match=f"leaves out {lost}"):
        render(of(turn), messages)


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("", "the tool 'weather'"),
        ("{{ t.function.name }}", "what the tool 'weather' is described with"),
        ("{{ t.function.name }}{{ t.function.description }}", "the parameters of the tool 'weather'"),
        ("{{ t.function.parameters }}{{ t.function.description }}", "the tool 'weather'"),
        ("{{ t | tojson }}", ""),
    ],
)
def test_tools_are_said_whole_also_where_the_question_names_them(said: str, lost: str) -> None:
    template = "{% for t in tools %}" + said + "{% endfor %}" + TURNS.replace("TURN", "{{ m.content }}")
    tokenizer = byte_tokenizer(template, ("<e>",), "<e>")
    asked = [{**HI, "content": "what does the tool weather say?"}]
    if lost:
        with pytest.raises(UserError, match=f"leaves out {lost}"):
            render(tokenizer, asked, tools=[TOOL])
    else:
        assert render(tokenizer, asked, tools=[TOOL])


@pytest.mark.parametrize(
    ("turn", "field"),
    [
        ({**YES, "function_call": {"name": "f", "arguments": "{}"}}, "function_call"),
        ({**YES, "refusal": "I will not"}, "refusal"),
        ({**YES, "reasoning_content": "hm"}, "reasoning_content"),
        ({**HI, "name": "Ann"}, "name"),
        ({**HI, "hashed_ip": "0f"}, "hashed_ip"),
    ],
)
def test_fields_that_a_template_does_not_read_are_named_and_empty_ones_are_not_missed(turn: Any, field: str) -> None:
    for how in ({}, {"template": "plain"}):
        with pytest.raises(UserError, match=f"does not read '{field}'|a turn has '{field}', which plain text"):
            render(of("{{ m.content }}"), [turn, HI], **how)
    assert render(of("{{ m.content }}"), [{**turn, field: ""}, HI])
    assert render(of(f"{{{{ m.content }}}}{{{{ m.{field} }}}}"), [turn, HI])


def test_thoughts_of_earlier_turns_are_the_templates_to_leave_out() -> None:
    tokenizer = byte_tokenizer(QWEN3, ("<|im_start|>", "<|im_end|>"), "<|im_end|>")
    for earlier in ({**YES, "reasoning_content": "hm"}, {**YES, "content": "<think>\nhm\n</think>\n\nyes"}):
        assert "hm" not in tokenizer.decode(render(tokenizer, [HI, earlier, {**HI, "content": "and?"}]))


def test_thoughts_in_two_places_are_refused_and_not_written_twice() -> None:
    tokenizer = byte_tokenizer(QWEN3, ("<|im_start|>", "<|im_end|>"), "<|im_end|>")
    closing = {"reasoning_content": "hm"}
    with pytest.raises(UserError, match=r"has thoughts in its text .* and in reasoning_content; keep one"):
        completion_ids(tokenizer, [HI], "<think>so</think>yes", render(tokenizer, [HI]), (2,), closing=closing)
    with pytest.raises(UserError, match="keep one"):
        render(tokenizer, [HI, {**YES, "content": "<think>so</think>yes", **closing}, HI])


@pytest.mark.parametrize(
    ("turn", "closing", "lost"),
    [
        ("{{ m.content[:100] }}", {"content": LONG}, "its text 'word"),
        (CALLED.replace("CALL", "{{ c.function.name }}"), CALLS, "the arguments of a call"),
        ("{{ m.content }}{{ (m.reasoning_content or '')[:60] }}", {"content": "a", "reasoning_content": LONG},
         "reasoning"),
        ("{{ 'CALL' if m.tool_calls else m.content }}".replace("CALL", "weather"), {**CALLS, "content": "let me see"},
         "its text 'let me see'"),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_of_an_answer_is_named(turn: str, closing: Any, lost: str) -> None:
    tokenizer, fields = of(turn), {k: v for k, v in closing.items() if k not in ("role", "content")}
    with pytest.raises(UserError, match=f"leaves out of a completion: .*{lost}"):
        completion_ids(tokenizer, [HI], closing["content"], render(tokenizer, [HI]), (1,), closing=fields)


def test_replies_are_whole_too() -> None:
    cut = of("{{ m.content[:100] if m.role == 'user' else m.content }}")
    with pytest.raises(UserError, match="leaves out a turn of role 'user': 'word"):
        reply_ids(cut, [HI], [{**HI, "content": LONG}], (1,))
    same = of("{{ m.content if not loop.last or m.role != 'user' }}")
    with pytest.raises(UserError, match="leaves out a turn of role 'user': 'hi'"):
        reply_ids(same, [HI], [HI, HI], (1,))


def test_settings_that_a_template_does_not_read_are_refused_with_the_nearest_that_it_does() -> None:
    tokenizer = byte_tokenizer(QWEN3, ("<|im_start|>", "<|im_end|>"), "<|im_end|>")
    with pytest.raises(UserError, match="does not read 'enable_thinkin'; did you mean 'enable_thinking'"):
        render(tokenizer, [HI], template_kwargs={"enable_thinkin": False})
    with pytest.raises(
        UserError, match="template_kwargs: the chat template does not read 'xyzzy'; take it out, or give"
    ):
        render(byte_tokenizer(CHATML, (), "<pad>"), [HI], template_kwargs={"xyzzy": 1})


def test_no_family_loses_what_is_whole() -> None:
    """Marks change nothing that a template decides by: each family takes what it is made for."""
    talk = [HI, YES, HI, {**YES, "content": "<think>\nhm\n</think>\n\nno"}, {**HI, "content": "and?"}]
    for family in FAMILIES:
        kwargs = dict(family.kwargs)
        assert render(family.tokenizer(), talk, template_kwargs=kwargs), family.name
        if "{{ m.role }}" in family.template:
            assert render(family.tokenizer(), [SYSTEM, *talk], template_kwargs=kwargs), family.name
    for tools in TOOL_FAMILIES:
        tokenizer = byte_tokenizer(tools.template, tools.special, tools.eos)
        named = {"type": "function", "function": {"name": "weather"}}  # START says no more of a tool
        turns = [HI, CALLS, SUNNY, YES, HI]
        assert render(tokenizer, turns, tools=[named], template_kwargs=dict(tools.kwargs)), tools.name


def test_a_template_may_trim_and_escape() -> None:
    for turn in ("{{ m.content | trim }}", "{{ m.content | tojson }}", "{{ m.content.split() | join(' ') }}"):
        assert render(of(turn), [{**SYSTEM, "content": " Köln “a” \n b "}, HI])
    assert render(byte_tokenizer(LLAMA3, (), "<pad>"), [{**SYSTEM, "content": " a "}, HI])
    with pytest.raises(UserError, match="System role not supported"):
        render(byte_tokenizer(GEMMA, (), "<pad>"), [SYSTEM, HI])
