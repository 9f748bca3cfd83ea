"""Other prompts in the place of those of which nothing is left: bounded, by the seed, and paid for in the open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opd.config.compose import load
from opd.loop import rollout_metrics
from opd.rollout.handed import received
from opd.seeds import derive
from opd.sources.filtered import Filtered
from opd.sources.mixed import Mixed
from opd.sources.student import StudentSource
from opd.types import Judgement, Prompt, Rollout, Sampling, Scored, UserError
from opd.writing import Desk
from tests.rollout.crowd import crowd
from tests.sources.desks import STOP, make_desk, tables
from tests.sources.test_dataset import prompts
from tests.sources.test_filtered import parity
from tests.sources.test_runs import QUICK, learned
from tests.tiny import cli_code

SAMPLING = Sampling(max_tokens=6, n=3, stop=(STOP,), seed=3)
MANY = prompts(40)
ASKED = MANY[:12]
PARITY = "data.tasks.arithmetic._target_=tests.sources.test_filtered.Parity"


def another(prompt: Prompt, seed: int) -> Prompt:
    return MANY[derive(seed, "place") % len(MANY)]


def desk() -> Desk:
    return replace(make_desk(tables()[0]), task=parity, another=another)


def groups(rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
    return [list(rollouts[i : i + SAMPLING.n]) for i in range(0, len(rollouts), SAMPLING.n)]


def out(group: Sequence[Rollout]) -> bool:
    return not any(any(r.mask) for r in group)


def test_what_is_left_out_is_replaced_and_all_else_is_as_it_was() -> None:
    plain = groups(Filtered().start(desk()).sample(ASKED, SAMPLING))
    once = groups(Filtered(redraws=1).start(desk()).sample(ASKED, SAMPLING))
    often = groups(Filtered(redraws=50).start(desk()).sample(ASKED, SAMPLING))
    lost = [i for i, group in enumerate(plain) if out(group)]
    assert 0 < len(lost) < len(plain)
    assert 0 < sum(map(out, once)) < len(lost)
    assert not any(map(out, often))
    for i, (before, after, last) in enumerate(zip(plain, once, often, strict=True)):
        assert len(after) == len(last) == SAMPLING.n
        assert len({r.prompt.example.id for r in after}) == 1
        if i not in lost:
            assert before == after == last
            continue
        assert [r.tries for r in after] == [1] * SAMPLING.n
        assert last[0].tries >= 1
        thrown = tuple(("student", len(r.prompt.tokens), len(r.tokens)) for r in before)
        assert after[0].beside == last[0].beside[: SAMPLING.n] == thrown
        assert len(last[0].beside) == SAMPLING.n * last[0].tries
        assert not any(r.beside for r in (*after[1:], *last[1:]))
        drawn = after[0].prompt
        assert drawn is another(before[0].prompt, derive(derive(3, "redraw", 0), i))  # by seed, round and place alone
    again = Filtered(redraws=50).start(desk()).sample(ASKED, SAMPLING)
    assert groups(again) == often


def test_a_filter_that_leaves_nothing_ends_after_its_rounds() -> None:
    engine, _ = tables()
    never = Filtered(lowest=2, redraws=3).start(replace(desk(), engine=engine)).sample(ASKED, SAMPLING)
    assert all(map(out, groups(never)))
    assert len(engine.shown) == 4 * len(never)
    assert {r.tries for r in never} == {3}
    judged = [Scored(r, Judgement(torch.zeros(len(r.tokens)))) for r in never]
    found = rollout_metrics(judged)
    assert (found["rollout/left_out"], found["rollout/redrawn"]) == (1, 3)
    assert found["rollout/beside"] == 3 * len(never)


def test_a_filter_in_a_mixture_and_one_around_another_take_other_prompts_too() -> None:
    mixed = Mixed(parts={"a": StudentSource(), "b": Filtered(redraws=9)}, shares={"a": 1, "b": 1})
    written = groups(mixed.start(desk()).sample(ASKED, SAMPLING))
    assert not any(out(group) for group in written if group[0].origin == "b")
    assert any(group[0].tries for group in written if group[0].origin == "b")
    twice = Filtered(source=Filtered(redraws=2), lowest=0.6, redraws=9).start(desk()).sample(ASKED, SAMPLING)
    for group in groups(twice):
        assert len(group[0].beside) == SAMPLING.n * group[0].tries  # the inner one's are not forgotten


def test_prompts_that_the_first_rank_took_are_on_all() -> None:
    written = Filtered(redraws=9).start(desk()).sample(ASKED, SAMPLING)
    assert any(r.tries for r in written)
    for got in crowd(3, lambda team: received(team, ASKED, lambda: written)):
        assert got == written


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["source.redraws=1", "devices=apart", "devices.ahead=1"], "devices.ahead=1: source=filtered takes prompts by"),
        (["sampling.horizon.first=4"], "and source=filtered goes by rewards; allowed is null"),
        (["source.redraws=-1"], "source.redraws=-1"),
    ],
)
def test_what_does_not_go_with_it_is_refused(config: Path, given: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        load(str(config), ["source=filtered", *given])
    assert says in str(error.value)


def test_a_run_pays_for_what_it_throws_away_and_goes_on_exactly(config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = ["train", f"conf={config}", "source=filtered", "source.redraws=2", PARITY, *QUICK]
    assert cli_code([*common, f"run={whole}", "steps=2", "checkpoint.every=1"]) == 0
    rows = learned(whole)
    assert all(row["rollout/redrawn"] > 0 for row in rows)
    one = rows[0]
    assert one["rollout/count"] == 16
    assert one["cost/generate_tokens"] > one["cost/score_tokens"]
    assert one["cost/generate_flops_student"] > one["cost/update_flops_forward"]
    assert cli_code([*common, f"run={parts}", "steps=1"]) == 0
    assert cli_code(["train", "--resume", f"run={parts}", "-q", "steps=2"]) == 0
    assert learned(parts) == rows
    a, b = (load_file(r / "checkpoints/step_000002/model/model.safetensors") for r in (whole, parts))
    assert all(torch.equal(a[k], b[k]) for k in a)
