"""Prompts are drawn by how the student last did on them; the plain source at the limit, and the same again by seed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from opd.config.compose import load
from opd.run.resuming import restore_judges
from opd.sources.curriculum import Curriculum, CurriculumWriter, frontier, pick, weigh
from opd.sources.mixed import Mixed
from opd.sources.multi_turn import MultiTurn
from opd.sources.student import StudentSource
from opd.types import Example, Judgement, Rollout, Sampling, Scored, Split, UserError
from opd.writing import Desk
from tests.sources.desks import STOP, Talkative, make_desk, tables
from tests.sources.test_filtered import Parity, parity
from tests.sources.test_redraws import MANY, another
from tests.sources.test_runs import QUICK, learned
from tests.tiny import cli_code

SAMPLING = Sampling(max_tokens=6, n=2, stop=(STOP,), seed=3)
ASKED = MANY[:12]
TASK = "data.tasks={few: {_target_: tests.sources.test_curriculum.Few}}"
FEW = [TASK, "data.weights={few: 1}", "data.prompts_per_step=6"]


class Few(Parity):
    """Eight prompts that come again and again."""

    def examples(self, split: Split) -> Sequence[Example]:
        return super().examples(split)[:8]


def desk() -> Desk:
    return replace(make_desk(tables()[0]), task=parity, another=another)


def started(settings: Curriculum) -> CurriculumWriter:
    writer = settings.start(desk())
    assert isinstance(writer, CurriculumWriter)
    return writer


def judged(rollouts: list[Rollout], rewards: dict[str, float | None]) -> list[Scored]:
    return [
        Scored(r, Judgement(torch.tensor(r.logprobs) - 0.5), reward=rewards.get(r.prompt.example.id)) for r in rollouts
    ]


def unknown(rollout: Rollout, writer: str) -> Rollout:
    """The same, written by another, of whom there is no log mu."""
    return replace(rollout, writers=(writer,), logprobs=(float("nan"),) * len(rollout.tokens))


def test_weights_are_the_formula() -> None:
    grid = np.linspace(0, 1, 101)
    for alpha, beta in itertools.product((0.0, 0.5, 1.0, 3.0), repeat=2):
        plain = grid**alpha * (1 - grid) ** beta
        top = alpha / (alpha + beta) if alpha + beta else 0.5
        plain /= top**alpha * (1 - top) ** beta
        assert [frontier(float(p), alpha, beta) for p in grid] == pytest.approx(plain.tolist(), rel=1e-12)
        assert max(plain) <= 1 + 1e-12
    even = weigh(Curriculum(alpha=0, beta=0), [0.0, 0.3, 1.0, None], [])
    assert even == [1.0] * 4
    assert weigh(Curriculum(), [0.0, 0.25, 0.5, 1.0, None, 7.0], []) == [0.05, 0.75, 1.0, 0.05, 1.0, 0.05]
    known = [0.1, 0.3, -0.4, 0.8]  # sampled KLs may be below 0
    found = weigh(Curriculum(by="kl", alpha=2), [*known, None], known)
    assert found == pytest.approx([(0.1 / 0.3) ** 2, 1.0, 0.05, (0.8 / 0.3) ** 2, 1.0])
    assert weigh(Curriculum(by="kl"), [None, 0.0], [0.0]) == [1.0, 1.0]


def test_a_place_is_picked_in_proportion_to_its_weight() -> None:
    weights, draws = [0.2, 0.0, 1.0, 0.8], 4000
    counts = Counter(pick(weights, seed) for seed in range(draws))
    assert counts[1] == 0
    for place, weight in enumerate(weights):
        assert counts[place] / draws == pytest.approx(weight / 2, abs=4 * np.sqrt(0.25 / draws))
    assert pick([0.3], 5) == 0


def test_of_few_candidates_the_chance_is_that_of_all_draws_of_them() -> None:
    good, bad = MANY[:2]
    two = replace(desk(), another=lambda prompt, seed: (good, bad)[seed % 2])
    writer = Curriculum(candidates=3).start(two)
    assert isinstance(writer, CurriculumWriter)
    writer.known.update({good.example.id: 0.5, bad.example.id: 0.0})
    weights, chance = {0: 1.0, 1: 0.05}, 0.0
    for own, *others in itertools.product((0, 1), repeat=3):
        among = [own, *others]
        chance += sum(weights[k] for k in among if k == 0) / sum(weights[k] for k in among) / 8
    drawn = writer.sample([good, bad] * 1500, replace(SAMPLING, n=1, max_tokens=1))
    share = sum(r.prompt is good for r in drawn) / len(drawn)
    assert share == pytest.approx(chance, abs=4 * np.sqrt(0.25 / len(drawn)))


def test_with_one_candidate_it_is_the_source_alone_and_with_all_alike_a_shuffle() -> None:
    plain = StudentSource().start(desk()).sample(ASKED, SAMPLING)
    writer = started(Curriculum(candidates=1))
    writer.known.update({p.example.id: 0.0 for p in ASKED[::2]})
    assert writer.sample(ASKED, SAMPLING) == plain
    others = started(Curriculum()).sample(ASKED, SAMPLING)
    assert others == started(Curriculum()).sample(ASKED, SAMPLING) != plain
    assert [r.prompt.example.task for r in others] == [r.prompt.example.task for r in plain]


def test_it_follows_what_the_student_did_last_and_only_the_student() -> None:
    writer = started(Curriculum())
    drawn = StudentSource().start(desk()).sample(ASKED[:3], SAMPLING)
    names = [p.example.id for p in ASKED[:3]]
    pairs = judged(drawn, {names[0]: 1.0, names[1]: 0.0})
    pairs[0] = replace(pairs[0], reward=0.0)
    assert writer.told(pairs) == {"rollout/known": 2.0, "rollout/seen": 0.0}
    assert writer.known == {names[0]: 0.5, names[1]: 0.0}  # of the third nothing is known
    later = judged(drawn, {names[0]: 1.0, names[2]: 1.0})
    assert writer.told(later) == {"rollout/known": 3.0, "rollout/seen": pytest.approx(2 / 3)}
    assert writer.known == {names[0]: 1.0, names[1]: 0.0, names[2]: 1.0}
    theirs = [replace(s, rollout=unknown(s.rollout, "teacher"), reward=0.3) for s in later]
    assert writer.told(theirs)["rollout/seen"] == 0
    assert writer.known[names[0]] == 1.0
    kept = [replace(s, rollout=replace(s.rollout, writers=()), reward=0.3) for s in later if s.rollout.tokens]
    writer.told(kept)  # its own of an earlier time, which nobody writes now
    assert writer.known[kept[0].rollout.prompt.example.id] == pytest.approx(0.3)
    by_kl = started(Curriculum(by="kl"))
    by_kl.told(judged([r for r in drawn if r.tokens], {}))
    assert list(by_kl.known.values()) == pytest.approx([0.5] * len(by_kl.known), abs=1e-6)


def test_of_a_conversation_that_is_left_out_what_the_environment_said_does_not_count() -> None:
    told = replace(desk(), task=lambda example: Talkative())
    room = replace(SAMPLING, max_tokens=40)
    talked = [r for r in MultiTurn(3).start(told).sample(ASKED[:1], room) if not all(r.mask)]
    assert talked
    writer = started(Curriculum(source=MultiTurn(3), by="kl"))
    for kept in (True, False):  # the teacher finds the environment's words unheard of
        rollouts = [r if kept else replace(r, trained=(False,) * len(r.tokens)) for r in talked]
        words = [torch.where(torch.tensor(r.mask), torch.tensor(r.logprobs) - 0.5, -50.0) for r in talked]
        writer.told([Scored(r, Judgement(q)) for r, q in zip(rollouts, words, strict=True)])
        assert writer.known[ASKED[0].example.id] == pytest.approx(0.5, rel=1e-5)


def test_its_state_is_what_it_goes_on_from(tmp_path: Path) -> None:
    writer, other = started(Curriculum()), started(Curriculum())
    writer.known.update({"a/é": 1 / 3, "b": 0.0})
    other.known.update({"c": 1.0})
    other.load_state(writer.state())
    assert [*other.known.items()] == [*writer.known.items()]
    assert other.sample(ASKED, SAMPLING) == writer.sample(ASKED, SAMPLING)
    fresh = started(Curriculum())
    fresh.load_state(started(Curriculum()).state())
    assert fresh.known == {}
    empty = type("Checkpoint", (), {"path": tmp_path})()
    with pytest.raises(UserError, match=r"source\.0: .* the run began with another source\.0"):
        restore_judges(empty, {"source.0": writer})


def test_one_in_a_mixture_is_told_too() -> None:
    told = desk()
    Mixed(parts={"a": Curriculum(), "b": StudentSource()}, shares={"a": 1, "b": 1}).start(told)
    assert [type(f) for f in told.followers] == [CurriculumWriter]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["devices=apart", "devices.ahead=1"], "devices.ahead=1: source=curriculum takes prompts by"),
        (["sampling.horizon.first=4"], "and source=curriculum goes by rewards; allowed is null"),
        (["source.by=kl", "teacher=none", "objective=grpo"], "source=curriculum: it goes by the teacher's log-probs"),
        (["source.least=0"], "source.least=0"),
        (["source.source._target_=opd.sources.teacher.TeacherSource"], "the student writes none of it"),
    ],
)
def test_what_does_not_go_with_it_is_refused(config: Path, given: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        load(str(config), ["source=curriculum", *given])
    assert says in str(error.value)
    load(str(config), ["source=curriculum", "source.by=kl", "sampling.horizon.first=4"])


def test_a_run_with_one_candidate_is_the_plain_one_to_the_bit(config: Path, tmp_path: Path) -> None:
    plain, alone = tmp_path / "plain", tmp_path / "alone"
    common = ["train", f"conf={config}", "steps=2", *FEW, *QUICK]
    assert cli_code([*common, f"run={plain}"]) == 0
    assert cli_code([*common, f"run={alone}", "source=curriculum", "source.candidates=1"]) == 0
    own = {"rollout/known", "rollout/seen"}
    assert [{k: v for k, v in row.items() if k not in own} for row in learned(alone)] == learned(plain)


@pytest.mark.parametrize("by", ["reward", "kl"])
def test_a_run_that_follows_its_student_goes_on_exactly(by: str, config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = ["train", f"conf={config}", "source=curriculum", f"source.by={by}", *FEW, *QUICK]
    assert cli_code([*common, f"run={whole}", "steps=3", "checkpoint.every=1"]) == 0
    rows = learned(whole)
    assert rows[0]["rollout/seen"] == 0
    assert rows[2]["rollout/seen"] > 0
    assert rows[2]["rollout/known"] <= 8
    assert cli_code([*common, f"run={parts}", "steps=2"]) == 0
    assert cli_code(["train", "--resume", f"run={parts}", "-q", "steps=3"]) == 0
    assert learned(parts) == rows
    a, b = (load_file(r / "checkpoints/step_000003/model/model.safetensors") for r in (whole, parts))
    assert all(torch.equal(a[k], b[k]) for k in a)
