"""Verdicts: runs that go wrong are told so, in the words of what is wrong; healthy ones are left alone."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from opd.config.compose import load
from opd.needs import Needs
from opd.run.course import FEWEST, Row, course
from opd.run.health import EVERY, FIGURES, PATIENCE, Aims, Health, read, verdicts
from tests.tiny import cli_code

ROOT = Path(__file__).parents[2]
LISTENS = Aims(listens=True, rewarded=False, writes=True, steps=60)
REWARDED = Aims(listens=False, rewarded=True, writes=True, steps=60)
GIVEN = Aims(listens=True, rewarded=False, writes=False, steps=60)
Curve = Callable[[float], float]


def falling(t: float) -> float:
    """A divergence as it should go."""
    return 0.02 + 0.6 * math.exp(-5 * t)


def run(noise: float = 0.05, steps: int = 60, seed: int = 0, **curves: Curve) -> list[Row]:
    """The rows of a run whose figures go as told over its course, from 0 to 1, with noise; healthy where nothing is."""
    draw = random.Random(seed)
    healthy: dict[str, Curve] = {
        "kl/exact": falling, "kl/student_entropy": lambda t: 0.1 + 0.3 * math.exp(-5 * t),
        "kl/teacher_entropy": lambda t: 0.12, "kl/engine_gap": lambda t: 1e-4, "optim/ess": lambda t: 1.0,
        "optim/trained_tokens": lambda t: 900, "optim/grad_norm": lambda t: 1.0, "rollout/truncated": lambda t: 0.05,
        "rollout/length": lambda t: 30, "rollout/tokens": lambda t: 960, "rollout/reward": lambda t: 0.4 + 0.5 * t,
        "perf/step_s": lambda t: 2.0,
    }  # fmt: skip
    going = healthy | {name.replace("__", "/"): curve for name, curve in curves.items()}
    rows: list[Row] = [{"step": 0, "eval/kl": 0.6}]
    for step in range(1, steps + 1):
        t = (step - 1) / max(1, steps - 1)
        rows.append({"step": step} | {name: curve(t) * (1 + noise * draw.gauss(0, 1)) for name, curve in going.items()})
    return rows


def names(rows: list[Row], aims: Aims = LISTENS) -> list[str]:
    return [verdict.name for verdict in verdicts(rows, aims)]


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("steps", [0, FEWEST - 1, FEWEST, 60, 1000])
@pytest.mark.parametrize("aims", [LISTENS, REWARDED, GIVEN])
def test_a_healthy_run_is_left_alone(aims: Aims, steps: int, noise: float) -> None:
    for seed in range(10):
        assert names(run(noise, steps, seed), aims) == []


@pytest.mark.parametrize("steps", [40, 400])
@pytest.mark.parametrize(("curves", "aims", "name", "setting"), [
    ({"kl__exact": lambda t: 2.9 + 3.3 * t}, LISTENS, "moving away from the teacher", "optim.lr"),
    ({"kl__exact": lambda t: falling(3 * t) + 0.3 * max(0.0, t - 0.4)}, LISTENS, "moving away from the teacher",
     "optim.lr"),
    ({"kl__exact": lambda t: 1.2}, LISTENS, "nothing learned", "Raise optim.lr"),
    ({"kl__exact": lambda t: 1.2, "optim__ess": lambda t: 0.9}, LISTENS, "nothing learned", "Lower optim.lr"),
    ({"kl__exact": lambda t: falling(t) - 0.2 * (t > 0.9)}, LISTENS, "a KL below zero", "student.dtype"),
    ({"kl__exact": lambda t: -0.05}, REWARDED, "a KL below zero", "teacher.dtype"),
    ({"kl__exact": lambda t: 30.0}, LISTENS, "the teacher reads nonsense", "teacher.template"),
    ({"kl__exact": lambda t: math.nan, "kl__sampled": lambda t: 14 - t}, GIVEN, "the teacher reads nonsense",
     "teacher.prompt"),
    ({"kl__exact": lambda t: 0.5 + 14 * t}, LISTENS, "moving away from the teacher", "optim.lr"),
    ({"kl__student_entropy": lambda t: 0.4 * math.exp(-8 * t)}, LISTENS, "entropy collapsed", "objective.beta"),
    ({"rollout__truncated": lambda t: t}, LISTENS, "more and more cut off", "sampling.max_tokens"),
    ({"rollout__length": lambda t: 30 * (1 + 5 * t)}, LISTENS, "lengths drift", "opd report"),
    ({"rollout__length": lambda t: 30 * math.exp(-3 * t)}, REWARDED, "lengths drift", "opd report"),
    ({"optim__ess": lambda t: 1 - 0.8 * t}, LISTENS, "off policy", "devices.ahead"),
    ({"kl__engine_gap": lambda t: -0.1}, LISTENS, "engine and learner disagree", "rollout.dtype"),
    ({"optim__trained_tokens": lambda t: 0.0}, LISTENS, "nothing trained", "sampling.n"),
    ({"optim__grad_norm": lambda t: 0.0}, REWARDED, "nothing trained", "sampling.n"),
    ({"rollout__reward": lambda t: 0.1}, REWARDED, "reward is flat", "optim.lr"),
    ({"perf__step_s": lambda t: 2 * math.exp(2 * t)}, LISTENS, "slower and slower", "perf/"),
])  # fmt: skip
def test_what_goes_wrong_is_told_with_figures_and_a_setting(
    curves: dict[str, Curve], aims: Aims, name: str, setting: str, steps: int
) -> None:
    for seed in range(3):
        (verdict,) = verdicts(run(steps=steps, seed=seed, **curves), replace(aims, steps=steps))
        assert verdict.name == name
        assert setting in verdict.do
        assert any(character.isdigit() for character in verdict.seen)
        assert "\n" not in str(verdict)


@pytest.mark.parametrize(("curves", "aims"), [
    ({"kl__exact": lambda t: 1 + 3 * t}, REWARDED),  # nobody listens to the teacher
    ({"rollout__length": lambda t: 30 * (1 + 5 * t), "rollout__truncated": lambda t: t}, GIVEN),  # the data's
    ({"optim__ess": lambda t: 0.3, "kl__engine_gap": lambda t: 0.2}, GIVEN),
    ({"rollout__reward": lambda t: 0.1}, LISTENS),
    ({"rollout__reward": lambda t: 0.99}, REWARDED),  # as good as can be
    ({"kl__exact": lambda t: 0.004 * (1 + t)}, LISTENS),  # at the teacher already
    ({"kl__engine_gap": lambda t: 0.2, "rollout__age": lambda t: 2.0}, LISTENS),  # of older weights
    ({"kl__exact": lambda t: math.nan, "kl__sampled": falling}, LISTENS),
    ({"kl__exact": lambda t: math.nan, "kl__sampled": lambda t: falling(t) - 0.1}, LISTENS),  # a mean of few samples
    ({"kl__exact": lambda t: 1e-5 * math.sin(99 * t)}, LISTENS),  # its own teacher, in rounding
    ({"kl__exact": lambda t: 20 * math.exp(-4 * t)}, LISTENS),  # a format that is being learned
    ({"kl__exact": lambda t: 30.0}, REWARDED),
])  # fmt: skip
def test_what_is_not_a_runs_aim_is_no_fault_of_it(curves: dict[str, Curve], aims: Aims) -> None:
    for seed in range(5):
        assert names(run(seed=seed, **curves), aims) == []


def test_what_cannot_be_is_told_after_few_steps() -> None:
    few = FEWEST // 4
    assert names(run(steps=few, kl__exact=lambda t: -0.5)) == ["a KL below zero"]
    assert names(run(steps=few, kl__exact=lambda t: 25.0)) == ["the teacher reads nonsense"]
    assert names(run(steps=few)) == []


def test_a_long_run_is_given_time_to_begin() -> None:
    flat = run(kl__exact=lambda t: 1.0, steps=60)
    assert names(flat, LISTENS) == ["nothing learned"]  # at its end
    assert names(flat, Aims(listens=True, rewarded=False, writes=True, steps=500)) == []
    assert names(run(kl__exact=lambda t: 1.0, steps=PATIENCE), Aims(True, False, True, 500)) == ["nothing learned"]


def test_a_rate_that_has_ruined_the_student_at_once_is_not_to_be_raised() -> None:
    for verdict in verdicts(
        run(kl__exact=lambda t: 3.8, kl__student_entropy=lambda t: 1.5 * math.exp(-90 * t)), LISTENS
    ):
        assert "Lower optim.lr" in verdict.do


def test_noise_of_any_size_is_not_taken_for_a_trend() -> None:
    sampled: dict[str, Curve] = {"kl__exact": lambda t: math.nan, "kl__sampled": lambda t: 0.03}  # also below zero
    wrong = sum(bool(names(run(noise=0.5, seed=seed, **sampled))) for seed in range(200))
    assert wrong <= 4


def test_the_error_of_a_mean_is_that_of_what_changes_from_step_to_step() -> None:
    steady = course(run(noise=0.0, steps=100, kl__exact=lambda t: 1 + t), "kl/exact")
    noisy = course(run(noise=0.1, steps=1000, kl__exact=lambda t: 1.0), "kl/exact")
    assert steady is not None
    assert noisy is not None
    assert steady.error < 0.01 * (steady.last - steady.first)
    assert noisy.error == pytest.approx(0.1 * math.sqrt(2 / 200), rel=0.1)


def test_all_that_holds_is_told_at_every_look_and_at_the_end(tmp_path: Path) -> None:
    rows = run(kl__exact=lambda t: 1 + 3 * t, rollout__truncated=lambda t: max(0.0, 2 * t - 1))
    health = Health(tmp_path / "health.json", LISTENS, [])
    looks = {row["step"]: health.step(int(row["step"]), row) for row in rows}
    told = {step: [v.name for v in found] for step, found in looks.items() if found is not None}
    kl, cut = "moving away from the teacher", "more and more cut off"
    assert told == {EVERY: [kl], 2 * EVERY: [kl], 60: [kl, cut]}
    assert [v.name for v in read(tmp_path / "health.json") or ()] == [kl, cut]
    later = Health(tmp_path / "health.json", LISTENS, rows[:41])
    assert [v.name for row in rows[41:] for v in later.step(int(row["step"]), row) or ()] == [kl, cut]


@pytest.mark.parametrize("text", [None, "", "[]", '{"verdicts": 3}', '{"verdicts": [{"name": "x"}]}', "\xff"])
def test_a_file_that_says_nothing_is_no_verdict(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "health.json").write_text(text, encoding="latin-1")
    assert read(tmp_path / "health.json") is None


def test_aims_are_those_of_the_objective_and_the_source() -> None:
    loaded = {name: load(name).config for name in ("quickstart", "grpo", "sft")}
    aims = {name: Aims.of(cfg.objective.needs, cfg.source.policy, cfg.steps) for name, cfg in loaded.items()}
    assert (aims["quickstart"].listens, aims["quickstart"].writes) == (True, True)
    assert (aims["grpo"].listens, aims["grpo"].rewarded) == (False, True)
    assert (aims["sft"].listens, aims["sft"].rewarded, aims["sft"].writes) == (False, False, False)
    assert Aims.of(Needs(rewards=True, top_k=5), True, 1).rewarded is False


@pytest.mark.parametrize("recipe", sorted(path.parent.name for path in ROOT.glob("recipes/*/result.json")))
def test_no_measured_recipe_would_have_been_told_that_it_moves_away(recipe: str) -> None:
    def curves(node: object) -> list[list[float]]:
        if isinstance(node, dict):
            own = [node["kl"]] if isinstance(node.get("kl"), list) else []
            return own + [found for value in node.values() for found in curves(value)]
        return [found for value in node for found in curves(value)] if isinstance(node, list) else []

    result = json.loads((ROOT / "recipes" / recipe / "result.json").read_text())
    for kl in curves(result["data"]):
        points = [value for value in kl if isinstance(value, float) and math.isfinite(value)]
        if len(points) >= FEWEST:
            rows: list[Row] = [{"step": step, "kl/exact": value} for step, value in enumerate(points, 1)]
            assert "moving away from the teacher" not in names(rows)


def test_a_run_that_goes_wrong_says_so_on_the_way_and_at_its_end(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    wild = ["objective=constant", "optim.lr=0.03", "eval.every=0", f"steps={EVERY + 5}"]
    assert cli_code(["train", f"conf={config}", f"run={folder}", "-q", *wild]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "entropy collapsed" in line]
    assert len(said) == 2
    assert [v.name for v in read(folder / "health.json") or ()]
    assert {"step", "kl/exact"} <= set(FIGURES)
