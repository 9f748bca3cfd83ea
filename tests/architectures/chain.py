"""A tiny random model of an architecture, through a whole run: trained, saved, resumed, exported; sampled by vLLM."""

from __future__ import annotations

import contextlib
import io
import shutil
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from tests.architectures.configs import ARCHITECTURES, COMMON, OWN
from tests.tiny import char_tokenizer, cli_code, save_config

WORKS, REFUSED, BROKEN = "works", "refused", "broken"


@dataclass(frozen=True)
class Outcome:
    """What became of an architecture in a chain of commands."""

    state: str
    """`works`; `refused`: with a line that says why, nothing harmed; `broken`: anything else."""
    said: str = ""
    """The line, or what happened."""


def save_tiny(name: str, folder: Path, seed: int = 0) -> Path:
    """A random model of a config class, with a tokenizer of characters beside it."""
    torch.manual_seed(seed)
    kind, own = getattr(transformers, name), ARCHITECTURES[name]
    known = kind()  # a number that a class does not know would be believed by vLLM all the same
    shape = {key: value for key, value in COMMON.items() if _knows(known, key)} | own
    config = kind(**{key: value for key, value in shape.items() if value is not OWN})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return folder


def _knows(config: Any, key: str) -> bool:
    try:
        getattr(config, key)
    except Exception as error:  # its config refuses the question with an error of its own
        return type(error) is not AttributeError  # Gemma 4 has it layer by layer
    return True


def run(arguments: list[str]) -> Outcome:
    """A command, in this process."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = cli_code(arguments)
    except Exception:  # the chain of another architecture goes on
        return Outcome(BROKEN, traceback.format_exc().strip().splitlines()[-1])
    lines = [line for line in said.getvalue().splitlines() if line.startswith("opd:")]
    line = lines[-1].removeprefix("opd: ") if lines else ""
    if code == 0:
        return Outcome(WORKS)
    return Outcome(BROKEN if "internal error" in line or not line else REFUSED, line or f"exit code {code}")


def chain(name: str, teacher: Path, folder: Path, rollout: str = "hf") -> Outcome:
    """Train a step, go on for another, export: parity is checked at each; the first that does not work decides."""
    try:
        student = save_tiny(name, folder / "student")
    except Exception as error:
        return Outcome(BROKEN, f"no tiny model: {type(error).__name__}: {str(error).splitlines()[0]}")
    config, run_folder = save_config(folder / "tiny.yaml", student, teacher), folder / "run"
    short = ["data.prompts_per_step=4", "eval.size=4", "eval.every=0", "preflight.prompts=4", "preflight.max_kl=1000"]
    engine = ["rollout=hf"] if rollout == "hf" else ["rollout=vllm", "rollout.dtype=float32", "rollout.memory_gb=0.2"]
    begun = run(["train", f"conf={config}", f"run={run_folder}", "-q", "steps=1", *engine, *short])
    steps = [["train", "--resume", f"run={run_folder}", "-q", "steps=2"]] if rollout == "hf" else []
    steps += [["export", f"run={run_folder}", "-q", "--dtype", "float32"]] if rollout == "hf" else []
    for arguments in steps:
        if begun.state == WORKS:
            later = run(arguments)
            # What was begun has to go to its end: a refusal is one before the first step.
            begun = later if later.state == WORKS else Outcome(BROKEN, f"{arguments[0]}: {later.said}")
    shutil.rmtree(folder, ignore_errors=True)
    return begun


def as_json(outcome: Outcome) -> dict[str, Any]:
    """For another process."""
    return asdict(outcome)
