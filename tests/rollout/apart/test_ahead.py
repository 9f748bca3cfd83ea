"""Which weights write what is fixed, whoever is faster; nothing of a thread is lost or hidden."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import save_file

from opd.config.compose import load
from opd.parts import drafts
from opd.rollout.apart.ahead import Ahead
from opd.rollout.drafts import Drafts, InTurn
from opd.run.checkpoint import Checkpoint
from opd.types import Example, Prompt, Rollout, RunError, Sampling, TokenPair, Weights

LAST = 6


class Recording:
    """An engine that notes what it does; its completions are its version."""

    def __init__(self, seconds: float = 0.0, fails: int = -1, lies: int = 0) -> None:
        self.version, self.done, self.seconds, self.fails, self.lies = 0, [], seconds, fails, lies
        self.threads: set[threading.Thread] = set()

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        self.threads.add(threading.current_thread())
        time.sleep(self.seconds)
        if sampling.seed == self.fails:
            raise RunError("the engine died")
        self.done.append(f"sample {sampling.seed} with {self.version}")
        version = self.version - self.lies
        return [Rollout(p, (sampling.seed, self.version), (-0.1, -0.2), True, version) for p in prompts]

    def stage(self, weights: Weights, version: int) -> Callable[[], None]:
        held = list(weights)

        def load() -> None:
            self.done.append(f"load {version}")
            self.version = version
            assert held == [("w", version)]

        return load

    def load_weights(self, weights: Weights, version: int) -> None:
        self.stage(weights, version)()

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        raise AssertionError

    def close(self) -> None:
        pass


class Here:
    """The same engine in this process: it cannot take weights now and use them later."""

    def __init__(self, engine: Recording) -> None:
        self.engine, self.rested = engine, False

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        assert not self.rested, "it has thrown its weights away"
        return self.engine.sample(prompts, sampling)

    def load_weights(self, weights: Weights, version: int) -> None:
        self.rested = False
        self.engine.load_weights(weights, version)

    def rest(self, keep: bool) -> None:
        self.rested = not keep

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        raise AssertionError

    def close(self) -> None:
        pass


def plan(step: int) -> tuple[list[Prompt], Sampling]:
    return [Prompt(Example(f"{step}/{i}", ()), (step, i)) for i in range(2)], Sampling(max_tokens=2, seed=step)


def run(drafts: Drafts, first: int = 0, last: int = LAST, seconds: float = 0.0) -> list[int]:
    """Learn from the steps; gives the version that each was written with."""
    versions = []
    for step in range(first, last):
        rollouts = drafts.take(step)
        assert [r.prompt.tokens for r in rollouts] == [(step, 0), (step, 1)]
        versions.append(rollouts[0].tokens[1])
        time.sleep(seconds)
        drafts.push([("w", step + 1)], step + 1)
    drafts.settle()
    return versions


@pytest.mark.parametrize(("engine_s", "learner_s"), [(0.0, 0.02), (0.02, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("ahead", [0, 1, 2, 4, 9])
def test_step_s_is_written_with_the_weights_of_step_s_minus_k(ahead: int, engine_s: float, learner_s: float) -> None:
    engine = Recording(engine_s)
    drafts = Ahead(engine, engine, plan, range(LAST), ahead)
    assert run(drafts, seconds=learner_s) == [max(0, step - ahead) for step in range(LAST)]
    assert drafts.stale == bool(ahead)
    drafts.close()


@pytest.mark.parametrize("ahead", [0, 1, 3, 9])
def test_an_engine_in_this_process_writes_the_same_in_turn_and_rests_while_the_learner_works(ahead: int) -> None:
    apart, here = Recording(), Recording()
    engine = Here(here)
    drafts = Ahead(engine, engine, plan, range(LAST), ahead)
    assert run(drafts) == run(Ahead(apart, apart, plan, range(LAST), ahead))
    assert here.done == apart.done
    assert here.threads == {threading.main_thread()}
    assert drafts.stale == bool(ahead)


def test_with_nothing_ahead_the_engine_does_the_same_in_the_same_order() -> None:
    ahead, in_turn = Recording(), Recording()
    run(Ahead(ahead, ahead, plan, range(LAST), 0))
    run(InTurn(in_turn, in_turn, plan))
    assert ahead.done == in_turn.done


def test_the_engine_writes_while_the_learner_learns() -> None:
    engine = Recording(0.05)
    begun = time.perf_counter()
    run(Ahead(engine, engine, plan, range(LAST), 1), seconds=0.05)
    assert time.perf_counter() - begun < 0.05 * LAST * 1.7
    assert threading.main_thread() not in engine.threads


def test_an_error_surfaces_at_the_step_that_needs_the_result_and_nothing_is_written_after_it() -> None:
    engine = Recording(fails=2)
    drafts = Ahead(engine, engine, plan, range(LAST), 2)
    for step in (0, 1):
        drafts.take(step)
        drafts.push([("w", step + 1)], step + 1)
    with pytest.raises(RunError, match="the engine died"):
        drafts.take(2)
    with pytest.raises(RunError, match="the engine died"):
        drafts.settle()
    assert engine.done == ["sample 0 with 0", "sample 1 with 0"]


@pytest.mark.parametrize("lies", [1, -5])
def test_rollouts_that_are_too_old_or_of_weights_to_come_are_refused(lies: int) -> None:
    engine = Recording(lies=lies)
    drafts = Ahead(engine, engine, plan, range(LAST), 0)
    with pytest.raises(RunError, match=r"step 1: its rollouts were written .* steps ago; allowed are 0"):
        drafts.take(0)


def test_settling_leaves_the_engine_with_the_newest_weights_and_idle() -> None:
    engine = Recording(0.02)
    drafts = Ahead(engine, engine, plan, range(LAST), 2)
    drafts.take(0)
    drafts.push([("w", 1)], 1)
    drafts.settle()
    assert engine.done == [*(f"sample {step} with 0" for step in range(3)), "load 1"]


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_run_that_goes_on_learns_from_the_same_rollouts(ahead: int, tmp_path: Path) -> None:
    engine = Recording()
    whole = run(Ahead(engine, engine, plan, range(LAST), ahead))
    engine = Recording()
    before = Ahead(engine, engine, plan, range(LAST), ahead)
    begun = run(before, last=2)
    save_file(before.state(), tmp_path / "ahead.safetensors")
    again = Recording()
    again.version = 2  # pushed by the preflight
    after = Ahead(again, again, plan, range(2, LAST), ahead)
    assert after.restore(tmp_path) == ""
    assert begun + run(after, first=2) == whole


def test_without_its_rollouts_a_run_goes_on_with_new_ones_and_says_so(tmp_path: Path) -> None:
    engine = Recording()
    engine.version = 2
    after = Ahead(engine, engine, plan, range(2, LAST), 2)
    assert "rollouts of step 3, 4 are not in the checkpoint" in after.restore(tmp_path)
    assert run(after, first=2) == [2, 2, 2, 3]


def test_rollouts_of_other_prompts_or_older_than_is_allowed_now_are_left(tmp_path: Path) -> None:
    engine = Recording()
    before = Ahead(engine, engine, plan, range(LAST), 2)
    run(before, last=3)
    save_file(before.state(), tmp_path / "ahead.safetensors")

    def other(step: int) -> tuple[list[Prompt], Sampling]:
        prompts, drawn = plan(step)
        return ([Prompt(p.example, (99,)) for p in prompts] if step == 4 else prompts), drawn

    def hotter(step: int) -> tuple[list[Prompt], Sampling]:
        prompts, drawn = plan(step)
        return prompts, replace(drawn, temperature=1.5) if step == 4 else drawn

    for now in (other, hotter):
        assert "step 5 are" in Ahead(engine, engine, now, range(3, LAST), 2).restore(tmp_path)
    assert Ahead(engine, engine, plan, range(3, LAST), 2).restore(tmp_path) == ""
    written_by_an_earlier_opd = {k: v for k, v in before.state().items() if not k.endswith(".drawn")}
    save_file(written_by_an_earlier_opd, tmp_path / "ahead.safetensors")
    assert Ahead(engine, engine, hotter, range(3, LAST), 2).restore(tmp_path) == ""
    assert "step 4 are" in Ahead(engine, engine, plan, range(3, LAST), 1).restore(tmp_path)


def test_what_was_written_ahead_is_left_where_nothing_is_any_more_and_that_is_said(tmp_path: Path) -> None:
    engine, said = Recording(), list[str]()
    before = Ahead(engine, engine, plan, range(LAST), 2)
    run(before, last=3)
    save_file(before.state(), tmp_path / "ahead.safetensors")
    parts: Any = SimpleNamespace(source=engine, engine=engine)
    console: Any = SimpleNamespace(say=said.append)
    drafts(load("quickstart").config, parts, ExitStack(), console, 3, Checkpoint(tmp_path))
    assert "with devices.ahead=0 they are left" in said[0]
    run(before, first=3)
    save_file(before.state(), tmp_path / "ahead.safetensors")
    drafts(load("quickstart").config, parts, ExitStack(), console, LAST, Checkpoint(tmp_path))
    assert len(said) == 1, "nothing was left to learn from"


def test_closing_begins_nothing_more() -> None:
    engine = Recording(0.05)
    drafts = Ahead(engine, engine, plan, range(LAST), 4)
    drafts.take(0)
    drafts.close()
    drafts._thread.join(5)
    assert not drafts._thread.is_alive()
    assert len(engine.done) <= 2
