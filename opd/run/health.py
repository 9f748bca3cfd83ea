"""Verdicts: what the figures of a run say that nobody may overlook, what it means, and which setting to change.

A healthy run has none. Each is a comparison of a run's first, best and last fifth, beyond the noise of their means:
several standard errors of what changes from step to step, so that a trend is not taken for noise.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from opd.console.history import Verdict
from opd.disk import read_json, whole
from opd.needs import Needs
from opd.run.course import FEWEST, Row, course

EVERY = 20
"""Steps from one look at a run that goes on to the next."""
FIGURES = (
    "step", "kl/exact", "kl/sampled", "kl/student_entropy", "kl/teacher_entropy", "kl/engine_gap", "rollout/truncated",
    "rollout/length", "rollout/tokens", "rollout/reward", "rollout/age", "optim/ess", "optim/trained_tokens",
    "optim/grad_norm", "perf/step_s", "perf/eval_s",
)  # fmt: skip
"""What is looked at."""
PATIENCE = 100
"""Steps after which a run that has more to take should have learned something."""
ERRORS = 4.0
"""Standard errors that are more than noise."""
ROUNDING = 0.01
"""Nats below zero that a sum over a large vocabulary may come to."""
STRANGE = 10.0
"""Nats a token: the distance to a teacher to which each of 22,000 tokens is as likely as the others."""
FIRST = 5
"""Steps whose median is what a run begins, or ends, with."""


@dataclass(frozen=True)
class Aims:
    """What a run is meant to do, which decides what counts as harm."""

    listens: bool
    """It learns from a teacher."""
    rewarded: bool
    """It learns from rewards, and from nothing else."""
    writes: bool
    """The student writes what it learns from."""

    steps: int
    """It is to take."""
    grows: bool = False
    """Its completions are written further from step to step, and their figures are of ever later tokens."""

    @classmethod
    def of(cls, needs: Needs, policy: bool, steps: int, grows: bool = False) -> Aims:
        """By what the objective asks for, and whether the source is the student's policy."""
        told = needs.logprobs or needs.distribution or needs.top_k or needs.student_top_k or needs.spans
        return cls(bool(told), needs.rewards and not told, policy, steps, grows)


def verdicts(rows: Sequence[Row], aims: Aims) -> list[Verdict]:
    """What is wrong with a run so far.

    Args:
        rows: Its metrics, in order; step 0 is what was measured before the first.
        aims: What it is meant to do.
    """
    return [verdict for check in CHECKS for verdict in check(rows, aims)]


def fault(rows: Sequence[Row], aims: Aims) -> Iterator[Verdict]:
    """A divergence below zero, of which one is enough: there is no such thing."""
    odd = [row for row in rows if row.get("kl/exact", 0.0) < -ROUNDING]
    if odd:
        yield Verdict(
            "a KL below zero", f"the exact reverse KL was {odd[-1]['kl/exact']:.3g} nats a token at step "
            f"{odd[-1]['step']:.0f}, in {len(odd)} steps in all", "No divergence is: what is computed of student or "
            "teacher is no distribution, or not of these tokens, and what is learned from it neither.",
            "Set student.dtype and teacher.dtype to float32, their attention to eager, and report what is left of it.",
        )  # fmt: skip


def foreign(kl: float, since: str) -> Verdict:
    """What is wrong where the reverse KL is beyond `STRANGE`."""
    return Verdict(
        "the teacher reads nonsense", f"a reverse KL of {kl:.3g} nats a token {since}",
        f"A teacher that knew nothing would be no further than about {STRANGE:.0f} from the student: the two do not "
        "speak the same format, or not of the same tokens.",
        "Compare the chat templates, and what the teacher is shown: teacher.template, teacher.prompt, teacher.system.",
    )  # fmt: skip


def strangers(rows: Sequence[Row], aims: Aims) -> Iterator[Verdict]:
    """Student and teacher are as far apart as no two that speak alike, from the first steps on."""
    known = [kl for row in rows if row["step"] >= 1 and (kl := _divergence(row)) is not None]
    if aims.listens and known and min(median(known[:FIRST]), now := median(known[-FIRST:])) > STRANGE:
        yield foreign(now, f"after {len(known)} step{'s' if len(known) > 1 else ''}")


def _divergence(row: Row) -> float | None:
    """The exact reverse KL of a step, or else the sampled one."""
    return next((v for n in ("kl/exact", "kl/sampled") if math.isfinite(v := row.get(n, math.nan))), None)


LARGER = (
    "Raise optim.lr (adapters take ten times the rate of all weights), or look whether the teacher reads the prompts "
    "as the student does."
)
SMALLER = "Lower optim.lr: what a step does is too much."


def distance(rows: Sequence[Row], aims: Aims) -> Iterator[Verdict]:
    """The divergence from the teacher rises, or stays where it was."""
    name = "kl/exact" if course(rows, "kl/exact") else "kl/sampled"
    kl = course(rows, name)
    if not aims.listens or aims.grows or kl is None:
        return
    lost = kl.last > 1.5 * max(kl.start, 0.0) + ERRORS * kl.spread
    if (lost or kl.last > 1.3 * max(kl.lowest, 0.0) + ERRORS * kl.error) and kl.last > kl.lowest + 0.02:
        low = min(kl.start, kl.lowest) if lost else kl.lowest
        since = f"since step {kl.at}" if kl.lowest < min(kl.first, kl.start) else "from the first steps on"
        yield Verdict(
            "moving away from the teacher",
            f"reverse KL rose from {low:.3g} to {kl.last:.3g} nats a token {since}",
            "The student gets worse by the measure that it is trained on: its steps are too large, or its samples are "
            "of older weights.", "Lower optim.lr, raise optim.warmup_steps, or take the checkpoint before.",
        )  # fmt: skip
    elif (
        kl.first <= STRANGE
        and kl.last > 0.95 * kl.first
        and kl.first > 0.05
        and rows[-1]["step"] >= min(aims.steps, PATIENCE)
    ):
        size = course(rows, "optim/ess")
        stale = size is not None and size.last < 0.98
        jumps = kl.spread > 0.1 * kl.first or any(entropy(rows, aims))
        yield Verdict(
            "nothing learned",
            f"reverse KL was {kl.first:.3g} and is {kl.last:.3g} nats a token after {kl.steps} steps",
            "The student has not come nearer to the teacher.",
            SMALLER if jumps or stale else LARGER,
        )  # fmt: skip


def entropy(rows: Sequence[Row], aims: Aims) -> Iterator[Verdict]:
    """The student has become far surer than the teacher."""
    own, teachers = course(rows, "kl/student_entropy"), course(rows, "kl/teacher_entropy")
    if own is None or not aims.writes:
        return
    floor = 0.25 * teachers.last if teachers else 0.05 * own.first
    if own.last < min(floor, 0.5 * own.first - ERRORS * own.error):
        beside = f", the teacher's is {teachers.last:.3g}" if teachers else ""
        yield Verdict(
            "entropy collapsed", f"the student's fell from {own.first:.3g} to {own.last:.3g} nats a token{beside}",
            "It writes the same answer again and again, and learns from nothing else.",
            "Lower optim.lr; with objective=gkd objective.beta=0.5 covers more of what the teacher would say.",
        )  # fmt: skip


def lengths(rows: Sequence[Row], aims: Aims) -> Iterator[Verdict]:
    """Completions become much longer or shorter, or run into their limit."""
    if not aims.writes:
        return
    cut, length = course(rows, "rollout/truncated"), course(rows, "rollout/length")
    if cut is not None and cut.last > cut.first + 0.25 + ERRORS * cut.error:
        yield Verdict(
            "more and more cut off", f"at first {cut.first:.0%} of the completions, now {cut.last:.0%} reach "
            "sampling.max_tokens", "The student is losing the end of its answers, and never sees what follows.",
            "Raise sampling.max_tokens, or lower optim.lr.",
        )  # fmt: skip
    elif not aims.grows and length is not None and abs(length.last - length.first) > ERRORS * length.error:
        ratio = length.last / max(length.first, 1e-9)
        if not 1 / 3 < ratio < 3:
            yield Verdict(
                "lengths drift", f"completions had {length.first:.0f} tokens, now {length.last:.0f}",
                "A reward or a penalty of every token may pay for length itself.",
                "Compare with the teacher's length (opd eval), and look at samples (opd report).",
            )  # fmt: skip


def staleness(rows: Sequence[Row], aims: Aims) -> Iterator[Verdict]:
    """Samples are no longer the learner's, or the engine computes something else than it."""
    size = course(rows, "optim/ess")
    if size is not None and aims.writes and size.last < 0.5:
        yield Verdict(
            "off policy", f"the effective sample size is {size.last:.0%} of the tokens",
            "The weights that learn have moved far from those that wrote.",
            "Lower optim.steps_per_batch, devices.ahead or optim.lr.",
        )  # fmt: skip
    gaps = [abs(row["kl/engine_gap"]) for row in rows if math.isfinite(row.get("kl/engine_gap", math.nan))]
    if len(gaps) >= FEWEST and aims.writes and not any(row.get("rollout/age", 0.0) for row in rows):
        gap = median(gaps[-len(gaps) // 5 :])
        if gap > 0.05:
            yield Verdict(
                "engine and learner disagree", f"by {gap:.3g} nats a token on the same tokens",
                "The samples are not quite the learner's, and its gradient is off by as much.",
                "Use one number type for both: rollout.dtype and student.dtype, float32 or bfloat16.",
            )  # fmt: skip


def idleness(rows: Sequence[Row], aims: Aims) -> Iterator[Verdict]:
    """Steps that train nothing, and rewards that teach nothing."""
    steps = [row for row in rows if row["step"] >= 1]
    if len(steps) < FEWEST:
        return
    empty = sum(not row.get("optim/trained_tokens", 1.0) or not row.get("optim/grad_norm", 1.0) for row in steps)
    if empty > len(steps) / 2:
        yield Verdict(
            "nothing trained", f"in {empty} of {len(steps)} steps no token had a gradient",
            "All samples of each prompt have the same reward, or nothing is left of the completions to train on.",
            "Raise sampling.n, take prompts that the student answers sometimes, or look at samples (opd report).",
        )  # fmt: skip
        return
    reward = course(rows, "rollout/reward")
    if aims.rewarded and reward is not None and reward.steps >= 2 * FEWEST:
        risen = reward.last - reward.first
        if risen < 2 * reward.error and reward.last < 0.95:
            yield Verdict(
                "reward is flat", f"it was {reward.first:.3g} and is {reward.last:.3g} after {reward.steps} steps",
                "What is rewarded is never written, or the rate is too small to favour it.",
                "Raise optim.lr or sampling.n, or take easier prompts.",
            )  # fmt: skip


def slowness(rows: Sequence[Row], aims: Aims) -> Iterator[Verdict]:
    """Steps take longer and longer for the same work."""
    done = [
        {"step": row["step"], "pace": row["perf/step_s"] / row["rollout/tokens"]} for row in rows
        if row["step"] >= 1 and row.get("perf/step_s") and row.get("rollout/tokens") and not row.get("perf/eval_s")
    ]  # fmt: skip
    pace = course(done[1:], "pace")  # the first step warms up
    if pace is None:
        return
    values, width = [row["pace"] for row in done[1:]], pace.steps // 5
    fifths = [median(values[i * width : (i + 1) * width]) for i in range(5)]
    if all(a < b for a, b in itertools.pairwise(fifths)) and fifths[-1] > 3 * fifths[0]:
        yield Verdict(
            "slower and slower", f"a token took {1e3 * fifths[0]:.3g} ms of a step, now {1e3 * fifths[-1]:.3g}",
            "Something grows from step to step, or others take the machine.",
            "Look at perf/ in the report: which phase, and whether memory grows with it.",
        )  # fmt: skip


Check = Callable[[Sequence[Row], Aims], Iterator[Verdict]]
CHECKS: tuple[Check, ...] = (fault, strangers, distance, entropy, lengths, staleness, idleness, slowness)


class Health:
    """That of a run that is going on; what it was at the last look is in a file beside the metrics."""

    def __init__(self, path: Path, aims: Aims, history: Sequence[Row]) -> None:
        """`history`: the rows of earlier processes."""
        self._path, self._aims = path, aims
        self._rows = [_looked_at(row) for row in history]

    def step(self, step: int, row: Row, last: bool = False) -> list[Verdict] | None:
        """All that holds after a step, the `last` one at any rate; None where nobody has looked."""
        self._rows.append(_looked_at({"step": step, **row}))
        if not last and step != self._aims.steps and (not step or step % EVERY):
            return None
        found = verdicts(self._rows, self._aims)
        with whole(self._path) as part:
            part.write_text(json.dumps({"step": step, "verdicts": [asdict(v) for v in found]}, indent=2) + "\n")
        return found


def _looked_at(row: Row) -> Row:
    return {name: row[name] for name in FIGURES if name in row}


def read(path: Path) -> list[Verdict] | None:
    """What a run's file says; None where there is none, or none that can be read."""
    try:
        said: Any = read_json(path)
        return [Verdict(**{name: str(v[name]) for name in ("name", "seen", "means", "do")}) for v in said["verdicts"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None
