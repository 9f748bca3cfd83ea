"""A weight that follows a figure: the formula, what it holds, what it is kept in, and a run that goes on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from opd.batch import to_batch
from opd.learner.stats import reference_kl
from opd.learner.student import Student
from opd.needs import Needs
from opd.objectives import GRPO, Hold, ReverseKL, Term, Weighted
from opd.run.metrics import read_metrics
from opd.teaching import Scorer
from tests.objectives.cases import MIXTURE, Case, judged
from tests.tiny import cli_code

HELD = Weighted(terms={
    "reward": Term(GRPO()), "near": Term(ReverseKL(to="reference"), 0.5, hold=Hold(target=0.1, rate=0.5)),
})  # fmt: skip


@pytest.mark.parametrize(
    ("figure", "factor"),
    [(0.1, 1.0), (0.11, 1.05), (0.09, 0.95), (0.2, 1.1), (5.0, 1.1), (0.0, 0.9), (-3.0, 0.9), (math.nan, 1.0)],
)
def test_the_weight_goes_by_the_share_that_the_figure_is_off_by_at_most_a_fifth(figure: float, factor: float) -> None:
    assert Hold(target=0.1, rate=0.5).next(2.0, figure) == pytest.approx(2.0 * factor)
    got = HELD.after({"optim/weight/near": 2.0, "kl/reference": figure})
    assert got.figures() == {"optim/weight/near": pytest.approx(2.0 * factor)}
    assert got.terms["reward"] == HELD.terms["reward"]


def test_a_figure_that_falls_with_the_weight_comes_to_its_target() -> None:
    objective, kls = HELD, []
    for _ in range(400):
        weight = objective.terms["near"].weight
        kls.append(0.3 / (0.2 + weight))
        objective = objective.after({**objective.figures(), "kl/reference": kls[-1]})
    assert kls[0] > 0.4
    assert kls[-1] == pytest.approx(0.1, rel=1e-3)


def test_a_figure_that_no_weight_brings_to_its_target_leaves_the_weight_at_its_bound() -> None:
    bounded = Weighted(terms={**HELD.terms, "near": replace(HELD.terms["near"], hold=Hold(target=0.1, most=3.0))})
    objective, weights = bounded, []
    for figure in [2.0] * 200 + [math.nan] + [0.01] * 200:
        objective = objective.after({**objective.figures(), "kl/reference": figure})
        weights.append(objective.terms["near"].weight)
    assert max(weights) == weights[199] == weights[200] == 3.0
    assert weights[-1] < 0.1  # and it falls again at once
    assert Hold(target=0.1).next(10.0, 5.0) == 10.0
    with pytest.raises(ValueError, match=r"weight=0.5: allowed is at most hold.most=0.4"):
        replace(HELD.terms["near"], hold=Hold(target=0.1, most=0.4))


def test_what_a_step_has_not_measured_changes_nothing() -> None:
    assert HELD.after({}) == HELD
    assert MIXTURE.figures() == {}
    assert MIXTURE.after({"kl/reference": 3.0}) == MIXTURE


def test_what_a_hold_goes_by_is_needed_and_what_it_cannot_change_is_refused() -> None:
    assert Term(GRPO(), hold=Hold(target=1.0)).needs == GRPO().needs | Needs(reference=True)
    assert Term(GRPO(), hold=Hold(target=1.0, figure="kl/sampled")).needs == GRPO().needs | Needs(logprobs=True)
    with pytest.raises(ValueError, match=r"weight=0: with hold it would stay 0"):
        Term(GRPO(), 0.0, hold=Hold(target=1.0))
    with pytest.raises(ValueError, match=r"hold: a sum within a sum has none"):
        Term(HELD)


def test_the_kl_to_the_reference_is_of_what_the_student_wrote(student: Student, teacher: Scorer) -> None:
    items = judged(Case("mixed", MIXTURE, mixed=True), student, teacher)
    gaps = [
        torch.tensor(s.rollout.logprobs) - s.reference.logprobs
        for s in items
        if s.reference is not None and s.rollout.origin == "student"
    ]
    assert reference_kl(to_batch(items, 0, 54).completions) == pytest.approx(float(torch.cat(gaps).mean()), abs=1e-6)
    assert reference_kl(to_batch([replace(s, reference=None) for s in items], 0, 54).completions) is None


def test_a_run_that_goes_on_has_the_weights_of_one_that_was_never_broken_off(
    config: Path, student_dir: Path, tmp_path: Path
) -> None:
    run = [
        f"conf={config}", "-q", "checkpoint.every=2", "eval.every=0", "objective=grpo_reference", "optim.lr=3e-2",
        "+teacher@reference=local", f"reference.model={student_dir}", "reference.dtype=float32",
        "reference.prompt=student", "objective.terms.near.hold={target: 0.01, rate: 1.0}", "optim.steps_per_batch=2",
    ]  # fmt: skip
    assert cli_code(["train", *run, "steps=4", f"run={tmp_path / 'whole'}"]) == 0
    assert cli_code(["train", *run, "steps=2", f"run={tmp_path / 'part'}"]) == 0
    assert cli_code(["train", "--resume", "steps=4", f"run={tmp_path / 'part'}"]) == 0
    rows = [read_metrics(tmp_path / name / "metrics.jsonl")[1:] for name in ("whole", "part")]
    whole, part = ([(row["optim/weight/near"], row["kl/reference"]) for row in found] for found in rows)
    assert part == whole
    hold, expected = Hold(target=0.01, rate=1.0), [0.05]
    for _, kl in whole[:-1]:
        expected.append(hold.next(expected[-1], kl))
    assert [weight for weight, _ in whole] == expected
    assert len(set(expected)) == 4
