"""Chat templates in the ways of model families: how a call of a tool ends, and how the tool's reply is written.

Each is written here, and small. They all describe a tool by its name alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.text.families import DEEPSEEK, GLM, HARMONY, IM, OFF

START = "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}"
CALLED = "{% for c in m.tool_calls or [] %}"
JSON_CALL = '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
WANTS_CALL = (
    "{% if not loop.previtem or not loop.previtem.tool_calls %}{{ raise_exception('no call before') }}{% endif %}"
)


@dataclass(frozen=True)
class ToolFamily:
    """A way to write calls and replies, and what must come of `weather(a=1)` and `sunny`."""

    name: str
    template: str
    special: tuple[str, ...]
    eos: str
    end: str
    """What ends a call."""
    call: str
    """The completion that calls the tool, after the user's `hi`, without its end."""
    reply: str
    """What comes between that and the student's next turn."""
    kwargs: tuple[tuple[str, Any], ...] = ()
    exact: bool = True
    """Whether the template writes the whole conversation as prompt, call and reply; else it strips empty thoughts."""


QWEN = (
    START + "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    + CALLED + "<tool_call>\n" + JSON_CALL + "\n</tool_call>{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{{ '<think>\n\n</think>\n\n' if enable_thinking is defined and not enable_thinking }}{% endif %}"
)  # fmt: skip
NEMOTRON3 = (
    QWEN.replace(
        "{{ m.content }}" + CALLED,
        "{% if m.role == 'assistant' %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n' if m.reasoning_content "
        "is defined else '<think></think>' }}{% endif %}{{ m.content }}" + CALLED
    ).split("{{ '<think>\n\n")[0] + "<think>\n{% endif %}"
)  # fmt: skip
# The end of a turn that calls is written otherwise once a reply has come.
NEMOTRON_NANO2 = (
    START + "{% for m in messages %}{% if m.role == 'tool' %}<S11>User\n<TOOL_RESPONSE>[{{ m.content }}]"
    "</TOOL_RESPONSE>{% elif m.role == 'user' %}<S11>User\n{{ m.content }}\n{% else %}<S11>Assistant\n{{ m.content }}"
    + CALLED + "<TOOLCALL>[" + JSON_CALL + "]</TOOLCALL>{% endfor %}"
    "{{ '<S12>\n\n' if loop.last and m.tool_calls else '\n<S12>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<S11>Assistant\n<think>\n{% endif %}"
)  # fmt: skip
LLAMA31 = (
    START + "{% for m in messages %}<|head|>{{ 'ipython' if m.role == 'tool' else m.role }}<|/head|>\n\n"
    "{{ m.content | tojson if m.role == 'tool' else m.content }}"
    + CALLED + '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}{% endfor %}'
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)  # fmt: skip
GLM45 = (
    "[gMASK]<sop>" + START + "{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ '<|observation|>' if loop.previtem.role != 'tool' }}\n<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% elif m.role == 'user' %}<|user|>\n{{ m.content }}{% else %}<|assistant|>\n<think></think>"
    "{{ '\n' + m.content if m.content }}" + CALLED + "{{ '\n<tool_call>' + c.function.name }}"
    "{% for k, v in c.function.arguments.items() %}{{ '\n<arg_key>' + k }}</arg_key>\n<arg_value>{{ v }}</arg_value>"
    "{% endfor %}{{ '\n</tool_call>' }}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GLM5 = (
    GLM45.replace("\n", "").replace("<think></think>", "</think>")
    .replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")
)  # fmt: skip
GPT_OSS = (
    START + "{% for m in messages %}{% if m.role == 'tool' %}" + WANTS_CALL +
    "<|start|>functions.{{ loop.previtem.tool_calls[0].function.name }} to=assistant<|channel|>commentary<|message|>"
    "{{ m.content | tojson }}<|end|>{% elif m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>"
    "{% elif m.tool_calls %}" + CALLED + "<|start|>assistant to=functions.{{ c.function.name }}<|channel|>commentary"
    " json<|message|>{{ c.function.arguments | tojson }}<|call|>{% endfor %}{% else %}<|start|>assistant"
    "<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)  # fmt: skip
# Replies are written into the turn that called, and a reply to no call is not written at all.
GEMMA4 = (
    "<bos>" + START + "{% for m in messages %}{% if m.role != 'tool' %}"
    "<|turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}"
    + CALLED
    + "<|tool_call>call:{{ c.function.name }}{{ c.function.arguments | tojson }}<tool_call|>{% endfor %}"
    "{% if m.tool_calls %}<|tool_response>{% if loop.nextitem is defined and loop.nextitem.role == 'tool' %}"
    "response:{{ loop.nextitem.content }}<tool_response|>{% endif %}{% else %}<turn|>\n{% endif %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' if messages[-1].role != 'tool' }}"
    "{{ '<|channel>thought\n<channel|>' if not enable_thinking }}{% endif %}"
)
MISTRAL = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}{% if loop.last %}"
    + START
    + "{% endif %}[INST] {{ m.content }}"
    "[/INST]{% elif m.role == 'tool' %}{% if m.tool_call_id | length != 9 %}{{ raise_exception('IDs have 9 letters') }}"
    "{% endif %}" + WANTS_CALL + '[TOOL_RESULTS]{"content": {{ m.content }}, "call_id": "{{ m.tool_call_id }}"}'
    "[/TOOL_RESULTS]{% elif m.tool_calls %}[TOOL_CALLS][" + CALLED + "{{ c.function | tojson }}{% endfor %}]</s>"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
# Nothing is written between a reply and the student's next words.
DEEPSEEK_V3 = (
    "<|begin|>" + START + "{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}"
    "{% elif m.role == 'tool' %}<|output|>{{ m.content }}<|/output|>{% else %}<|Assistant|>{{ m.content }}"
    + CALLED
    + "<|call|>{{ c.function.name }}<|sep|>{{ c.function.arguments | tojson }}<|/call|>{% endfor %}<|end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1].role == 'user' %}<|Assistant|>{% endif %}"
)
GRANITE4 = (
    QWEN.split("{{ '<think>")[0].replace("<|im_start|>", "<|role|>").replace("<|im_end|>", "<|text|>") + "{% endif %}"
)
TAGGED = '<tool_call>\n{"name": "weather", "arguments": {"a": 1}}\n</tool_call>'
TOLD = "\n<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
GLM_CALL = "\n<tool_call>weather\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
GLM_ALL = (*GLM, "<|observation|>")
GEMMA = ("<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
         "<tool_response|>")  # fmt: skip

TOOL_FAMILIES = [
    ToolFamily("qwen2.5 and 3", QWEN, IM, IM[1], IM[1], TAGGED, TOLD),
    ToolFamily("qwen3 off", QWEN, IM, IM[1], IM[1], TAGGED, TOLD + "<think>\n\n</think>\n\n", OFF, exact=False),
    ToolFamily("nemotron 3", NEMOTRON3, IM, IM[1], IM[1], "\n</think>\n" + TAGGED, TOLD + "<think>\n", exact=False),
    ToolFamily("nemotron nano 2", NEMOTRON_NANO2, ("<S11>", "<S12>"), "<S12>", "<S12>",
               '\n</think>\n\n<TOOLCALL>[{"name": "weather", "arguments": {"a": 1}}]</TOOLCALL>',
               "\n<S11>User\n<TOOL_RESPONSE>[sunny]</TOOL_RESPONSE><S11>Assistant\n<think>\n", exact=False),
    ToolFamily("llama 3.1", LLAMA31, ("<|head|>", "<|/head|>", "<|eot_id|>"), "<|eot_id|>", "<|eot_id|>",
               '{"name": "weather", "parameters": {"a": 1}}',
               '<|head|>ipython<|/head|>\n\n"sunny"<|eot_id|><|head|>assistant<|/head|>\n\n'),
    ToolFamily("glm 4.5", GLM45, GLM_ALL, "<|endoftext|>", "<|observation|>", "\n<think></think>" + GLM_CALL,
               "\n<tool_response>\nsunny\n</tool_response><|assistant|>"),
    ToolFamily("glm 5", GLM5, GLM_ALL, "<|endoftext|>", "<|observation|>", "</think>" + GLM_CALL.replace("\n", ""),
               "<tool_response>sunny</tool_response><|assistant|><think>", exact=False),
    ToolFamily("gpt-oss", GPT_OSS, (*HARMONY, "<|call|>"), "<|return|>", "<|call|>",
               ' to=functions.weather<|channel|>commentary json<|message|>{"a": 1}',
               "<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"
               '"sunny"<|end|><|start|>assistant'),
    ToolFamily("gemma 4", GEMMA4, GEMMA, "<turn|>", "<|tool_response>", '<|tool_call>call:weather{"a": 1}<tool_call|>',
               "response:sunny<tool_response|><|channel>thought\n<channel|>", exact=False),
    ToolFamily("gemma 4 thinking", GEMMA4, GEMMA, "<turn|>", "<|tool_response>",
               '<|tool_call>call:weather{"a": 1}<tool_call|>', "response:sunny<tool_response|>",
               (("enable_thinking", True),)),
    ToolFamily("mistral", MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]"), "</s>",
               "</s>", '[TOOL_CALLS][{"name": "weather", "arguments": {"a": 1}}]',
               '[TOOL_RESULTS]{"content": sunny, "call_id": "abcdefghi"}[/TOOL_RESULTS]', exact=False),
    ToolFamily("deepseek v3", DEEPSEEK_V3, (*DEEPSEEK, "<|call|>", "<|/call|>", "<|output|>", "<|/output|>"), "<|end|>",
               "<|end|>", '<|call|>weather<|sep|>{"a": 1}<|/call|>', "<|output|>sunny<|/output|>"),
    ToolFamily("granite 4", GRANITE4, ("<|role|>", "<|text|>"), "<|text|>", "<|text|>", TAGGED,
               TOLD.replace("<|im_start|>", "<|role|>").replace("<|im_end|>", "<|text|>")),
]  # fmt: skip
"""Checked by hand."""
