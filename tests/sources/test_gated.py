"""The teacher is asked first, once a prompt; what it cannot answer trains nothing, or gives its place to another."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from opd.config.compose import load
from opd.devices.team import Team
from opd.plan.crew import crew_of
from opd.rollout.dealt import dealt
from opd.sources.filtered import Filtered
from opd.sources.gated import FILE, Gated, GatedWriter
from opd.sources.mixed import Mixed
from opd.sources.student import StudentSource
from opd.text.chat import decode
from opd.types import Pretrained, Prompt, Repetition, Rollout, Sampling, UserError
from opd.writing import Desk
from tests.rollout.crowd import crowd
from tests.sources.desks import STOP, TableEngine, make_desk, tables
from tests.sources.test_filtered import Parity, Silent, parity
from tests.sources.test_redraws import MANY, another
from tests.sources.test_runs import QUICK, learned
from tests.tiny import cli_code

SAMPLING = Sampling(max_tokens=6, n=2, stop=(STOP,), seed=3)
BESIDE = Sampling(max_tokens=9, stop=(STOP,), seed=11)
ASKED = MANY[:12]
PARITY = "data.tasks.arithmetic._target_=tests.sources.test_filtered.Parity"


def desk(folder: Path | None = None) -> tuple[Desk, TableEngine]:
    student, teacher = tables()
    made = make_desk(student, teacher)
    return replace(made, task=parity, another=another, sampling=BESIDE, folder=folder), teacher


def started(gate: Gated, folder: Path | None = None) -> tuple[GatedWriter, TableEngine]:
    made, teacher = desk(folder)
    writer = gate.start(made)
    assert isinstance(writer, GatedWriter)
    return writer, teacher


def bare(rollouts: list[Rollout]) -> list[Rollout]:
    return [replace(r, beside=(), trained=None) for r in rollouts]


def test_a_prompt_is_trained_where_the_mean_reward_of_the_teachers_samples_is_enough() -> None:
    writer, teacher = started(Gated())
    plain = StudentSource().start(writer.desk).sample(ASKED, SAMPLING)
    made = writer.sample(ASKED, SAMPLING)
    assert bare(made) == plain
    assert len(teacher.shown) == 3 * len(ASKED)
    closed = 0
    for i, prompt in enumerate(ASKED):
        group = made[2 * i : 2 * i + 2]
        texts = [decode(writer.desk.tokenizer, r.tokens) for r in probes(writer, i)]
        q = np.mean([Parity().verify(prompt.example, text) for text in texts])
        assert all(any(r.mask) == (q >= 0.6) for r in group if r.tokens)
        assert group[0].beside == tuple(("teacher", len(prompt.tokens), len(r.tokens)) for r in probes(writer, i))
        assert group[1].beside == ()
        closed += q < 0.6
    assert 0 < closed < len(ASKED)
    always = started(Gated(least=0))[0].sample(ASKED, SAMPLING)
    assert [replace(r, beside=()) for r in always] == plain


def probes(writer: GatedWriter, i: int) -> list[Rollout]:
    """The teacher's samples of a prompt, asked for alone."""
    fresh = started(writer.settings)[0]
    return fresh._ask([ASKED[i]])[1][0]


def test_a_prompt_is_asked_about_once_whatever_else_is_asked() -> None:
    writer, teacher = started(Gated())
    writer.sample(ASKED, SAMPLING)
    before = dict(writer.found.values)
    again = writer.sample([ASKED[3], ASKED[0], ASKED[3]], replace(SAMPLING, seed=8, max_tokens=2))
    assert len(teacher.shown) == 3 * len(ASKED)
    assert not any(r.beside for r in again)
    other, asked = started(Gated())
    twice = other.sample([ASKED[5], MANY[20], ASKED[5], ASKED[1]], replace(SAMPLING, seed=9, max_tokens=4))
    assert len(asked.shown) == 3 * 3
    assert [len(r.beside) for r in twice] == [3, 0, 3, 0, 0, 0, 3, 0]
    shared = before.keys() & other.found.values.keys()
    assert len(shared) == 2
    assert all(before[key] == other.found.values[key] for key in shared)


def test_others_are_tried_in_the_place_of_what_the_teacher_cannot_answer() -> None:
    plain = started(Gated())[0].sample(ASKED, SAMPLING)
    writer, teacher = started(Gated(redraws=40))
    made = writer.sample(ASKED, SAMPLING)
    assert all(any(r.mask) for r in made if r.tokens)
    assert sum(r.tries for r in made) > 0
    for before, after in zip(plain, made, strict=True):
        assert (after.tries == 0) == (before.prompt is after.prompt and any(before.mask) == any(after.mask))
    assert len(teacher.shown) == sum(len(r.beside) for r in made)
    assert made == started(Gated(redraws=40))[0].sample(ASKED, SAMPLING)
    inside = Filtered(source=Gated(redraws=40), redraws=5).start(desk()[0]).sample(ASKED, SAMPLING)
    known = [r.prompt for r in inside if writer._key(r.prompt, r.prompt) in writer.found.values]
    assert known
    assert all(writer._ask(known)[0])


def test_a_trial_asks_briefly_and_leaves_nothing_behind(tmp_path: Path) -> None:
    whole = started(Gated(redraws=3))[0].sample(ASKED, SAMPLING)
    writer, teacher = started(Gated(redraws=3), tmp_path / "no run yet")
    for made in (writer, Mixed(parts={"a": Gated()}, shares={"a": 1}).start(desk(tmp_path)[0])):
        made.sample(ASKED[:4], replace(SAMPLING, n=1, max_tokens=2, trial=SAMPLING))
        assert not list(tmp_path.iterdir())
    asked = len(teacher.shown)
    assert asked >= 3 * 4
    assert replace(writer, desk=desk()[0]).sample(ASKED, SAMPLING) == whole  # all of its questions are yet to be paid


def test_what_was_found_stays_in_the_runs_folder(tmp_path: Path) -> None:
    writer, _ = started(Gated(), tmp_path)
    whole = writer.sample(ASKED, SAMPLING)
    lines = (tmp_path / FILE).read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [p.example.id for p in ASKED]
    with (tmp_path / FILE).open("ab") as file:
        known = json.loads(lines[0])["key"].encode()
        file.write(b'5\n{"key": "k"}\n\xff\n{"key": "%s", "value": null}\n{"key": "torn' % known)
    resumed, teacher = started(Gated(), tmp_path)
    assert [replace(r, beside=()) for r in resumed.sample(ASKED, SAMPLING)] == [replace(r, beside=()) for r in whole]
    assert teacher.shown == []
    resumed.sample(MANY[12:13], SAMPLING)  # written after the torn line
    again, teacher = started(Gated(), tmp_path)
    again.sample(MANY[:13], SAMPLING)
    assert teacher.shown == []
    made, teacher = desk(tmp_path)
    Gated().start(replace(made, teacher_model=lambda: Pretrained(str(tmp_path)))).sample(ASKED, SAMPLING)
    assert len(teacher.shown) == 3 * len(ASKED)  # what another teacher solves says nothing of this one
    other, teacher = started(Gated(samples=2), tmp_path)  # another question
    other.sample(ASKED, SAMPLING)
    assert len(teacher.shown) == 2 * len(ASKED)


def test_confidence_is_the_mean_of_the_samples_geometric_means() -> None:
    writer, _ = started(Gated(by="confidence", least=0.05, samples=4))
    _, asked = writer._ask(ASKED)
    for prompt, samples in zip(ASKED, asked, strict=True):
        plain = np.mean([np.exp(np.mean(r.logprobs)) for r in samples])
        assert writer.found.values[writer._key(prompt, prompt)] == pytest.approx(plain, rel=1e-12)
    assert not Gated(by="confidence").verifies


def test_a_gate_that_cannot_be_is_refused(config: Path) -> None:
    silent = replace(desk()[0], task=lambda example: Silent())
    with pytest.raises(UserError, match=r"source=gated goes by rewards; .*, or source\.by=confidence"):
        Gated().start(silent).sample(ASKED, SAMPLING)
    Gated(by="confidence").start(silent).sample(ASKED, SAMPLING)
    with pytest.raises(ValueError, match=r"source=filtered: it takes prompts that the teacher would not be asked"):
        Gated(source=Filtered(redraws=1))
    load(str(config), ["source=gated", "sampling.horizon.first=4"])  # the teacher's samples are whole
    with pytest.raises(UserError, match=r"devices.ahead=1: source=gated"):
        load(str(config), ["source=gated", "source.redraws=1", "devices=apart", "devices.ahead=1"])


def test_a_gated_run_counts_what_it_asks_and_goes_on_exactly(config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = ["train", f"conf={config}", "source=gated", "source.redraws=1", PARITY, *QUICK]
    assert cli_code([*common, f"run={whole}", "steps=2", "checkpoint.every=1"]) == 0
    rows = learned(whole)
    assert all(row["rollout/beside"] > 0 for row in rows)
    assert sum(row.get("rollout/redrawn", 0) for row in rows) > 0
    assert rows[0]["rollout/beside"] == 3 * (8 + 8 * rows[0]["rollout/redrawn"])  # preflight has asked nothing of it
    assert rows[0]["cost/generate_flops_teacher"] > 0
    known = [json.loads(line) for line in (whole / FILE).read_text().splitlines()]
    assert len({row["key"] for row in known}) == len(known)
    assert cli_code([*common, f"run={parts}", "steps=1"]) == 0
    assert cli_code(["train", "--resume", f"run={parts}", "-q", "steps=2"]) == 0
    assert learned(parts) == rows
    assert [json.loads(line) for line in (parts / FILE).read_text().splitlines()] == known
    a, b = (load_file(r / "checkpoints/step_000002/model/model.safetensors") for r in (whole, parts))
    assert all(torch.equal(a[k], b[k]) for k in a)


def read_later(prompts: Sequence[Prompt]) -> list[Sequence[int]]:
    """A template of the teacher's that puts a word in front."""
    return [(7, *p.tokens) for p in prompts]


@dataclass(frozen=True)
class Strict(Parity):
    """The same task with another setting of its verifier."""

    strict: bool = False


OTHERS: dict[str, tuple[Callable[[Desk], Desk], Callable[[Prompt], Prompt]]] = {
    "nothing": (lambda d: replace(d, task=lambda example: Strict()), lambda p: p),
    "words that are in no token": (lambda d: d, lambda p: replace(p, example=replace(p.example, messages=()))),
    "tokens": (lambda d: d, lambda p: replace(p, tokens=(*p.tokens, 5))),
    "how the teacher reads": (lambda d: replace(d, read=read_later), lambda p: p),
    "the verifier": (lambda d: replace(d, task=lambda example: Strict(strict=True)), lambda p: p),
    "the answer": (lambda d: d, lambda p: replace(p, example=replace(p.example, answer="another"))),
    "further answers": (lambda d: d, lambda p: replace(p, example=replace(p.example, meta={"answers": ["12"]}))),
    "what ends a completion": (lambda d: replace(d, sampling=replace(BESIDE, stop=(STOP, 9))), lambda p: p),
    "what is a repetition": (lambda d: replace(d, sampling=replace(BESIDE, repetition=Repetition(4))), lambda p: p),
    "the room": (lambda d: replace(d, sampling=replace(BESIDE, max_tokens=8)), lambda p: p),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_was_found_is_of_all_that_it_depends_on(other: str, tmp_path: Path) -> None:
    made, first = desk(tmp_path)
    made = replace(made, task=lambda example: Strict())
    Gated().start(made).sample(ASKED[:1], SAMPLING)
    assert len(first.shown) == 3
    change, change_prompt = OTHERS[other]
    again, teacher = desk(tmp_path)
    resumed = Gated().start(change(replace(again, task=made.task)))
    resumed.sample([change_prompt(ASKED[0])], SAMPLING)
    assert len(teacher.shown) == (0 if other in ("nothing", "words that are in no token") else 3)


def test_a_resumed_run_whose_teacher_reads_otherwise_asks_it_again(config: Path, tmp_path: Path) -> None:
    run = f"run={tmp_path / 'run'}"
    common = ["train", f"conf={config}", "source=gated", "data.prompts_per_step=4", PARITY, *QUICK]
    assert cli_code([*common, "teacher.prompt=student", "data.tasks.arithmetic.size=4", run, "steps=1"]) == 0
    known = (tmp_path / "run" / FILE).read_text().splitlines()
    assert cli_code(["train", "--resume", run, "-q", "steps=2"]) == 0
    assert (tmp_path / "run" / FILE).read_text().splitlines() == known
    assert cli_code(["train", "--resume", run, "-q", "steps=3", "teacher.prompt=own", "teacher.system=Be brief."]) == 0
    after = (tmp_path / "run" / FILE).read_text().splitlines()
    assert after[: len(known)] == known
    ids, again = ({json.loads(line)["id"] for line in lines} for lines in (known, after[len(known) :]))
    assert len(after) == 2 * len(known)
    assert ids == again


def test_several_ranks_ask_together_and_find_what_one_finds() -> None:
    alone = started(Gated(redraws=3))[0].sample(ASKED, SAMPLING)

    def work(team: Team) -> list[Rollout]:
        made, teacher = desk()
        mine = replace(made, team=team, engine=dealt(made.engine, team), teacher_engine=lambda: dealt(teacher, team))
        return Gated(redraws=3).start(mine).sample(ASKED, SAMPLING)

    assert crowd(3, work) == [alone] * 3


def test_a_plan_counts_the_engine_that_the_teacher_writes_with(config: Path) -> None:
    planned = {name: crew_of(load(str(config), [f"source={name}"]).config, "float32") for name in ("student", "gated")}
    assert [len(crew.engines) for crew in planned.values()] == [1, 2]
