"""What rewards rule out trains no token, and is there to be seen and counted all the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opd.config.compose import load
from opd.loop import rollout_metrics
from opd.protocols import Task
from opd.run.metrics import read_metrics
from opd.sources.by_task import ByTask
from opd.sources.dataset import DatasetSource
from opd.sources.filtered import Filtered, taken
from opd.sources.mixed import Mixed
from opd.sources.student import StudentSource
from opd.tasks.arithmetic import Arithmetic
from opd.types import Example, Judgement, Sampling, Scored, UserError
from tests.sources.desks import STOP, make_desk, tables
from tests.sources.test_dataset import prompts
from tests.sources.test_runs import QUICK, learned
from tests.tiny import cli_code

SAMPLING = Sampling(max_tokens=6, n=4, stop=(STOP,), seed=3)


@dataclass(frozen=True)
class Parity(Arithmetic):
    """Sums of which every text is right that has an even length."""

    def verify(self, example: Example, text: str) -> float | None:
        return float(len(text) % 2 == 0)


class Silent(Arithmetic):
    """Sums that nobody can judge."""

    def verify(self, example: Example, text: str) -> float | None:
        return None


@pytest.mark.parametrize(
    ("settings", "rewards", "kept"),
    [
        ({}, [0, 0, 0], [False] * 3),
        ({}, [1, 1, 1], [False] * 3),
        ({}, [0, 1, 1], [True] * 3),
        ({}, [0.5], [True]),
        ({"spread": 0.2}, [0.5, 0.6], [False] * 2),
        ({"spread": 0.2}, [0.5, 0.8], [True] * 2),
        ({"spread": None}, [1, 1], [True] * 2),
        ({"spread": None, "highest": 0.7}, [1, 0.5], [False] * 2),
        ({"spread": None, "highest": 0.7}, [1, 0.4], [True] * 2),
        ({"spread": None, "lowest": 0.3}, [0, 0.5], [False] * 2),
        ({"spread": None, "lowest": 0.3}, [0, 0.6], [True] * 2),
        ({"spread": None, "reward": 0.5}, [0, 0.5, 1], [False, True, True]),
        ({"reward": 0.5}, [0, 0, 1], [False, False, True]),
    ],
)
def test_what_is_trained_follows_from_the_rewards_of_a_prompts_samples(
    settings: dict[str, float | None], rewards: list[float], kept: list[bool]
) -> None:
    assert taken(Filtered(**settings), rewards) == kept


def parity(example: Example) -> Task:
    return Parity()


def test_groups_of_equal_rewards_train_nothing_and_all_else_is_as_it_was_written() -> None:
    desk = replace(make_desk(tables()[0]), task=parity)
    asked = prompts(12)
    plain = StudentSource().start(desk).sample(asked, SAMPLING)
    told: list[object] = []
    made = Filtered().start(replace(desk, finished=told.append)).sample(asked, SAMPLING)
    assert made == Filtered().start(desk).sample(asked, SAMPLING)
    out = 0
    for i in range(0, len(plain), 4):
        rewards = [float(r.reward or 0) for r in made[i : i + 4]]
        equal = len(set(rewards)) == 1
        out += 4 * equal
        for before, after in zip(plain[i : i + 4], made[i : i + 4], strict=True):
            assert replace(after, reward=None, trained=None) == before
            assert not any(after.mask) if equal else after.trained is None
    assert 0 < out < len(made)
    assert not told  # a judge that has begun would have been told of something else
    judged = [Scored(r, Judgement(torch.zeros(len(r.tokens)))) for r in made]
    assert rollout_metrics(judged)["rollout/left_out"] == out / len(made)
    assert "rollout/left_out" not in rollout_metrics([Scored(r, Judgement(torch.zeros(len(r.tokens)))) for r in plain])


def test_a_filter_lies_in_other_sources_and_around_them() -> None:
    desk = replace(make_desk(tables()[0]), task=parity)
    inner = Mixed(parts={"a": StudentSource(), "b": Filtered()}, shares={"a": 1, "b": 1})
    assert {r.origin for r in inner.start(desk).sample(prompts(8), SAMPLING)} == {"a", "b"}
    outer = Filtered(source=inner, spread=None, reward=0.5)
    assert outer.origins == {"a", "b"}
    assert inner.policy
    assert not outer.policy


@pytest.mark.parametrize("redraws", [0, 3])
def test_what_a_dataset_gives_is_one_sample_however_often_and_keeps_its_share(redraws: int) -> None:
    """Redrawn is what the part that the student writes has lost, within that part: each keeps what it was dealt."""
    asked = [replace(p, example=replace(p.example, completion="12")) for p in prompts(12)]
    desk = replace(make_desk(tables()[0]), task=parity, another=lambda prompt, seed: asked[seed % len(asked)])
    dataset = {"dataset": Filtered(source=DatasetSource(), redraws=redraws)}
    mixed = Mixed(parts={"student": Filtered(redraws=redraws), **dataset}, shares={"student": 2, "dataset": 1})
    made = mixed.start(desk).sample(asked, SAMPLING)
    given = [r for r in made if r.origin == "dataset"]
    assert 3 * len(given) == len(made)
    assert all(all(r.mask) for r in given)
    assert any(r.tries for r in made) == bool(redraws)


def test_other_prompts_are_not_dealt_out_anew_to_parts_that_lose_less() -> None:
    both = {"student": StudentSource(), "dataset": DatasetSource()}
    inner = Mixed(parts=both, shares={"student": 7, "dataset": 3})
    for source in (inner, Filtered(source=inner), ByTask(tasks={}, others=inner)):
        Filtered(source=source)
        with pytest.raises(ValueError, match=r"redraws=2: source=mixed would deal .* this as a part of mixed"):
            Filtered(source=source, redraws=2)
    Filtered(source=Mixed(parts=both, shares={"student": 1, "dataset": 0}), redraws=2)


def test_a_task_without_a_verifier_is_refused() -> None:
    desk = replace(make_desk(tables()[0]), task=lambda example: Silent())
    with pytest.raises(UserError, match=r"it has no verifier, and source=filtered goes by rewards"):
        Filtered().start(desk).sample(prompts(1), SAMPLING)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["source.lowest=0.5", "source.highest=0.2"], "source.lowest=0.5: allowed is at most highest=0.2"),
        (["source.reward=1"], "objective=reverse_kl: it needs completions that the student writes"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(config: Path, given: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        load(str(config), ["source=filtered", *given])
    assert says in str(error.value)


def test_a_filtered_run_trains_what_is_left_counts_the_rest_and_goes_on_exactly(config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    task = "data.tasks.arithmetic._target_=tests.sources.test_filtered.Parity"
    common = ["train", f"conf={config}", "source=filtered", task, *QUICK]
    assert cli_code([*common, f"run={whole}", "steps=2", "checkpoint.every=1"]) == 0
    rows = learned(whole)
    assert all(0 < row["rollout/left_out"] < 1 for row in rows)
    assert all(0 < row["optim/trained_tokens"] < row["rollout/tokens"] for row in rows)
    assert cli_code([*common, f"run={parts}", "steps=1"]) == 0
    assert cli_code(["train", "--resume", f"run={parts}", "-q", "steps=2"]) == 0
    assert learned(parts) == rows
    a, b = (load_file(r / "checkpoints/step_000002/model/model.safetensors") for r in (whole, parts))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_step_of_which_all_is_left_out_changes_no_weight(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    common = ["source=filtered", "source.lowest=2", "steps=1", *QUICK]
    assert cli_code(["train", f"conf={config}", f"run={run}", *common]) == 0
    row = read_metrics(run / "metrics.jsonl")[-1]
    assert (row["rollout/left_out"], row["optim/trained_tokens"]) == (1.0, 0.0)
    assert json.loads((run / "checkpoints/step_000001/state.json").read_text())["step"] == 1
