"""Figures of an evaluation against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from opd.evaluation.evaluate import accuracy, details, interval, pass_at_k, quarters, verdicts
from opd.types import Example, Prompt, Rollout


def test_pass_at_k_is_the_share_of_all_ways_to_choose_k_samples_with_a_right_one() -> None:
    for n, correct, k in [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 4), (7, 1, 6)]:
        samples = [True] * correct + [False] * (n - correct)
        ways = list(itertools.combinations(samples, k))
        assert pass_at_k(n, correct, k) == pytest.approx(sum(any(w) for w in ways) / len(ways))


def test_pass_at_1_is_the_mean_accuracy() -> None:
    scores = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=float)
    found = accuracy(scores, (1, 4))
    assert found["eval/pass@1"] == pytest.approx(found["eval/accuracy"]) == pytest.approx(7 / 12)
    assert found["eval/pass@4"] == 1.0


def test_interval_of_single_samples_is_wilsons() -> None:
    # 30 of 40: Wilson's 95% interval by the textbook formula is [0.598, 0.858]
    low, high = interval(np.array([1.0] * 30 + [0.0] * 10), 1)
    assert low == pytest.approx(0.598, abs=1e-3)
    assert high == pytest.approx(0.858, abs=1e-3)


def test_an_interval_never_has_no_width_and_stays_within_bounds() -> None:
    for p in (0.0, 1.0):
        low, high = interval(np.full(50, p), 1)
        assert 0.0 <= low < high <= 1.0
        assert high - low > 0.05


def test_samples_of_one_prompt_that_always_agree_count_once() -> None:
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, 2, 60).astype(float)
    single = interval(prompts, 1)
    repeated = interval(prompts, 16)  # 16 samples each, all alike
    assert repeated == pytest.approx(single)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits, trials = 0, 2000
    for _ in range(trials):
        difficulty = rng.beta(2, 2, 50)
        means = rng.binomial(4, difficulty) / 4
        low, high = interval(means, 4)
        hits += low <= 0.5 <= high
    assert 0.93 <= hits / trials <= 0.985


def of_tasks(*names: str, n: int = 2) -> list[Rollout]:
    prompts = [Prompt(Example(str(i), (), task=name), (2,)) for i, name in enumerate(names)]
    return [Rollout(p, (3,), (-1.0,), truncated=False) for p in prompts for _ in range(n)]


def test_each_of_several_tasks_has_its_own_accuracy_interval_and_count() -> None:
    rollouts = of_tasks("a", "b", "a", "b", "b")
    scores = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    found = verdicts(rollouts, scores, 2, (1, 2))
    own = {
        "a": accuracy(np.array([[1.0, 0], [1, 1]]), (1, 2)),
        "b": accuracy(np.array([[0.0, 0], [1, 0], [0, 0]]), (1, 2)),
    }
    for name, figures in own.items():
        assert {k.removesuffix(f"/{name}"): v for k, v in found.items() if k.endswith(f"/{name}")} == {
            **figures, "eval/count": 2.0 * (2 if name == "a" else 3)
        }  # fmt: skip
    assert found["eval/accuracy"] == pytest.approx(0.4)


def test_a_single_task_has_no_figures_beside_the_overall_ones() -> None:
    assert verdicts(of_tasks("a", "a"), [1.0, 0.0, 0.0, 0.0], 2, (1,)).keys() == accuracy(np.zeros((2, 2)), (1,)).keys()


def test_a_task_without_a_verifier_leaves_the_others_theirs() -> None:
    found = verdicts(of_tasks("a", "text"), [1.0, 0.0, None, None], 2, ())
    assert found["eval/accuracy/a"] == 0.5
    assert found["eval/count/text"] == 2
    assert not {"eval/accuracy", "eval/accuracy/text"} & found.keys()


def test_further_figures_are_sums_over_all_completions_of_the_tasks_that_have_some() -> None:
    class Rules:
        def details(self, example: Example, text: str) -> dict[str, tuple[float, float]]:
            return {"rules": (float(text.count("y")), float(len(text)))}

    class Data:
        def task_of(self, example: Example) -> object:
            return Rules() if example.task == "rules" else object()

    rollouts = of_tasks("rules", "plain", "rules", n=1)
    assert details(rollouts, ["yyn", "yyyy", "n"], Data()) == {"eval/rules": 0.5}  # type: ignore[arg-type]


def test_the_kl_of_a_quarter_is_that_of_the_tokens_that_are_in_it() -> None:
    found = quarters([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 5.0, 5.0, math.nan, 0.0, 0.0, 8.0], [7.0]])
    assert found == {
        "eval/kl_quarter1": (1 + 1 + 1 + 7) / 4, "eval/kl_quarter2": (2 + 5 + 5) / 3, "eval/kl_quarter3": (3 + 0) / 2,
        "eval/kl_quarter4": (4 + 0 + 8) / 3,
    }  # fmt: skip
    assert quarters([[math.nan], []]) == {}
