"""Lines that use an exported model, for its card and the end of the command."""

from __future__ import annotations

from collections.abc import Mapping

from opd.commands.export.formats import Written
from opd.commands.export.order import Order
from opd.commands.subject import Subject
from opd.hints import quoted
from opd.run.ways import way

SHELL = '"$`\\!'
"""What a shell looks at within double quotes."""


def lines(
    subject: Subject, written: Written, where: str, *, hub: bool = False, chat: bool = False
) -> Mapping[str, str]:
    """What to type, by program.

    Args:
        subject: The run.
        written: What was exported.
        where: The folder that it will be in, or its repository on the hub.
        hub: Whether it is the latter.
        chat: Whether the student was trained on chats, and is to be asked as in one.
    """
    order, place = written.order, quoted(where)
    if order.format == "gguf":
        return _of_file(subject, written, where, hub)
    if order.adapter:
        base = quoted(subject.base.path)
        return {
            "transformers": _python(
                "from peft import AutoPeftModelForCausalLM as M", f"m = M.from_pretrained({where!r})", "print(m)"
            ),
            "vLLM": f"vllm serve {base} --enable-lora --lora-modules {_name(subject)}={place}",
        }
    serving = (
        {"a server": f"transformers serve {place}"} if order.quantize == "int4" else {"vLLM": f"vllm serve {place}"}
    )
    pipe = f"p = pipeline('text-generation', {where!r})"
    asked = "[{'role': 'user', 'content': 'What is 1+2?'}]" if chat else "'1+2='"
    return {
        "transformers": _python("from transformers import pipeline", pipe, f"print(p({asked}))"),
        **serving,
    }


def forms(subject: Subject, order: Order) -> Mapping[str, str]:
    """What to type for the same weights in another form; for whoever has the run, and so in no card."""
    if order.format == "gguf":
        return {}
    assert subject.run is not None and subject.checkpoint is not None
    name, *more = ["merged"] if order.adapter else ["llama.cpp, Ollama", "--format", "gguf"]
    return {name: way("export", subject.run, f"step={subject.checkpoint.step}", *more, *subject.made.overrides)}


def _of_file(subject: Subject, written: Written, where: str, hub: bool) -> Mapping[str, str]:
    file, name, place = written.file.name, _name(subject), quoted(where)
    load = f"print(AutoModelForCausalLM.from_pretrained({where!r}, gguf_file={file!r}))"
    ollama = f"cd {place} && ollama create {name} -f Modelfile && ollama run {name}"
    return {
        "llama.cpp": f"llama-server -hf {where}" if hub else f"llama-server -m {quoted(f'{where}/{file}')}",
        "Ollama": f"ollama run hf.co/{where}" if hub else ollama,
        "transformers": _python("from transformers import AutoModelForCausalLM", load),
    }


def _python(*statements: str) -> str:
    code = "; ".join(statements)
    return f"python -c {quoted(code) if set(code) & set(SHELL) else chr(34) + code + chr(34)}"


def _name(subject: Subject) -> str:
    """What a server calls the model."""
    return subject.config.name.lower()
