"""What a source has written beside a step's rollouts is in the plan: in tokens and in seconds, as an upper bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from opd.commands.train.plan import describe
from opd.config.compose import load
from opd.plan.cards import card
from opd.plan.forecast import Forecast, forecast
from opd.plan.layout import Layout
from opd.plan.tables import lines
from opd.plan.turns import beside, turns
from opd.plan.work import Lengths
from opd.run.directory import RunFolder

FILTERED = ["source=filtered", "source.redraws=3"]
GATE = "source.source._target_=opd.sources.gated.Gated"
CASES: dict[str, tuple[list[str], float]] = {
    "student": ([], 0),
    "filtered": (["source=filtered"], 0),
    "filtered again": (FILTERED, 3),
    "curriculum": (["source=curriculum"], 0),
    "gated": (["source=gated", "source.samples=4"], 2),
    "gated again": (["source=gated", "source.samples=4", "source.redraws=2"], 6),
    "a gate in a filter": ([*FILTERED, GATE], 3 + 4 * 1.5),
    "a filter in a mixture": (
        ["source=mixed", "source.parts.dataset={_target_: opd.sources.filtered.Filtered, redraws: 4}",
         "source.shares.dataset=1.5"], 3,
    ),
}  # fmt: skip
"""Settings with two samples a prompt, and how many times the step's tokens are written beside them."""


def planned(config: Path, settings: list[str]) -> Forecast:
    made = load(str(config), ["sampling.n=2", *settings]).config
    return forecast(made, card("h100"), Layout(), Lengths.of(made, 10, None), "float32")


@pytest.mark.parametrize("name", CASES)
def test_tokens_beside_a_step_are_those_of_every_round_and_question(config: Path, name: str) -> None:
    settings, times = CASES[name]
    made = load(str(config), ["sampling.n=2", *settings]).config
    tokens = made.data.prompts_per_step * 2 * made.sampling.max_tokens
    assert beside(made) == times * tokens
    (first, *_) = describe(made, RunFolder.at("runs"), None).splitlines()
    assert first.endswith(f"{tokens} tokens a step" + (f", and {beside(made)} beside them" if times else ""))


def test_seconds_of_questions_and_of_redraws_stand_beside_those_of_the_step(config: Path) -> None:
    plain, again = planned(config, ["source=filtered"]), planned(config, FILTERED)
    assert list(plain.phases) == ["generate", "score", "update", "push"]
    assert again.phases["redraw"] == pytest.approx(3 * plain.phases["generate"])
    assert again.step == pytest.approx(plain.step + again.phases["redraw"])
    assert any("redraw: as if all prompts were given up" in line for line in lines(again))
    gated = planned(config, ["source=gated"])
    more = planned(config, ["source=gated", "source.samples=6", "source.redraws=1"])
    assert gated.phases["generate"] == plain.phases["generate"]
    assert 0 < gated.phases["ask"] < more.phases["ask"] == more.phases["redraw"]
    assert any("ask: the teacher writes first" in line for line in lines(gated))
    assert set(more.record()["seconds"]) == {"generate", "ask", "redraw", "score", "update", "push"}


def test_a_horizon_cuts_what_is_trained_and_not_what_a_gate_goes_by(config: Path) -> None:
    short = ["sampling.horizon.first=2"]
    whole, cut = planned(config, ["source=gated"]), planned(config, ["source=gated", *short])
    assert cut.phases["generate"] < whole.phases["generate"]
    assert cut.phases["ask"] == whole.phases["ask"]


def test_each_source_is_planned_by_who_writes_and_by_its_share(config: Path) -> None:
    def written(*settings: str) -> list[tuple[float, int, bool]]:
        made = load(str(config), ["data.prompts_per_step=8", "objective=sft", *settings]).config
        return [(t.prompts, t.rounds, t.own is not None) for t in turns(made)]

    assert written("source=dataset") == []
    assert written("source=teacher") == [(8, 1, True)]
    assert written("source=mixed", "source.shares.student=1", "source.shares.dataset=3") == [(2, 1, False)]
    assert written("source=teacher_mixed") == [(8, 1, False), (8, 1, True)]
    tasks = "source.tasks={arithmetic: {_target_: opd.sources.dataset.DatasetSource}}"
    assert written("source=by_task", tasks) == []
