"""What a template writes at the end of a prompt is written once: in generation, in given answers, and between turns."""

from __future__ import annotations

from typing import Any

import pytest

from opd.models.loading import turn_end
from opd.text.chat import completion_ids, render, reply_ids
from opd.types import UserError
from tests.text.families import FAMILIES, QWEN3, R1, REFUSED, Family, byte_tokenizer
from tests.tokenizers import smollm2

HI, AND = [{"role": "user", "content": "hi"}], [{"role": "user", "content": "and?"}]
THOUGHT = "<think>\nhm\n</think>\n\nyes"
family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def stops(tokenizer: Any, family: Family) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(token) for token in family.stop]


def answer(family: Family, text: str, **closing: Any) -> str:
    """The text of the ids of a given answer."""
    tokenizer, kwargs = family.tokenizer(), dict(family.kwargs)
    prompt = render(tokenizer, HI, template_kwargs=kwargs)
    stop = stops(tokenizer, family)
    found = completion_ids(tokenizer, HI, text, prompt, stop, closing=closing, template_kwargs=kwargs)
    assert found[-1] in stop
    assert not set(found[:-1]) & set(stop)
    return tokenizer.decode(found)


@family
def test_the_prompt_ends_as_the_family_wants_it(family: Family) -> None:
    tokenizer = family.tokenizer()
    assert render(tokenizer, HI, template_kwargs=dict(family.kwargs)) == ids(tokenizer, family.prompt)


@family
def test_a_given_answer_is_what_the_student_would_write_after_the_prompt(family: Family) -> None:
    assert answer(family, "yes") == family.plain


@family
def test_thoughts_of_a_given_answer_are_written_once_or_refused(family: Family) -> None:
    end = family.stop[-1]
    for expected, text, closing in (
        (family.thought, THOUGHT, {}), (family.reasoning, "yes", {"reasoning_content": "hm"}),
    ):  # fmt: skip
        if expected == REFUSED:
            with pytest.raises(
                UserError,
                match=r"the completion has thoughts of its own: begins '(<think>|hm)|leaves out of a completion",
            ):
                answer(family, text, **closing)
        else:
            assert answer(family, text, **closing) == expected + end


@family
def test_a_second_turn_goes_on_from_the_ids_of_the_first(family: Family) -> None:
    tokenizer, kwargs = family.tokenizer(), dict(family.kwargs)
    stop = stops(tokenizer, family)
    bridge = reply_ids(tokenizer, HI, AND, stop, last=stop[-1], template_kwargs=kwargs)
    assert tokenizer.decode(bridge) == family.reply
    written = family.prompt + family.plain + family.reply
    assert written.count(family.stop[-1] + family.stop[-1]) == 0
    third = reply_ids(tokenizer, [*HI, {"role": "assistant", "content": "yes"}, *AND], AND, stop, last=stop[-1],
                      template_kwargs=kwargs)  # fmt: skip
    assert third == bridge


@family
def test_the_id_that_ends_a_turn_is_found_without_a_generation_config(family: Family) -> None:
    tokenizer = family.tokenizer()
    end = turn_end(tokenizer)
    assert end in (None, *stops(tokenizer, family))
    if family.stop[-1] not in family.plain.removesuffix(family.stop[-1]) and "SPECIAL" not in family.stop[-1]:
        assert end == stops(tokenizer, family)[-1]


def test_real_templates_are_followed_too() -> None:
    tokenizer, stop = smollm2(), (2,)
    prompt = render(tokenizer, HI)
    ids = [*prompt, *completion_ids(tokenizer, HI, "yes", prompt, stop), *reply_ids(tokenizer, HI, AND, stop, last=2)]
    assert ids == render(tokenizer, [*HI, {"role": "assistant", "content": "yes"}, *AND])
    assert turn_end(tokenizer) == 2


def test_every_family_that_people_train_is_there() -> None:
    named = " ".join(f.name for f in FAMILIES)
    for name in ("qwen2.5", "qwen3", "qwen3.5", "deepseek r1", "llama 3", "gemma 2 and 3", "gemma 4", "mistral", "phi",
                 "glm 4.5", "glm 5", "gpt-oss", "smollm3", "granite", "nemotron", "olmo"):  # fmt: skip
        assert name in named


def test_a_template_that_drops_a_turn_a_tool_or_a_call_is_refused() -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    deaf = byte_tokenizer("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", ("<e>",), "<e>")
    with pytest.raises(UserError, match="leaves out a turn of role 'developer': 'be brief'"):
        render(deaf, [{"role": "developer", "content": "be brief"}, *HI])
    with pytest.raises(UserError, match="leaves out the tool 'weather'"):
        render(deaf, HI, tools=[tool])
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]}
    with pytest.raises(
        UserError, match=r"leaves out a turn of role 'assistant'|leaves out the call of the tool 'weather'"
    ):
        render(deaf, [*HI, call, *AND])
    with pytest.raises(UserError, match="plain text cannot say"):
        render(deaf, HI, tools=[tool], template="plain")


def test_a_template_that_does_not_take_the_roles_is_one_line() -> None:
    gemma = next(f for f in FAMILIES if f.name.startswith("gemma 2"))
    with pytest.raises(UserError, match=r"does not take these messages \(of system, user\): System role not supported"):
        render(gemma.tokenizer(), [{"role": "system", "content": "x"}, *HI])


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{{ messages[9].content.x }}"])
def test_a_template_that_fails_like_any_program_is_one_line(template: str) -> None:
    with pytest.raises(UserError, match=r"does not take these messages \(of user\): \w+"):
        render(byte_tokenizer(template, ("<e>",), "<e>"), HI)


def test_tools_and_calls_reach_a_template_that_knows_them_arguments_as_it_wants_them() -> None:
    start = "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}{% for m in messages %}"
    tool = {"type": "function", "function": {"name": "weather"}}
    turn = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "weather", "arguments": {"a": 1}}}],
    }
    said = "{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }}(ARGS){% endfor %}{% endif %}"
    for wanted in ("{{ c.function.arguments | tojson }}", "{{ '' + c.function.arguments }}"):
        template = start + said.replace("(ARGS)", f"({wanted})") + "{{ m.content }}{% endfor %}"
        tokenizer = byte_tokenizer(template, ("<e>",), "<e>")
        assert (
            tokenizer.decode(render(tokenizer, [*HI, turn, *AND], tools=[tool])) == '[weather]hiweather({"a": 1})and?'
        )


@pytest.mark.parametrize("template", [QWEN3, R1], ids=["qwen3", "r1"])
def test_thoughts_of_earlier_turns_stay_in_a_conversation_as_they_were_sampled(template: str) -> None:
    special = ("<|im_start|>", "<|im_end|>", "<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>")
    tokenizer = byte_tokenizer(template, special, "<|im_end|>" if template is QWEN3 else "<|end|>")
    turn = [{"role": "assistant", "content": THOUGHT}]
    stop = [tokenizer.eos_token_id]
    bridge = tokenizer.decode(reply_ids(tokenizer, [*HI, *turn, *AND], AND, stop, last=stop[0]))
    assert "hm" not in bridge
    assert "and?" in bridge
