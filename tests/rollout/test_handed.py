"""An engine and a source that the first rank alone has: all ranks have their answers, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opd.devices.one import One
from opd.devices.ranks import Ranks
from opd.devices.team import Solo, Team
from opd.protocols import Devices
from opd.rollout.apart.ahead import Ahead
from opd.rollout.apart.followed import Followed, followed
from opd.rollout.apart.settings import Apart
from opd.rollout.drafts import InTurn
from opd.rollout.handed import engine_of_all, own, source_of_all
from opd.types import Prompt, Rollout, RunError, Sampling, TokenPair, UserError, Weights
from opd.writing import Giving, Sampler, Writer
from tests.rollout.apart.test_ahead import LAST, Recording, plan, run
from tests.rollout.crowd import crowd

RANKS = 3
PROMPTS, SAMPLING = plan(4)
writers = Apart(ranks=RANKS).writers


class Odd(Recording):
    """One whose completions have everything that a rollout can have."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        odd = {"origin": "odd", "writers": ("student", "teacher"), "trained": (True, False), "reward": 0.1}
        pi = (-0.5, -1 / 3)
        return [
            Rollout(p, (len(p.tokens), i), (-0.25, float("nan")), bool(i), 7, policy_logprobs=pi, **odd)
            for p in prompts
            for i in range(sampling.n)
        ]

    def logprobs(self, sequences: Sequence[TokenPair]) -> list[list[float]]:
        return [[-1 / 3] * len(completion) for _, completion in sequences]


class Failing(Recording):
    """One that nothing can be done with."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Rollout]:
        raise self.error

    def stage(self, weights: Weights, version: int) -> Callable[[], None]:
        next(iter(weights))
        raise self.error


def on_all(engine: Sampler, team: Team) -> Sampler:
    return engine_of_all(lambda _: engine, writers(team), team)


def gathered(team: Team, count: int = 4) -> Iterator[tuple[str, Any]]:
    """Weights of which every rank has a part: one that does not ask for all of them leaves the others waiting."""
    for number in range(count):
        yield f"w{number}", sum(team.gather(number))


def test_the_first_rank_starts_the_engine_and_nobody_else() -> None:
    started: list[Team] = []

    def work(team: Team) -> tuple[bool, int]:
        engine = engine_of_all(lambda alone: started.append(alone) or Recording(), writers(team), team)
        engine.close()
        return own(engine) is None, team.rank

    assert crowd(RANKS, work) == [(False, 0), (True, 1), (True, 2)]
    assert started == [Solo()]


@pytest.mark.parametrize("devices", [One(), Ranks(), Apart()])
def test_one_rank_and_ranks_with_engines_of_their_own_use_what_they_start(devices: Devices) -> None:
    engine, team = Recording(), Solo()
    assert engine_of_all(lambda _: engine, devices.writers(team), team) is engine
    assert source_of_all(lambda _: engine, devices.writers(team), team) is engine
    assert own(engine) is engine


def test_all_ranks_have_the_same_answers_with_prompts_of_their_own() -> None:
    engine, drawn = Odd(), replace(SAMPLING, n=2)
    pairs = [(p.tokens, (1, 2, 3)) for p in PROMPTS]

    def work(team: Team) -> tuple[list[Rollout], list[list[float]]]:
        mine = [Prompt(p.example, p.tokens) for p in PROMPTS]
        shared = on_all(engine, team)
        rollouts = shared.sample(mine, drawn)
        assert [id(r.prompt) for r in rollouts] == [id(p) for p in mine for _ in range(2)]
        assert shared.sample([], drawn) == []
        return rollouts, shared.logprobs(pairs)

    want = engine.sample(PROMPTS, drawn), engine.logprobs(pairs)
    assert [repr(found) for found in crowd(RANKS, work)] == [repr(want)] * RANKS


def test_every_rank_takes_its_part_of_the_weights_and_the_engine_gets_all() -> None:
    class Loaded(Recording):
        def load_weights(self, weights: Weights, version: int) -> None:
            self.version, self.got = version, dict(weights)

    engine = Loaded()
    assert crowd(RANKS, lambda team: on_all(engine, team).load_weights(gathered(team), 5)) == [None] * RANKS
    assert (engine.version, engine.got) == (5, {f"w{n}": RANKS * n for n in range(4)})


@pytest.mark.parametrize("error", [UserError("no such model"), RunError("it died twice"), KeyError("odd")])
@pytest.mark.parametrize("what", ["start", "source", "sample", "load", "push", "take", "settle", "state"])
def test_an_error_of_the_first_rank_is_raised_on_all_and_leaves_nobody_waiting(what: str, error: Exception) -> None:
    engine = Failing(error)

    def fail(_: Team) -> Any:
        raise error

    def work(team: Team) -> None:
        asking = writers(team)
        shared = on_all(engine, team)
        ahead = Ahead(engine, engine, plan, range(LAST), 1) if asking else None
        drafts = followed(ahead, plan, asking, team)
        todo: dict[str, Callable[[], object]] = {
            "start": lambda: engine_of_all(fail, asking, team),
            "source": lambda: source_of_all(fail, asking, team),
            "sample": lambda: shared.sample(PROMPTS, SAMPLING),
            "load": lambda: shared.load_weights(gathered(team), 1),
            "push": lambda: drafts.push(gathered(team), 1),
            "take": lambda: drafts.take(0),
            "settle": lambda: (_begin(drafts, ahead), drafts.settle()),
            "state": lambda: (_begin(drafts, ahead), drafts.state()),
        }
        try:
            todo[what]()
        finally:
            drafts.close()

    found = crowd(RANKS, work)
    assert all(str(error).strip("'") in str(e) for e in found), found
    if not isinstance(error, KeyError):
        assert {type(e) for e in found} == {type(error)}


def _begin(drafts: Any, ahead: Ahead | None) -> None:
    """Have something written that fails, and do not look."""
    if ahead is not None:
        ahead._written[1] = ahead._put(lambda: ahead._source.sample(*plan(1)))


def test_a_source_of_the_first_rank_writes_for_all_and_gives_what_the_data_has() -> None:
    class Data(Odd):
        def given(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Rollout]:
            return iter(self.sample(prompts, sampling))

    source = Data()

    def work(team: Team) -> tuple[str, int]:
        shared = source_of_all(lambda _: source, writers(team), team)
        assert isinstance(shared, Giving)
        return repr(shared.sample(PROMPTS, SAMPLING)), len(list(shared.given(PROMPTS, SAMPLING)))

    want = repr(source.sample(PROMPTS, SAMPLING))
    assert crowd(RANKS, work) == [(want, 2), (want, 0), (want, 0)]
    nothing = crowd(RANKS, lambda t: list(source_of_all(lambda _: Odd(), writers(t), t).given(PROMPTS, SAMPLING)))
    assert nothing == [[]] * RANKS


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_all_ranks_learn_from_what_the_first_one_has_written_ahead(ahead: int) -> None:
    engine = Recording()

    def work(team: Team) -> tuple[list[int], bool]:
        asking = writers(team)
        drafts = followed(Ahead(engine, engine, plan, range(LAST), ahead) if asking else None, plan, asking, team)
        found = run(drafts), drafts.stale
        drafts.close()
        return found

    assert crowd(RANKS, work) == [([max(0, step - ahead) for step in range(LAST)], True)] * RANKS


def test_one_rank_follows_nobody() -> None:
    engine, team = Recording(), Solo()
    ahead = Ahead(engine, engine, plan, range(LAST), 1)
    assert followed(ahead, plan, writers(team), team) is ahead
    ahead.close()


def test_what_was_written_ahead_goes_into_the_checkpoint_of_the_first_rank_and_is_gone_on_with(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    def begun(team: Team, first: int) -> Followed:
        asking, engine = writers(team), Recording()
        engine.version = first
        ahead = Ahead(engine, engine, plan, range(first, LAST), 2) if asking else None
        drafts = followed(ahead, plan, asking, team)
        assert isinstance(drafts, Followed)
        return drafts

    def before(team: Team) -> int:
        drafts = begun(team, 0)
        run(drafts, last=3)
        state = drafts.state()
        if team.rank == 0:
            save_file(state, tmp_path / "ahead.safetensors")
        drafts.close()
        return len(state)

    def after(team: Team) -> tuple[str, list[int], str]:
        drafts = begun(team, 3)
        said = drafts.restore(tmp_path)
        versions = run(drafts, first=3)
        drafts.close()
        lost = begun(team, 3)
        note = lost.restore(tmp_path / "nothing")
        lost.close()
        return said, versions, note

    sizes = crowd(RANKS, before)
    assert (sizes[0] > 0, *sizes[1:]) == (True, 0, 0)
    for said, versions, note in crowd(RANKS, after):
        assert (said, versions) == ("", [1, 2, 3])
        assert "step 4, 5 are not in the checkpoint" in note


def test_in_turn_all_ranks_learn_from_what_the_newest_weights_wrote() -> None:
    engine = Recording()

    def work(team: Team) -> list[int]:
        source: Writer = source_of_all(lambda _: engine, writers(team), team)
        return run(InTurn(source, on_all(engine, team), plan))

    assert crowd(RANKS, work) == [list(range(LAST))] * RANKS
