"""Short and growing rollouts: cheaper by what is not written, no fault of the student's, the plain run at the limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from opd.config.compose import load
from opd.config.horizon import Horizon
from opd.config.settings import SamplingConfig
from opd.loop import rollout_metrics
from opd.plan.layout import Layout
from opd.plan.work import Lengths
from opd.run.metrics import read_metrics
from opd.types import Repetition, UserError
from tests.run.test_health import LISTENS, names, run
from tests.sources.test_runs import QUICK, learned
from tests.tiny import cli_code, rollouts, scored

LONGEST = 96


@pytest.mark.parametrize(
    ("horizon", "lengths"),
    [
        (Horizon(), [96] * 10),
        (Horizon(first=10), [10] * 10),
        (Horizon(first=96, steps=4), [96] * 10),
        (Horizon(first=16, steps=4), [16, 36, 56, 76, *[96] * 6]),
        (Horizon(first=12, steps=6, growth="doubling"), [12, 12, 24, 24, 48, 48, *[96] * 4]),
        (Horizon(first=10, steps=4, growth="doubling"), [10, 20, 40, 80, *[96] * 6]),
        (Horizon(first=96, steps=4, growth="doubling"), [96] * 10),
        (Horizon(first=95, steps=1), [95, *[96] * 9]),
    ],
)
def test_a_horizon_grows_from_its_first_length_to_the_whole(horizon: Horizon, lengths: list[int]) -> None:
    assert [horizon.at(step, LONGEST) for step in range(10)] == lengths


def test_no_horizon_shrinks_or_leaves_its_bounds() -> None:
    for growth in ("linear", "doubling"):
        for first in (1, 7, 64, 96):
            for steps in (1, 3, 100):
                found = [Horizon(first=first, steps=steps, growth=growth).at(s, LONGEST) for s in range(steps + 2)]
                assert found == sorted(found)
                assert (found[0], found[-1]) == (first, LONGEST)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["sampling.horizon.first=9"], "horizon.first=9: allowed is at most max_tokens=8, or null"),
        (["sampling.horizon.steps=9"], "steps=9: also say from how many tokens"),
        (["sampling.horizon.first=4", "objective=grpo"], "has no end that a verifier could judge"),
    ],
)
def test_a_horizon_that_cannot_be_is_refused(config: Path, given: list[str], says: str) -> None:
    with pytest.raises(UserError, match=r"sampling\.horizon") as error:
        load(str(config), given)
    assert says in str(error.value)


def test_a_run_whose_horizon_is_the_whole_is_the_plain_one_to_the_bit(config: Path, tmp_path: Path) -> None:
    plain, whole = tmp_path / "plain", tmp_path / "whole"
    assert cli_code(["train", f"conf={config}", f"run={plain}", "steps=2", *QUICK]) == 0
    assert cli_code(["train", f"conf={config}", f"run={whole}", "steps=2", *QUICK, "sampling.horizon.first=8"]) == 0
    assert [{k: v for k, v in r.items() if k != "rollout/horizon"} for r in learned(whole)] == learned(plain)


def test_a_growing_run_pays_for_what_it_writes_and_goes_on_with_the_same_horizon(config: Path, tmp_path: Path) -> None:
    plain, whole, parts = (tmp_path / name for name in ("plain", "whole", "parts"))
    grows = ["sampling.horizon.first=2", "sampling.horizon.steps=2"]
    common = ["train", f"conf={config}", *QUICK]
    assert cli_code([*common, f"run={plain}", "steps=3"]) == 0
    assert cli_code([*common, *grows, f"run={whole}", "steps=3", "checkpoint.every=1"]) == 0
    rows, full = learned(whole), learned(plain)
    assert [r["rollout/horizon"] for r in rows] == [2, 5, 8]
    assert all(r["rollout/length"] <= r["rollout/horizon"] for r in rows)
    assert rows[0]["rollout/tokens"] == rows[0]["cost/generate_tokens"] == rows[0]["cost/update_tokens"]
    for name in ("generate_flops_student", "score_flops_teacher", "update_flops_forward", "update_flops_backward"):
        assert rows[0][f"cost/{name}"] < 0.7 * full[0][f"cost/{name}"]
    assert rows[0]["rollout/cut"] > 0.5
    assert rows[0]["rollout/truncated"] == 0  # nothing that is a fault
    assert "rollout/cut" not in rows[2]
    assert rows[2]["rollout/truncated"] > 0
    evaluated = [max(r["eval/length"] for r in read_metrics(run / "metrics.jsonl")[:1]) for run in (whole, plain)]
    assert evaluated[0] == evaluated[1] > 2  # at full length, before the first step too
    assert cli_code([*common, *grows, f"run={parts}", "steps=1"]) == 0
    assert cli_code(["train", "--resume", f"run={parts}", "-q", "steps=3"]) == 0
    assert learned(parts) == rows


def test_what_was_to_be_cut_is_counted_apart_and_has_no_reward(config: Path) -> None:
    written = scored(rollouts([(2, 4)] * 6))  # every second one cut
    drawn = SamplingConfig(max_tokens=8, horizon=Horizon(first=4, steps=2))
    assert rollout_metrics(written)["rollout/truncated"] == 0.5
    short, whole = rollout_metrics(written, drawn, 0), rollout_metrics(written, drawn, 2)
    assert (short["rollout/truncated"], short["rollout/cut"]) == (0, 0.5)
    assert whole["rollout/truncated"] == 0.5
    assert "rollout/cut" not in whole
    both = SamplingConfig(max_tokens=8, horizon=Horizon(first=4), repetition=Repetition(longest=1, times=2))
    rolled = [*written[:5], replace(written[5], rollout=replace(written[5].rollout, tokens=(3, 4, 5, 5)))]
    found = rollout_metrics(rolled, both, 0)
    assert [found[f"rollout/{name}"] for name in ("looped", "truncated", "cut")] == pytest.approx([1 / 6, 1 / 6, 1 / 3])


def test_a_plan_counts_the_tokens_of_the_horizon(config: Path) -> None:
    plain = load(str(config), []).config
    short, grown = (
        load(str(config), ["sampling.horizon.first=2", *more]).config for more in ([], ["sampling.horizon.steps=5"])
    )
    assert (plain.longest_trained, short.longest_trained) == (plain.longest, plain.longest - 6)
    assert grown.longest_trained == plain.longest_trained
    assert plain.longest == short.longest == grown.longest  # evaluations are at full length
    assert Layout().positions_of_step(short) < Layout().positions_of_step(plain)
    assert [Lengths.of(c, 5, None).completion for c in (plain, short, grown)] == [8, 2, 5]
    assert Lengths.of(plain, 5, 6) == Lengths(5, 6, 8)
    assert Lengths.of(grown, 5, 4).completion == pytest.approx((2 + 3 + 4 * 4) / 6)


def test_figures_of_ever_later_tokens_are_no_verdict() -> None:
    grows = run(kl__exact=lambda t: 0.2 + 0.5 * t, rollout__length=lambda t: 10 + 90 * t)
    assert names(grows) != []
    assert names(grows, replace(LISTENS, grows=True)) == []
