"""An engine that fails in its work is started again, and nothing else changes."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from opd.rollout.hf import Hf
from opd.rollout.revived import Revived, RevivedMixing, Reviving
from opd.run.metrics import read_metrics
from opd.types import Pretrained, RunError, Sampling, UserError, Weights, again
from tests.fakes import FRAIL, Frail
from tests.rollout.test_engines import HEAVY, MAX_LEN, PROMPTS, STOP, make_engine, make_model
from tests.test_loop import learned
from tests.tiny import cli_code

SAMPLING = Sampling(max_tokens=12, n=3, temperature=1.0, stop=(STOP,), seed=7)
NEWEST = make_model("tied", 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model that the engines are started with."""
    made = tmp_path_factory.mktemp("model")
    make_model("tied", 0).save_pretrained(made)
    return str(made)


@again
def weights() -> Any:
    """Those that the learner has come to."""
    yield from NEWEST.state_dict().items()


def begun(folder: str, kind: str = "hf", times: int = 1, **frail: Any) -> tuple[Revived, list[str], list[str]]:
    """A started engine that fails, what is asked of it, and what people are told."""
    calls: list[str] = []
    told: list[str] = []
    fails = frozenset(frail.pop("fails", ()))
    engine = Frail(make_engine(kind), calls, fails, **frail)
    return Reviving(engine, times, told.append).start(folder, max_len=MAX_LEN, seed=0), calls, told


@pytest.mark.parametrize(("kind", "gives"), [("hf", 0), ("hf", 5), pytest.param("vllm", 2, marks=HEAVY)])
def test_a_new_engine_writes_what_is_missing_as_the_old_one_would_have(kind: str, gives: int, folder: str) -> None:
    sound, _, _ = begun(folder, kind)
    frail, calls, told = begun(folder, kind, fails=[2], gives=gives)
    try:
        for engine in (sound, frail):
            engine.load_weights(weights(), 4)
        want, found = (engine.sample(PROMPTS, SAMPLING) for engine in (sound, frail))
        assert [r.tokens for r in found] == [r.tokens for r in want]
        assert [r.logprobs for r in found] == [pytest.approx(r.logprobs, abs=1e-5) for r in want]
        assert {r.version for r in found} == {4}
        assert calls == ["start", "load_weights 4", "stream 6", "start", "load_weights 4", f"stream {6 - gives}"]
        failed = "rollout: the engine fails, KeyError: 'it broke'"
        assert told == [f"{failed}; the engine is started again, and asked for what is missing"]
    finally:
        for engine in (sound, frail):
            engine.close()


def test_places_that_were_asked_for_are_those_that_are_asked_for_again(folder: str) -> None:
    drawn = replace(SAMPLING, n=1, places=(7, 3))
    sound, frail = begun(folder)[0], begun(folder, fails=[1], gives=1)[0]
    assert [r.tokens for r in frail.sample(PROMPTS, drawn)] == [r.tokens for r in sound.sample(PROMPTS, drawn)]


def test_scores_and_pushes_are_done_again_by_the_new_one(folder: str) -> None:
    sound, frail = begun(folder)[0], begun(folder, fails=[1, 4])[0]
    pairs = [((3, 4), (5, 6, 7)), ((8,), (9,))]
    for engine in (sound, frail):
        engine.load_weights(weights(), 1)
    assert frail.logprobs(pairs) == sound.logprobs(pairs)


@pytest.mark.parametrize("times", [0, 1, 2])
def test_it_is_started_as_often_as_allowed_and_then_what_it_says_is_raised(times: int, folder: str) -> None:
    fails = [1, 3, 5]
    engine, calls, told = begun(folder, times=times, fails=fails)
    with pytest.raises(RunError, match=r"^rollout: the engine fails, KeyError: 'it broke'$"):
        engine.sample(PROMPTS, SAMPLING)
    assert (calls.count("start"), len(told)) == (times + 1, times)


def test_each_request_has_its_own_tries(folder: str) -> None:
    engine, calls, _ = begun(folder, fails=[1, 4, 7])
    for _ in range(3):
        assert len(engine.sample(PROMPTS, SAMPLING)) == 6
    assert calls.count("start") == 4


def test_what_is_wrong_with_the_request_is_no_reason_to_start_it_again(folder: str) -> None:
    engine, calls, told = begun(folder)
    with pytest.raises(UserError, match="more than the 64 tokens"):
        engine.sample(PROMPTS, replace(SAMPLING, max_tokens=100))
    assert (calls.count("start"), told) == (1, [])
    engine, calls, told = begun(folder, fails=[1], error=RunError("rollout: the GPU fell off"))
    engine.sample(PROMPTS, SAMPLING)
    assert told[0].startswith("rollout: the GPU fell off; the engine is started again")


def test_one_that_cannot_be_started_again_says_both(folder: str) -> None:
    engine, _, _ = begun(folder, times=5, fails=[1, 2])
    with pytest.raises(
        RunError, match=r"^rollout: the engine fails, .*; the one that was to take its place fails, too"
    ):
        engine.sample(PROMPTS, SAMPLING)


def test_weights_that_can_be_taken_once_only_are_not_replaced_by_those_of_the_start(folder: str) -> None:
    engine, calls, _ = begun(folder, fails=[2])
    engine.load_weights(iter(NEWEST.state_dict().items()), 1)
    with pytest.raises(RunError, match="it broke"):
        engine.sample(PROMPTS, SAMPLING)
    assert calls.count("start") == 1


def test_random_numbers_of_others_go_on_as_they_were(folder: str) -> None:
    class Seeding(Hf):
        def start(self, model: Pretrained | str, *, max_len: int, seed: int) -> Any:
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
            return super().start(model, max_len=max_len, seed=seed)

    engine = Frail(Seeding(dtype="float32", device="cpu"), [], frozenset({1}))
    revived = Reviving(engine, 1, lambda words: None).start(folder, max_len=MAX_LEN, seed=0)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    want = random.random(), np.random.rand(), float(torch.rand(1))
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    revived.sample(PROMPTS, SAMPLING)
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == want


def test_engines_that_mix_by_token_do_so_as_before_and_again(folder: str) -> None:
    settings = Hf(dtype="float32", device="cpu")

    def started() -> RevivedMixing:
        made = Reviving(settings, 1, lambda words: None).start(folder, max_len=MAX_LEN, seed=0)
        assert isinstance(made, RevivedMixing)
        made.load_weights(weights(), 1)
        return made

    shown = [prompt.tokens for prompt in PROMPTS]
    student, teacher = started(), settings.start(folder, max_len=MAX_LEN, seed=0)
    want = student.engine.sample_mixed(teacher, shown, 0.5, PROMPTS, SAMPLING)
    other = Reviving(settings, 1, lambda words: None).start(folder, max_len=MAX_LEN, seed=0)
    assert student.sample_mixed(other, shown, 0.5, PROMPTS, SAMPLING) == want
    student.engine.sample_mixed = broken
    assert student.sample_mixed(other, shown, 0.5, PROMPTS, SAMPLING) == want


def broken(*_: object) -> Weights:
    """Instead of a method."""
    raise KeyError("broken")


def test_a_run_whose_engine_fails_now_and_then_ends_as_any_other(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, frail = tmp_path / "whole", tmp_path / "frail"
    assert cli_code(["train", f"conf={config}", f"run={whole}", "steps=3", "-q"]) == 0
    del FRAIL[:]
    capsys.readouterr()
    target = "rollout._target_=tests.fakes.FrailHf"
    assert cli_code(["train", f"conf={config}", f"run={frail}", "steps=3", "-q", target]) == 0
    assert FRAIL.count("start") == 3
    assert capsys.readouterr().err.count("the engine is started again") == 2
    assert learned(whole) == learned(frail)
    assert len(read_metrics(frail / "metrics.jsonl")) == 4


class Full:
    """An engine that is refused memory."""

    def sample(self, prompts: object, sampling: object) -> Any:
        raise MemoryError


def test_an_engine_that_is_short_of_memory_is_not_started_again_as_another_would_want_as_much() -> None:
    starts: list[int] = []
    told: list[str] = []
    engine = Revived(Full(), lambda: starts.append(1) or Full(), 3, told.append)
    with pytest.raises(MemoryError):
        engine.sample(PROMPTS, SAMPLING)
    assert not starts
    assert not told
