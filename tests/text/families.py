"""Chat templates in the ways of model families: what they write at the ends of prompts and turns, and of thoughts.

Each is written here, and small; `CHATML` and what is made of it stand for several families.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

REFUSED = "refused"


def byte_tokenizer(template: str, special: tuple[str, ...], eos: str) -> PreTrainedTokenizerFast:
    """One token to a byte, and special ones."""
    tokens = ["<pad>", *special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<pad>", *special)])
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, pad_token="<pad>")
    made.chat_template = template
    return made


@dataclass(frozen=True)
class Family:
    """A way to write conversations, and what must come of one."""

    name: str
    template: str
    special: tuple[str, ...]
    stop: tuple[str, ...]
    """Ids that end a completion; the last one is what the student writes."""
    prompt: str
    """How the prompt of the user's `hi` is written, to its end."""
    plain: str
    """The completion `yes` after it, the stop token included."""
    reply: str
    """What comes between that and the student's next turn, where the user says `and?`."""
    thought: str = "<think>\nhm\n</think>\n\nyes"
    """The completion `<think>\nhm\n</think>\n\nyes`, without its stop token."""
    reasoning: str = REFUSED
    """The completion `yes` with a reasoning_content of `hm`, without its stop token."""
    kwargs: tuple[tuple[str, Any], ...] = ()

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One that has the template and its special tokens."""
        return byte_tokenizer(self.template, self.special, self.stop[0])


IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
# Thoughts are cut out of an answer's text, and written before it again where it follows the last question.
PARTED = (
    "{% set last = namespace(user=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% macro thoughts(m) %}{% if m.reasoning_content is defined %}{{ m.reasoning_content }}"
    "{% elif '</think>' in m.content %}{{ m.content.split('</think>')[0].split('<think>')[-1].strip('\n') }}{% endif %}"
    "{% endmacro %}{% macro words(m) %}{{ m.content.split('</think>')[-1].lstrip('\n') }}{% endmacro %}"
)
IM_ASKED = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
CHATML = (
    IM_ASKED + "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    PARTED + IM_ASKED + "{% if m.role == 'assistant' and loop.index0 > last.user %}"
    "<think>\n{{ thoughts(m) }}\n</think>\n\n{{ words(m) }}"
    "{% elif m.role == 'assistant' %}{{ words(m) }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
QWEN35 = QWEN3.replace(
    "<think>\n\n</think>\n\n{% endif %}{% endif %}", "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
)
R1 = (
    "<|begin|>{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}"
    "<|Assistant|>{{ m.content.split('</think>')[-1] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
# Words alone follow `</think>`: an answer that brings a block of its own gets a second one.
DEEPSEEK_V32 = (
    "<|begin|>{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}<|Assistant|>"
    "{{ '<think>' + m.reasoning_content if m.reasoning_content is defined }}</think>{{ m.content }}<|end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|>"
    "{{ '<think>' if thinking is defined and thinking else '<think></think>' }}{% endif %}"
)
# Every answer gets an empty block, also one that has its own.
KIMI = (
    "{% for m in messages %}<|im_{{ m.role }}|>{{ '<think></think>' if m.role == 'assistant' }}{{ m.content }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_assistant|>{% endif %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "<bos>{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA4 = (
    "<bos>{% if enable_thinking %}<|turn>system\n<|think|><turn|>\n{% endif %}"
    "{% for m in messages %}<|turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content.split('<channel|>')[-1] | trim }}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model\n"
    "{% if not enable_thinking %}<|channel>thought\n<channel|>{% endif %}{% endif %}"
)
MISTRAL = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
PHI4 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
GLM4 = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GLM45 = (
    PARTED + "[gMASK]<sop>{% for m in messages %}{% if m.role == 'user' %}<|user|>\n{{ m.content }}{% else %}"
    "<|assistant|>\n<think>{{ thoughts(m) if loop.index0 > last.user }}</think>\n{{ words(m) }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{{ '\n<think></think>' if enable_thinking is defined and not enable_thinking }}{% endif %}"
)
GLM5 = (
    PARTED + "[gMASK]<sop>{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}"
    "<|assistant|>{% if loop.index0 > last.user and thoughts(m) %}<think>{{ thoughts(m) }}{% endif %}</think>"
    "{{ words(m) }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}</think>{% else %}<think>{% endif %}{% endif %}"
)
GPT_OSS = (
    "<|start|>system<|message|>Reasoning: medium<|end|>"
    "{% for m in messages %}{% if m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>"
    "{% elif not loop.last %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>"
    "{% else %}{% if m.thinking is defined %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>"
    "{% endif %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
SMOLLM3 = (
    IM_ASKED + "{% if m.role == 'assistant' and enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n{% endif %}{% endif %}"
)
GRANITE = (
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
# The last answer is written within the block that the prompt opens, and nothing closes it.
NEMOTRON_NANO2 = (
    "<SPECIAL_10>System\n\n{% for m in messages %}"
    "{% if m.role == 'user' %}<SPECIAL_11>User\n{{ m.content }}\n{% else %}"
    "<SPECIAL_11>Assistant\n{{ '<think>\n\n' if loop.last }}{{ m.content.strip() }}\n<SPECIAL_12>\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<SPECIAL_11>Assistant\n<think>\n\n{% endif %}"
)
NEMOTRON3 = (
    PARTED + IM_ASKED + "{% if m.role == 'assistant' %}<think>"
    "{{ '\n' + thoughts(m) + '\n</think>\n' if loop.last and thoughts(m) else '</think>' }}{{ words(m) }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{{ '<think></think>' if enable_thinking is defined and not enable_thinking else '<think>\n' }}{% endif %}"
)
OLMO2 = (
    "<|endoftext|>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{{ '<|endoftext|>' if m.role == 'assistant' }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
OLMO3_THINK = (
    IM_ASKED + "{{ m.content }}{{ '<|im_end|>\n' if not loop.last or m.role == 'user' else '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
)
OFF, ON = (("enable_thinking", False),), (("enable_thinking", True),)
IM_HI, IM_AND = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "\n<|im_start|>user\nand?<|im_end|>\n"
IM_NEXT = IM_AND + "<|im_start|>assistant\n"
GLM = ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|endoftext|>")
GLM_STOP, PHI_STOP = ("<|endoftext|>", "<|user|>"), ("<|endoftext|>", "<|end|>")
DEEPSEEK = ("<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>")
HARMONY = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>")
EMPTY, WHOLE = "<think>\n\n</think>\n\n", "<think>\nhm\n</think>\n\nyes"

FAMILIES = [
    Family("qwen2.5", CHATML, IM, IM[1:2], IM_HI, "yes<|im_end|>", IM_NEXT),
    Family("qwen3", QWEN3, IM, IM[1:2], IM_HI, EMPTY + "yes<|im_end|>", IM_NEXT, WHOLE, WHOLE),
    Family("qwen3 thinking", QWEN3, IM, IM[1:2], IM_HI, EMPTY + "yes<|im_end|>", IM_NEXT, WHOLE, WHOLE, ON),
    Family("qwen3 off", QWEN3, IM, IM[1:2], IM_HI + EMPTY, "yes<|im_end|>", IM_NEXT + EMPTY, REFUSED, REFUSED, OFF),
    Family("qwen3.5", QWEN35, IM, IM[1:2], IM_HI + "<think>\n", "\n</think>\n\nyes<|im_end|>", IM_NEXT + "<think>\n",
           "hm\n</think>\n\nyes", "hm\n</think>\n\nyes"),
    Family("qwen3.5 off", QWEN35, IM, IM[1:2], IM_HI + EMPTY, "yes<|im_end|>", IM_NEXT + EMPTY, REFUSED, REFUSED, OFF),
    Family("deepseek r1", R1, DEEPSEEK, DEEPSEEK[1:2],
           "<|begin|><|User|>hi<|Assistant|><think>\n", "\n</think>\n\nyes<|end|>",
           "<|User|>and?<|Assistant|><think>\n", "hm\n</think>\n\nyes", "hm\n</think>\n\nyes"),
    Family("deepseek v3.2", DEEPSEEK_V32, DEEPSEEK, DEEPSEEK[1:2], "<|begin|><|User|>hi<|Assistant|><think></think>",
           "yes<|end|>", "<|User|>and?<|Assistant|><think></think>", REFUSED, REFUSED),
    Family("deepseek v3.2 thinking", DEEPSEEK_V32, DEEPSEEK, DEEPSEEK[1:2], "<|begin|><|User|>hi<|Assistant|><think>",
           "</think>yes<|end|>", "<|User|>and?<|Assistant|><think>", "hm\n</think>\n\nyes", "hm</think>yes",
           (("thinking", True),)),
    Family("kimi k2 thinking", KIMI, ("<|im_user|>", "<|im_assistant|>", "<|im_end|>"), ("<|im_end|>",),
           "<|im_user|>hi<|im_end|><|im_assistant|>", "<think></think>yes<|im_end|>",
           "<|im_user|>and?<|im_end|><|im_assistant|>"),
    Family("llama 3", LLAMA3, ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
           ("<|eot_id|>",), "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
           "<|start_header_id|>assistant<|end_header_id|>\n\n", "yes<|eot_id|>",
           "<|start_header_id|>user<|end_header_id|>\n\nand?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"),
    Family("gemma 2 and 3", GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), ("<eos>", "<end_of_turn>"),
           "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n", "yes<end_of_turn>",
           "\n<start_of_turn>user\nand?<end_of_turn>\n<start_of_turn>model\n"),
    Family("gemma 4", GEMMA4, ("<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>"), ("<turn|>",),
           "<bos><|turn>user\nhi<turn|>\n<|turn>model\n<|channel>thought\n<channel|>", "yes<turn|>",
           "\n<|turn>user\nand?<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"),
    Family("gemma 4 thinking", GEMMA4, ("<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>"), ("<turn|>",),
           "<bos><|turn>system\n<|think|><turn|>\n<|turn>user\nhi<turn|>\n<|turn>model\n", "yes<turn|>",
           "\n<|turn>user\nand?<turn|>\n<|turn>model\n", kwargs=ON),
    Family("mistral", MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), ("</s>",), "<s>[INST] hi[/INST]", " yes</s>",
           "[INST] and?[/INST]", " " + WHOLE),
    Family("phi 3", PHI, ("<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"), PHI_STOP,
           "<|user|>\nhi<|end|>\n<|assistant|>\n", "yes<|end|>", "\n<|user|>\nand?<|end|>\n<|assistant|>\n"),
    Family("phi 4", PHI4, (*IM, "<|im_sep|>"), IM[1:2],
           "<|im_start|>user<|im_sep|>hi<|im_end|><|im_start|>assistant<|im_sep|>", "yes<|im_end|>",
           "<|im_start|>user<|im_sep|>and?<|im_end|><|im_start|>assistant<|im_sep|>"),
    Family("glm 4", GLM4, GLM, GLM_STOP, "[gMASK]<sop><|user|>\nhi<|assistant|>", "\nyes<|user|>",
           "\nand?<|assistant|>", "\n" + WHOLE),
    Family("glm 4.5", GLM45, GLM, GLM_STOP, "[gMASK]<sop><|user|>\nhi<|assistant|>", "\n<think></think>\nyes<|user|>",
           "\nand?<|assistant|>", "\n<think>hm</think>\nyes", "\n<think>hm</think>\nyes"),
    Family("glm 4.5 off", GLM45, GLM, GLM_STOP, "[gMASK]<sop><|user|>\nhi<|assistant|>\n<think></think>",
           "\nyes<|user|>", "\nand?<|assistant|>\n<think></think>", REFUSED, REFUSED, OFF),
    Family("glm 5", GLM5, GLM, GLM_STOP, "[gMASK]<sop><|user|>hi<|assistant|><think>", "</think>yes<|user|>",
           "and?<|assistant|><think>", "hm</think>yes", "hm</think>yes"),
    Family("glm 5 off", GLM5, GLM, GLM_STOP, "[gMASK]<sop><|user|>hi<|assistant|></think>", "yes<|user|>",
           "and?<|assistant|></think>", REFUSED, REFUSED, OFF),
    Family("gpt-oss", GPT_OSS, HARMONY, ("<|return|>",), "<|start|>system<|message|>Reasoning: medium<|end|>"
           "<|start|>user<|message|>hi<|end|><|start|>assistant", "<|channel|>final<|message|>yes<|return|>",
           "<|start|>user<|message|>and?<|end|><|start|>assistant", "<|channel|>final<|message|>" + WHOLE,
           "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>yes"),
    Family("smollm3", SMOLLM3, IM, IM[1:2], IM_HI, "yes<|im_end|>", IM_NEXT),
    Family("smollm3 off", SMOLLM3, IM, IM[1:2], IM_HI + "<think>\n\n</think>\n", "yes<|im_end|>",
           IM_NEXT + "<think>\n\n</think>\n", REFUSED, REFUSED, OFF),
    Family("granite", GRANITE, ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"), ("<|end_of_text|>",),
           "<|start_of_role|>user<|end_of_role|>hi<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
           "yes<|end_of_text|>",
           "\n<|start_of_role|>user<|end_of_role|>and?<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"),
    Family("nemotron nano 2", NEMOTRON_NANO2, ("<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>"), ("<SPECIAL_12>",),
           "<SPECIAL_10>System\n\n<SPECIAL_11>User\nhi\n<SPECIAL_11>Assistant\n<think>\n\n",
           "\n</think>\n\nyes\n<SPECIAL_12>", "\n\n<SPECIAL_11>User\nand?\n<SPECIAL_11>Assistant\n<think>\n\n",
           "hm\n</think>\n\nyes\n", "hm\n</think>\n\nyes\n"),
    Family("nemotron 3", NEMOTRON3, IM, IM[1:2], IM_HI + "<think>\n", "\n</think>\nyes<|im_end|>",
           IM_NEXT + "<think>\n", "hm\n</think>\nyes", "hm\n</think>\nyes"),
    Family("nemotron 3 off", NEMOTRON3, IM, IM[1:2], IM_HI + "<think></think>", "yes<|im_end|>",
           IM_NEXT + "<think></think>", REFUSED, REFUSED, OFF),
    Family("olmo 2", OLMO2, ("<|endoftext|>", "<|user|>", "<|assistant|>"), ("<|endoftext|>",),
           "<|endoftext|><|user|>\nhi\n<|assistant|>\n", "yes<|endoftext|>", "\n<|user|>\nand?\n<|assistant|>\n"),
    Family("olmo 3 think", OLMO3_THINK, IM, IM[1:2], IM_HI + "<think>", "\n</think>\n\nyes<|im_end|>",
           IM_NEXT + "<think>", "\nhm\n</think>\n\nyes", "hm\n</think>\n\nyes"),
]  # fmt: skip
"""What is written of `hi`, `yes` and `and?`, checked by hand."""
