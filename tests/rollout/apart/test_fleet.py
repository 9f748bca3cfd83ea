"""Engines in processes of their own write, score and take weights as one in this process does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from opd.rollout.apart import kept
from opd.rollout.apart.fleet import Engines, Fleet, dealt, evenly
from opd.rollout.apart.process import born_with
from opd.rollout.hf import Hf
from opd.types import Example, Prompt, Rollout, RunError, Sampling, UserError
from opd.writing import Sampler
from tests.rollout.apart.engines import Hoarder, Moody
from tests.rollout.apart.moods import ODD, RUN, USER
from tests.rollout.test_engines import MAX_LEN, MODELS, TOLERANCE, gap, make_engine, make_model

PROMPTS = [Prompt(Example(str(i), ()), tuple(3 + (i * 7 + j) % 30 for j in range(2 + i % 4))) for i in range(5)]
SAMPLING = Sampling(max_tokens=12, n=3, seed=4, stop=(1,))
ENGINE = Hoarder(dtype="float32", device="cpu", batch_size=8, score_tokens=64)


@dataclass(frozen=True)
class Pair:
    """Two engines apart, and one here, of the same model."""

    fleet: Fleet
    here: Sampler
    name: str


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for name in MODELS:
        make_model(name, 0).save_pretrained(root / name)
    return {name: root / name for name in MODELS}


@pytest.fixture(scope="module", params=list(MODELS))
def pair(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[Pair]:
    model = str(folders[request.param])
    fleet = Engines(ENGINE, count=2, timeout=300, restarts=0).start(model, max_len=MAX_LEN, seed=0)
    here = Hf(dtype="float32", device="cpu", batch_size=8).start(model, max_len=MAX_LEN, seed=0)
    yield Pair(fleet, here, request.param)
    fleet.close()


def same(ours: list[Rollout], theirs: list[Rollout]) -> bool:
    """Whether rollouts are the same but for the last bits of their log-probs, and of the same prompts."""
    return all(
        replace(a, logprobs=()) == replace(b, logprobs=())
        and a.prompt is b.prompt
        and a.logprobs == pytest.approx(b.logprobs, abs=TOLERANCE)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_an_engine_of_a_rank_is_not_told_that_there_are_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = {"RANK": "0", "WORLD_SIZE": "2", "OPD_STORE": "file:///store", "OMP_NUM_THREADS": "3"}
    for name, value in rank.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    before = dict(os.environ)
    with born_with({"OMP_NUM_THREADS": "1"}):
        assert {name: os.environ[name] for name in rank.keys() & os.environ.keys()} == {"OMP_NUM_THREADS": "1"}
        assert {name: value for name, value in before.items() if name not in rank}.items() <= os.environ.items()
    assert dict(os.environ) == before


def test_two_engines_write_what_one_in_this_process_writes(pair: Pair) -> None:
    expected = pair.here.sample(PROMPTS, SAMPLING)
    assert same(pair.fleet.sample(PROMPTS, SAMPLING), expected)
    assert len({r.tokens for r in expected}) > 5


def test_a_part_of_a_call_is_written_as_in_the_whole(pair: Pair) -> None:
    whole = pair.here.sample(PROMPTS, SAMPLING)
    owners = [p for p in PROMPTS for _ in range(SAMPLING.n)]
    part = (1, 4, 7, 14)
    drawn = pair.fleet.sample([owners[i] for i in part], replace(SAMPLING, n=1, places=part))
    assert same(drawn, [whole[i] for i in part])


def test_completions_come_with_their_places_and_are_the_whole_together(pair: Pair) -> None:
    done = dict(pair.fleet.stream(PROMPTS, SAMPLING))
    assert same([done[i] for i in range(15)], pair.here.sample(PROMPTS, SAMPLING))


def test_a_call_that_is_given_up_does_not_answer_the_next(pair: Pair) -> None:
    written = pair.fleet.stream(PROMPTS, SAMPLING)
    next(written)
    written.close()
    other = replace(SAMPLING, seed=9)
    assert same(pair.fleet.sample(PROMPTS, other), pair.here.sample(PROMPTS, other))


def test_fewer_requests_than_engines_and_none_at_all(pair: Pair) -> None:
    one = replace(SAMPLING, n=1)
    assert same(pair.fleet.sample(PROMPTS[:1], one), pair.here.sample(PROMPTS[:1], one))
    assert pair.fleet.sample([], one) == []
    assert pair.fleet.logprobs([]) == []


def test_scores_come_back_in_order(pair: Pair) -> None:
    pairs = [(p.tokens, tuple(range(2, 2 + i * 3))) for i, p in enumerate(PROMPTS)]
    for ours, theirs in zip(pair.fleet.logprobs(pairs), pair.here.logprobs(pairs), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_pushed_weights_are_the_learners_with_buckets_smaller_than_a_tensor(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "BUCKET", 10_000)
    models = [make_model(pair.name, seed) for seed in (1, 2, 3, 0)]
    for version, model in enumerate(models, 1):
        mine = model.state_dict()
        pair.fleet.load_weights(mine.items(), version)
        drawn = pair.fleet.sample(PROMPTS, SAMPLING)
        assert {r.version for r in drawn} == {version}
        assert gap(model, [r for r in drawn if r.tokens]) < TOLERANCE
    pair.fleet.load_weights(models[-1].state_dict().items(), 0)


def test_weights_are_copied_when_they_are_staged_and_used_when_that_is_asked_for(pair: Pair) -> None:
    model = make_model(pair.name, 5)
    load = pair.fleet.stage(model.state_dict().items(), 7)
    before = pair.fleet.sample(PROMPTS, SAMPLING)
    assert same(before, pair.here.sample(PROMPTS, SAMPLING))
    other = make_model(pair.name, 5)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    load()
    drawn = pair.fleet.sample(PROMPTS, SAMPLING)
    assert gap(other, [r for r in drawn if r.tokens]) < TOLERANCE
    pair.fleet.load_weights(make_model(pair.name, 0).state_dict().items(), 0)


def test_weights_that_are_staged_while_an_engine_takes_others_do_not_reach_it(pair: Pair) -> None:
    # The engine holds on to all that it is handed until the last is there: nothing may be written over it.
    first, second = (make_model(pair.name, seed) for seed in (6, 7))
    load = pair.fleet.stage(first.state_dict().items(), 1)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        time.sleep(0.1)
        later = pair.fleet.stage(second.state_dict().items(), 2)
        assert not loading.done()
    drawn = [r for r in pair.fleet.sample(PROMPTS, SAMPLING) if r.tokens]
    assert gap(first, drawn) < TOLERANCE
    assert gap(second, drawn) > 1
    later()
    pair.fleet.load_weights(make_model(pair.name, 0).state_dict().items(), 0)


def test_an_engine_leaves_signals_to_its_parent(pair: Pair) -> None:
    before = pair.fleet.pids
    for pid in before:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    assert same(pair.fleet.sample(PROMPTS, SAMPLING), pair.here.sample(PROMPTS, SAMPLING))
    assert pair.fleet.pids == before


def test_weights_that_are_too_few_are_refused_in_words(pair: Pair) -> None:
    model = make_model(pair.name, 0)
    with pytest.raises(RunError, match="weights were pushed into a model of"):
        pair.fleet.load_weights(list(model.state_dict().items())[:3], 1)
    pair.fleet.load_weights(model.state_dict().items(), 0)
    assert same(pair.fleet.sample(PROMPTS, SAMPLING), pair.here.sample(PROMPTS, SAMPLING))


@pytest.mark.parametrize(("token", "error", "words"), [(ODD, RunError, "KeyError: 'odd'"), (RUN, RunError, "run"),
                                                       (USER, UserError, "user")])  # fmt: skip
def test_errors_come_back_as_themselves_or_in_words(
    token: int, error: type[Exception], words: str, moody: Fleet
) -> None:
    odd = Prompt(Example("odd", ()), (token,))
    with pytest.raises(error, match=words) as caught:
        moody.sample([*PROMPTS, odd], replace(SAMPLING, n=1))
    assert type(caught.value) is error
    raised = caught.value if error is UserError else caught.value.__cause__
    assert raised is not None
    assert "moods.py" in raised.__notes__[0]  # where
    assert len(moody.sample(PROMPTS, SAMPLING)) == 15


@pytest.fixture(scope="module")
def moody(folders: dict[str, Path]) -> Iterator[Fleet]:
    fleet = Engines(Moody(dtype="float32", device="cpu"), 1, timeout=300, restarts=0).start(
        str(folders["tied"]), max_len=MAX_LEN, seed=0
    )
    yield fleet
    fleet.close()


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no causal language model could be loaded"):
        Engines(ENGINE, 2).start(str(tmp_path), max_len=MAX_LEN, seed=0)


def test_requests_are_dealt_in_runs_and_sequences_by_length() -> None:
    assert dealt(5, 2) == [range(2), range(2, 5)]
    assert [len(part) for part in dealt(1, 3)] == [0, 0, 1]
    parts = evenly([9, 1, 8, 2, 7, 3], 2)
    assert sorted(place for part in parts for place in part) == list(range(6))
    assert {sum([9, 1, 8, 2, 7, 3][i] for i in part) for part in parts} == {15}


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS))
def test_vllm_apart_takes_the_learners_weights(name: str, folders: dict[str, Path]) -> None:
    fleet = Engines(make_engine("vllm"), 1, timeout=300).start(str(folders[name]), max_len=MAX_LEN, seed=0)
    try:
        for version in (1, 2):
            model: Any = make_model(name, version)
            fleet.load_weights(model.state_dict().items(), version)
            drawn = fleet.sample(PROMPTS, SAMPLING)
            assert gap(model, [r for r in drawn if r.tokens]) < TOLERANCE
            scores = fleet.logprobs([(r.prompt.tokens, r.tokens) for r in drawn])
            for rollout, row in zip(drawn, scores, strict=True):
                assert row == pytest.approx(rollout.logprobs, abs=TOLERANCE)
    finally:
        fleet.close()
