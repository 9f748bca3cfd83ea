"""A call of a tool ends once, with what stops the engine, and the tool's reply goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from opd.models.loading import call_end, stop_ids
from opd.text.chat import completion_ids, render, reply_ids
from opd.types import Pretrained, UserError
from tests.text.families import FAMILIES, byte_tokenizer
from tests.text.tool_families import GEMMA4, GPT_OSS, START, TOOL_FAMILIES, ToolFamily

HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"a": 1}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
SUNNY = [{"role": "tool", "content": "sunny", "name": "weather", "tool_call_id": "abcdefghi"}]
family = pytest.mark.parametrize("family", TOOL_FAMILIES, ids=lambda f: f.name)


def tokenizer_of(family: ToolFamily) -> Any:
    return byte_tokenizer(family.template, family.special, family.eos)


def stops(tokenizer: Any, folder: Path) -> tuple[int, ...]:
    return stop_ids(Pretrained(str(folder)), tokenizer)


@family
def test_what_ends_a_call_stops_the_engine_without_a_generation_config(family: ToolFamily, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(family)
    assert tokenizer.convert_tokens_to_ids(family.end) in stops(tokenizer, tmp_path)


@family
def test_a_given_call_is_learned_with_its_own_end_once(family: ToolFamily, tmp_path: Path) -> None:
    tokenizer, kwargs = tokenizer_of(family), dict(family.kwargs)
    stop, prompt = stops(tokenizer, tmp_path), render(tokenizer, HI, tools=TOOLS, template_kwargs=kwargs)
    ids = completion_ids(
        tokenizer, HI, "", prompt, stop, closing={"tool_calls": [CALL]}, tools=TOOLS, template_kwargs=kwargs
    )
    assert tokenizer.decode(ids) == family.call + family.end
    assert sum(i in stop for i in ids) == 1


@family
@pytest.mark.parametrize("ends", [True, False])
def test_a_tools_reply_goes_on_from_the_call(family: ToolFamily, ends: bool, tmp_path: Path) -> None:
    tokenizer, kwargs = tokenizer_of(family), dict(family.kwargs)
    stop = stops(tokenizer, tmp_path)
    last = tokenizer.convert_tokens_to_ids(family.end) if ends else None
    bridge = reply_ids(tokenizer, HI, SUNNY, stop, last=last, tools=TOOLS, template_kwargs=kwargs)
    roles = {"glm 4.5": "<|observation|>", "glm 5": "<|observation|>"}
    assert tokenizer.decode(bridge) == ("" if ends else roles.get(family.name, "")) + family.reply
    # and so does one that comes later, when the student's earlier calls are known by their words alone
    said = {"role": "assistant", "content": "calling"}
    assert (
        reply_ids(tokenizer, [*HI, said, *SUNNY], SUNNY, stop, last=last, tools=TOOLS, template_kwargs=kwargs) == bridge
    )


@family
def test_a_user_goes_on_after_tools_as_without_them(family: ToolFamily, tmp_path: Path) -> None:
    tokenizer, kwargs = tokenizer_of(family), dict(family.kwargs)
    stop, last, asked = stops(tokenizer, tmp_path), tokenizer.eos_token_id, [{"role": "user", "content": "and?"}]
    said = {"role": "assistant", "content": "calling"}
    without, after = (
        reply_ids(tokenizer, before, asked, stop, last=last, tools=TOOLS, template_kwargs=kwargs)
        for before in (HI, [*HI, said, *SUNNY])
    )
    assert without == after


@family
def test_prompt_call_and_reply_are_the_rendered_conversation(family: ToolFamily) -> None:
    if family.exact:
        tokenizer, kwargs = tokenizer_of(family), dict(family.kwargs)
        prompt = tokenizer.decode(render(tokenizer, HI, tools=TOOLS, template_kwargs=kwargs))
        whole = tokenizer.decode(render(tokenizer, [*HI, CALLS, *SUNNY], tools=TOOLS, template_kwargs=kwargs))
        assert prompt + family.call + family.end + family.reply == whole


def test_a_call_behind_the_end_of_a_turn_is_refused_and_not_lost() -> None:
    template = START + (
        "{% for m in messages %}{{ m.content }}<e>{% for c in m.tool_calls or [] %}{{ c.function | tojson }}<e>"
        "{% endfor %}{% endfor %}"
    )
    tokenizer = byte_tokenizer(template, ("<e>",), "<e>")
    prompt = render(tokenizer, HI, tools=TOOLS)
    with pytest.raises(UserError, match='ends a turn in the midst of a completion, before \'\\{"name": "weather"'):
        completion_ids(tokenizer, HI, "well", prompt, (1,), closing={"tool_calls": [CALL]}, tools=TOOLS)


def test_thoughts_of_a_call_are_not_written_behind_an_empty_block() -> None:
    family = next(f for f in TOOL_FAMILIES if f.name == "gemma 4")
    thoughts = "{{ '<|channel>thought\n' + m.reasoning_content + '<channel|>' if m.reasoning_content }}"
    thinking = GEMMA4.replace("{{ m.content }}{% for c", thoughts + "{{ m.content }}{% for c")
    tokenizer = byte_tokenizer(thinking, family.special, family.eos)
    closing = {"tool_calls": [CALL], "reasoning_content": "hm"}
    stop = tokenizer.convert_tokens_to_ids([family.eos, family.end])
    how: dict[str, Any] = {"tools": TOOLS, "template_kwargs": {"enable_thinking": True}}
    ids = completion_ids(tokenizer, HI, "", render(tokenizer, HI, **how), stop, closing=closing, **how)
    assert tokenizer.decode(ids) == "<|channel>thought\nhm<channel|>" + family.call + family.end
    with pytest.raises(
        UserError, match=r"the prompt ends with .*, and the completion has thoughts of its own: begins 'hm'"
    ):
        completion_ids(tokenizer, HI, "", render(tokenizer, HI, tools=TOOLS), stop, closing=closing, tools=TOOLS)


def test_arguments_that_a_template_wants_as_text_keep_their_letters() -> None:
    template = (
        START + "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
        "{{ '' + c.function.arguments }}{% endfor %}<e>{% endfor %}"
    )
    tokenizer = byte_tokenizer(template, ("<e>",), "<e>")
    call = {"function": {"name": "weather", "arguments": {"a": "Köln 東京"}}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    assert '{"a": "Köln 東京"}' in tokenizer.decode(render(tokenizer, [*HI, turn, *HI], tools=TOOLS))


def test_a_reply_that_the_template_drops_is_refused_in_one_line() -> None:
    for name in ("qwen3", "gpt-oss", "granite"):  # gpt-oss' is of words alone here
        family = next(f for f in FAMILIES if f.name == name)
        tokenizer = family.tokenizer()
        if name == "gpt-oss":
            tokenizer.chat_template = GPT_OSS.replace("{{ m.content | tojson }}<|end|>", "<|end|>")
            with pytest.raises(UserError, match=r"leaves out a turn of role 'tool': 'sunny'"):
                reply_ids(tokenizer, HI, SUNNY, (1,), tools=TOOLS)
        else:
            assert "sunny" in tokenizer.decode(reply_ids(tokenizer, HI, SUNNY, (1,)))
    deaf = byte_tokenizer("{% for m in messages if m.role != 'tool' %}{{ m.content }}<e>{% endfor %}", ("<e>",), "<e>")
    with pytest.raises(UserError, match=r"leaves out a turn of role 'tool': 'sunny'; rename"):
        reply_ids(deaf, HI, SUNNY, (1,))


def test_a_row_whose_reply_belongs_to_no_call_is_refused_where_it_would_be_lost() -> None:
    family = next(f for f in TOOL_FAMILIES if f.name == "gemma 4")
    tokenizer = byte_tokenizer(GEMMA4, family.special, family.eos)
    with pytest.raises(UserError, match="leaves out a turn of role 'tool'"):
        render(tokenizer, [*HI, {"role": "assistant", "content": "ok"}, *SUNNY], tools=TOOLS)


def test_a_template_that_does_not_write_calls_ends_none() -> None:
    for family in FAMILIES:
        assert call_end(family.tokenizer()) is None
    assert call_end(byte_tokenizer("{{ raise_exception('no') }}", ("<e>",), "<e>")) is None
