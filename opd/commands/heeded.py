"""Which settings a command goes by: of those that are typed and change nothing it is said so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from opd.config.mistakes import within
from opd.config.overrides import parse
from opd.devices.aloud import say
from opd.hints import line

ALWAYS = ("models", "student", "data.tasks", "data.weights", "data.max_prompt_tokens", "sampling.max_tokens", "seed",
          "threads", "runs")  # fmt: skip
ASKED = (*ALWAYS, "data.evaluated", "data.system", "data.template", "data.template_kwargs", "teacher")
HEEDED = {
    "eval": (*ASKED, "rollout", "devices", "eval.size", "eval.n", "eval.k", "eval.temperature", "eval.top_p",
             "eval.top_k", "eval.min_p", "eval.max_tokens", "eval.max_turns", "source", "optim.micro_tokens",
             "checkpoint.best"),
    "sample": (*ASKED, "rollout", "checkpoint.best"),
    "chat": (*ASKED, "sampling.temperature", "checkpoint.best"),
    "export": (*ALWAYS, "rollout", "name", "checkpoint.best"),
    "export --format gguf": (*ALWAYS, "rollout", "name", "checkpoint.best", "data.system", "data.template",
                             "data.template_kwargs", "sampling.temperature"),
}  # fmt: skip
"""Settings that a command, or a part of a run that it makes use of, reads; of a source it is how long it talks."""
INSTEAD = {
    "eval": {f"sampling.{name}": f"eval.{name}" for name in ("n", "temperature", "top_p", "top_k", "min_p")},
    "sample": {"sampling.temperature": "--temperature", "sampling.n": "-n", "eval.temperature": "--temperature",
               "eval.n": "-n", "eval.max_tokens": "--max-tokens"},
    "chat": {"eval.temperature": "--temperature", "eval.max_tokens": "--max-tokens"},
}  # fmt: skip
"""What is set for the same."""


def unheeded(command: str, overrides: Sequence[str]) -> Iterator[str]:
    """What is to be said of settings that were typed and change nothing in what a command does."""
    instead: Mapping[str, str] = INSTEAD.get(command, {})
    for text in overrides:
        key = parse(text).key_or_group.replace("/", ".")
        if not any(within(key, one) for one in HEEDED[command]):
            hint = f"; here it is {instead[key]}" if key in instead else ""
            yield f"{text}: opd {command.split()[0]} does not go by it, and does the same without it{hint}"


def say_unheeded(command: str, overrides: Sequence[str]) -> None:
    """Say it on stderr, once."""
    for said in unheeded(command, overrides):
        say(f"warning: {line(said)}")
