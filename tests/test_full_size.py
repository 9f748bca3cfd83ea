"""The full-size configs with tiny random models of the same architectures; `math_qwen` itself is in test_math_qwen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from opd.config.compose import load
from opd.recipe import Train
from opd.recipe.recipe import PACKAGED
from opd.recipe.recipe import load as load_recipe
from opd.run.metrics import read_metrics
from tests.tiny import cli_code, save_model

Rows = Callable[[int], dict[str, object]]


def asked(i: int) -> dict[str, object]:
    """A problem and its answer, in the columns of DeepMath, GSM8K and Dolly together."""
    text = f"what is {i}+{i}"
    return {
        "question": text, "final_answer": str(2 * i), "answer": f"{i}+{i}={2 * i}\n#### {2 * i}",
        "instruction": text, "context": "numbers" if i % 2 else "", "response": f"it is {2 * i}",
        "text": f"page {i} of a long book about numbers and what they are for",
    }  # fmt: skip


def openai_turns(i: int) -> dict[str, object]:
    """A conversation as in Tulu 3."""
    return {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i}."}]}


def sharegpt_turns(i: int) -> dict[str, object]:
    """A conversation as in OpenThoughts3."""
    return {"conversations": [{"from": "human", "value": f"say {i}"}, {"from": "gpt", "value": f"so {i}"}]}


@dataclass(frozen=True)
class Case:
    """A config, and what of it is not tiny."""

    conf: str
    student: str
    """Architecture."""
    teacher: str | None
    tasks: dict[str, Rows]
    """Rows of each of its tasks that reads some."""
    settings: Sequence[str] = ()
    at: str = "student.model"
    """Where the student's folder goes."""


CASES = (
    Case("math_qwen_sft", "qwen3", None, {"openthoughts": sharegpt_turns}),
    Case("math_qwen_full", "qwen3", "qwen3", {"deepmath": asked}),
    Case("personalize_qwen_documents", "qwen3", "qwen3", {"documents": asked, "tulu3": openai_turns}),
    Case("personalize_qwen", "qwen3", "qwen3", {"tulu3": openai_turns}),
    Case("gold_countdown", "qwen2", "qwen3", {}),
    Case("gkd_gsm8k", "qwen2", "qwen2", {"gsm8k": asked}, ["data.tasks.gsm8k.eval_split=null"]),
    Case("minillm_dolly_sft", "gpt2", None, {"dolly": asked}),
    Case("minillm_dolly", "gpt2", "gpt2", {"dolly": asked, "corpus": asked}),
    Case(
        str(PACKAGED / "heal" / "full.yaml"), "qwen3", "qwen3", {"tulu3": openai_turns},
        ["student.model.drop_layers=[0]"], at="student.model.base",
    ),
)  # fmt: skip
TINY = (
    "steps=2", "data.prompts_per_step=8", "data.max_prompt_tokens=480", "sampling.max_tokens=6",
    "eval.size=4", "eval.n=1", "eval.every=0", "optim.steps_per_batch=1", "optim.micro_tokens=2048",
    "preflight.max_gap=1.0", "preflight.prompts=2",
)  # fmt: skip


def arguments(case: Case, folder: Path, engine: str = "hf") -> list[str]:
    """Command-line settings that make a run of seconds of a config."""
    given = [f"conf={case.conf}", f"{case.at}={save_model(folder / 's', case.student, seed=1, tied=True)}"]
    if case.teacher is not None:
        given.append(f"teacher.model={save_model(folder / 't', case.teacher, seed=2, tied=False, hidden=96)}")
    for task, row in case.tasks.items():
        path = folder / f"{task}.jsonl"
        path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(60)))
        given.append(f"data.tasks.{task}.path={path}")
        if task not in ("documents", "corpus"):
            given.append(f"data.tasks.{task}.eval_fraction=0.2")
    return [*given, *TINY, *case.settings, f"rollout={engine}"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: Path(case.conf).stem)
def test_every_full_size_config_trains_tiny_models_of_its_architectures(case: Case, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli_code(["train", f"run={run}", "-q", *arguments(case, tmp_path)]) == 0
    rows = read_metrics(run / "metrics.jsonl")
    assert [r["step"] for r in rows] == [0, 1, 2]
    assert rows[2]["optim/grad_norm"] > 0


@pytest.mark.parametrize(
    ("recipe", "stage", "task", "rows"),
    [("recover", "documents", "documents", (80, 40)), ("one_prompt", "one", "one", (1, 0))],
)
def test_full_size_runs_find_the_data_that_ships_with_their_recipe(
    recipe: str, stage: str, task: str, rows: tuple[int, int]
) -> None:
    (run,) = (s for s in load_recipe(PACKAGED / recipe / "run.py").full if isinstance(s, Train) and s.name == stage)
    conf, *settings = (s.replace("{recipe}", str(PACKAGED / recipe)) for s in run.settings)
    found = load(conf.removeprefix("conf="), [s for s in settings if "{work}" not in s]).config.data.tasks[task]
    train, held_out = found.examples("train"), found.examples("eval")
    assert (len(train), len(held_out)) == rows
    assert all(e.answer for e in (*train, *held_out))
