"""A judge that is elsewhere begins early, and says what it would have said in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from opd.devices.team import Solo
from opd.early import Early
from opd.judges import scored_by
from opd.needs import Needs
from opd.sources.student import StudentSource
from opd.stream import in_order, stream
from opd.teachers.client import Client
from opd.teaching import Scorer
from opd.types import Judgement, Prompt, Rollout, RunError, Sampling, TokenPair, Weights
from opd.writing import Desk
from tests.sources.desks import make_desk, tables
from tests.tiny import char_tokenizer, rollouts

NEEDS = Needs(logprobs=True)
SHAPES = [(3, 5), (1, 1), (4, 0), (2, 9)]


class Counting(Scorer):
    """Says the sum of a completion's ids; notes what it was asked in which thread."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[tuple[list[tuple[int, ...]], Needs, bool]] = []
        self.fails, self.may = fails, threading.Event()
        self.may.set()

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        assert self.may.wait(10)
        main = threading.current_thread() is threading.main_thread()
        self.calls.append(([r.tokens for r in rollouts], needs, main))
        if self.fails:
            raise RunError("the server is gone")
        return [Judgement(torch.full((len(r.tokens),), -float(sum(r.tokens)) - needs.top_k)) for r in rollouts]


def said(judged: Sequence[Judgement]) -> list[list[float]]:
    return [j.logprobs.tolist() for j in judged]


@pytest.fixture
def scorer() -> Counting:
    return Counting()


def score(early: Early, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
    """What one learner gets of its judge."""
    return scored_by(early._scorer, rollouts, needs, Solo(), begun=early.begun(rollouts, needs))


def wait(scorer: Counting, calls: int) -> None:
    deadline = time.monotonic() + 10
    while len(scorer.calls) < calls:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_was_begun_is_not_asked_for_again_and_the_rest_is(scorer: Counting) -> None:
    written = rollouts(SHAPES)
    early = Early(scorer, NEEDS)
    early.finished(written[1])
    wait(scorer, 1)
    early.finished(written[3])
    assert said(score(early, written, NEEDS)) == said(Counting().score(written, NEEDS))
    asked = [tokens for tokens, _, main in scorer.calls if not main for tokens in tokens]
    late = [tokens for tokens, _, main in scorer.calls if main for tokens in tokens]
    assert asked == [written[1].tokens, written[3].tokens]
    assert late == [written[0].tokens, written[2].tokens]
    early.close()


def test_what_comes_together_while_it_is_busy_is_sent_together(scorer: Counting) -> None:
    written = rollouts(SHAPES)
    early = Early(scorer, NEEDS)
    scorer.may.clear()
    for rollout in written:
        early.finished(rollout)
    scorer.may.set()
    score(early, written, NEEDS)
    assert len(scorer.calls) <= 2
    early.close()


def test_the_same_completion_of_the_same_prompt_is_judged_once_and_given_twice(scorer: Counting) -> None:
    (one, *_) = rollouts(SHAPES)
    twin = Rollout(one.prompt, one.tokens, one.logprobs, one.truncated, origin="another part")
    early = Early(scorer, NEEDS)
    for rollout in (one, twin):
        early.finished(rollout)
    a, b = said(score(early, [twin, one], NEEDS))
    assert a == b
    assert sum(len(tokens) for tokens, _, _ in scorer.calls) == 1
    early.close()


def test_something_else_is_asked_for_in_the_end(scorer: Counting) -> None:
    written = rollouts(SHAPES)
    early = Early(scorer, NEEDS)
    for rollout in written:
        early.finished(rollout)
    more = Needs(logprobs=True, top_k=3)
    assert said(score(early, written, more)) == said(Counting().score(written, more))
    assert said(score(early, written, NEEDS)) == said(Counting().score(written, NEEDS))
    early.close()


def test_its_error_reaches_whoever_asks() -> None:
    written = rollouts(SHAPES)
    early = Early(Counting(fails=True), NEEDS)
    early.finished(written[0])
    with pytest.raises(RunError, match="the server is gone"):
        score(early, written[:1], NEEDS)
    early.close()


class Short(Counting):
    """Leaves the last one out."""

    def score(self, rollouts: Sequence[Rollout], needs: Needs) -> list[Judgement]:
        return super().score(rollouts, needs)[:-1]


def test_a_scorer_that_leaves_something_out_is_an_error_and_nobody_waits() -> None:
    written = rollouts(SHAPES)
    scorer = Short()
    early = Early(scorer, NEEDS)
    scorer.may.clear()
    for rollout in written[:2]:
        early.finished(rollout)
    scorer.may.set()
    for rollout in written[:2]:
        with pytest.raises(ValueError, match="shorter"):
            score(early, [rollout], NEEDS)
    early.close()


def test_closing_ends_its_thread(scorer: Counting) -> None:
    before = set(threading.enumerate())
    early = Early(scorer, NEEDS)
    (thread,) = set(threading.enumerate()) - before
    early.close()
    thread.join(10)
    assert not thread.is_alive()


class Engine:
    """Finishes short completions first, and waits with the last until the others are judged."""

    def __init__(self, written: Sequence[Rollout], scorer: Counting) -> None:
        self.written, self.scorer = written, scorer

    def stream(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Rollout]]:
        *first, last = sorted(enumerate(self.written), key=lambda item: len(item[1].tokens))
        yield from first
        deadline = time.monotonic() + 10
        while sum(len(tokens) for tokens, _, _ in self.scorer.calls) < len(first):
            assert time.monotonic() < deadline, "nothing is judged while the engine writes"
            time.sleep(0.005)
        yield last

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        return in_order(self.stream(prompts, sampling))

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        raise AssertionError

    def load_weights(self, weights: Weights, version: int) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


def test_the_students_samples_are_judged_while_others_are_written_and_stay_in_order(scorer: Counting) -> None:
    written = rollouts(SHAPES)
    early = Early(scorer, NEEDS)
    engine = Engine(written, scorer)
    desk = Desk(engine, lambda: engine, lambda prompts: [], char_tokenizer(), lambda e: None, finished=early.finished)
    drawn = StudentSource().start(desk).sample([r.prompt for r in written], Sampling(max_tokens=9))
    assert drawn == written
    assert said(score(early, drawn, NEEDS)) == said(Counting().score(written, NEEDS))
    early.close()


def test_what_a_trial_writes_is_not_sent_to_be_judged() -> None:
    told: list[Rollout] = []
    desk = replace(make_desk(tables()[0]), finished=told.append)
    prompts = [r.prompt for r in rollouts(SHAPES)]
    for trial in (Sampling(max_tokens=9), None):
        assert told == []
        StudentSource().start(desk).sample(prompts, Sampling(max_tokens=2, trial=trial))
    assert len(told) == len(prompts)


class Whole(Engine):
    """An engine that cannot say what it has finished."""

    stream = None

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        return list(self.written)


def test_of_an_engine_that_cannot_tell_all_come_in_the_end(scorer: Counting) -> None:
    written = rollouts(SHAPES)
    assert list(stream(Whole(written, scorer), [], Sampling(max_tokens=9))) == list(enumerate(written))


def test_hanging_up_ends_another_threads_wait_for_a_server_that_is_away() -> None:
    client = Client("http://127.0.0.1:9", patience=600.0)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            client.post("/v1/completions", [{}], lambda _, answer: answer)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    time.sleep(0.3)
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert ended
