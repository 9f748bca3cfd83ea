"""What Ollama is told writes prompts as the chat template does, or nothing is told of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from opd.text.modelfile import modelfile
from opd.text.script import Script
from tests.tiny import QWEN3_TEMPLATE, TEMPLATE, char_tokenizer

CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENDLESS = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
LAST = (
    "{% for m in messages %}{% if loop.last %}<{{ m['content'] }}>{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
)
TALKS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "a"}],
    [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
    [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"))],
    [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "a"), ("assistant", "b\n"), ("user", " c"))],
]


def parsed(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Modelfile, as Ollama reads them: one a line, or up to three quotes."""
    while text := text.lstrip("\n"):
        if text.startswith("#"):
            text = text.partition("\n")[2]
            continue
        found = re.match(r'(FROM|TEMPLATE|SYSTEM|PARAMETER \w+) (?:"""(.*?)"""|"([^"\n]*)"|([^"\n]+))\n', text, re.S)
        assert found, f"no instruction: {text[:60]!r}"
        yield found[1], next(g for g in found.groups()[1:] if g is not None)
        text = text[found.end() :]


def one(text: str, name: str) -> str:
    (found,) = [value for word, value in parsed(text) if word == name]
    return found


def rendered(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """What Go's text/template makes of the few actions that are written: if, else if, range, fields, eq, not."""
    parts = re.split(r"\{\{ (.*?) \}\}", template)
    system = "".join(m["content"] for m in messages if m["role"] == "system")
    out, at = [], 0

    def known(condition: str, message: Mapping[str, str] | None) -> bool:
        if condition == "not .System":
            return not system
        role = re.fullmatch(r'eq \.Role "(\w+)"', condition)
        assert role, condition
        assert message is not None
        return message["role"] == role[1]

    def block(message: Mapping[str, str] | None, shown: bool) -> str:
        """Write up to the end of a block; what ended it."""
        nonlocal at
        while True:
            if shown:
                out.append(parts[at])
            if at + 1 == len(parts):
                return ""
            action, at = parts[at + 1], at + 2
            if action == "end" or action.startswith("else if "):
                return action
            if action == ".Content":
                assert message is not None
                out.append(message["content"] if shown else "")
            elif action == "range .Messages":
                begin = at
                for each in messages:
                    at = begin
                    assert block(each, shown) == "end"
            else:
                done, action = False, action.removeprefix("if ")
                while action != "end":
                    now = not done and known(action.removeprefix("else if "), message)
                    done, action = done or now, block(message, shown and now)

    assert block(None, True) == ""
    return "".join(out)


def written(tokenizer: Any, **other: Any) -> str:
    told: dict[str, Any] = {"begins": False, "stop": (1,), "temperature": 0.7, "context": 8192, "longest": 300,
                            "system": None} | other  # fmt: skip
    kwargs = told.pop("template_kwargs", None)
    return modelfile(Script(tokenizer, told.pop("template", "auto"), kwargs), "m-F16.gguf", **told)


@pytest.mark.parametrize("template", [CHATML, TEMPLATE, ENDLESS], ids=["chatml", "joined", "no ends"])
def test_ollama_writes_conversations_as_the_chat_template_does(template: str) -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template, tokenizer.bos_token = template, "<eos>"
    text = one(written(tokenizer), "TEMPLATE")
    for talk in TALKS:
        assert rendered(text, talk) == tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)


def test_a_bos_that_programs_put_before_all_texts_is_not_written_twice() -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template, tokenizer.bos_token = ENDLESS, "<eos>"
    text = one(written(tokenizer, begins=True), "TEMPLATE")
    for talk in TALKS:
        whole = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        assert "<eos>" + rendered(text, talk) == whole


def test_prompts_are_written_with_the_settings_of_training() -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = QWEN3_TEMPLATE
    text = written(tokenizer, template_kwargs={"enable_thinking": False}, system="Be brief.")
    assert rendered(one(text, "TEMPLATE"), TALKS[0]) == "a:= ="
    assert one(text, "SYSTEM") == "Be brief."
    assert rendered(one(written(tokenizer), "TEMPLATE"), TALKS[0]) == "a:"


@pytest.mark.parametrize("template", [LAST, "{{ messages[0]['content'] }}", "{{ '{{' }}" + TEMPLATE])
def test_a_template_that_is_not_the_same_around_each_turn_is_not_guessed_at(template: str) -> None:
    tokenizer = char_tokenizer()
    tokenizer.chat_template = template
    text = written(tokenizer)
    assert "TEMPLATE" not in dict(parsed(text))
    assert "# no TEMPLATE" in text


def test_plain_prompts_stay_plain() -> None:
    assert one(written(char_tokenizer(), template="plain"), "TEMPLATE") == "{{ .Prompt }}"


def test_sampling_is_that_of_training_and_ends_where_a_completion_does() -> None:
    told = [(name, value) for name, value in parsed(written(char_tokenizer(), stop=(1, 0))) if name != "TEMPLATE"]
    assert told == [
        ("FROM", "./m-F16.gguf"), ("PARAMETER stop", "<eos>"), ("PARAMETER stop", "<pad>"),
        ("PARAMETER temperature", "0.7"), ("PARAMETER top_k", "0"), ("PARAMETER top_p", "1"), ("PARAMETER min_p", "0"),
        ("PARAMETER repeat_penalty", "1"), ("PARAMETER num_ctx", "4096"),
    ]  # fmt: skip
    assert one(written(char_tokenizer(), context=256), "PARAMETER num_ctx") == "256"
