"""Checks before the first step: do student, teacher and engine speak of the same tokens and the same weights?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from opd.called import called
from opd.config.settings import MOST, Config
from opd.config.together import added
from opd.console import Console
from opd.data.given import look_through
from opd.devices.shortage import during
from opd.devices.team import first_rank
from opd.disk import refuse_narrow
from opd.evaluation.evaluate import evaluate
from opd.evaluation.held_out import too_few, trained_on
from opd.judges import scored_by
from opd.learner.student import Student
from opd.models.facts import class_name
from opd.needs import Needs
from opd.parts import Parts, sampling, whole
from opd.rollout.sleep import rest
from opd.run.health import STRANGE, foreign
from opd.run.rehearsal import rehearse
from opd.run.room import more_at_once
from opd.run.saving import size
from opd.run.stopping import refuse_unknown, watched
from opd.seeds import derive
from opd.sources.dataset import DatasetSource
from opd.sources.parts import parts_of
from opd.teachers.cached import CachedTeacher
from opd.teaching import Composed
from opd.types import Rollout, RunError, Scored, TokenPair
from opd.writing import Giving

UNLIKELY = -8.0
"""Mean log-prob (nats) below which the teacher is said not to end its answers the way the student does."""


def preflight(
    cfg: Config, parts: Parts, console: Console, run: Path, version: int = 0, losses: Sequence[str] | None = None
) -> dict[str, float]:
    """Sample a few held-out prompts and compare what the parts say of them; push other weights; save and read back.

    Args:
        cfg: The run's settings.
        parts: Its parts. The engine has the learner's weights afterwards.
        console: Told what is being done.
        run: Folder of the run, which need not be there yet.
        version: Steps that the learner's weights have seen.
        losses: What is lost of the completions that the data gives, where they were looked through before.

    Returns:
        `preflight/kl` and `preflight/gap` (nats per token) and `preflight/eos` (the teacher's mean log-prob of the
        EOS that ended a completion, where one did).

    Raises:
        RunError: a check failed; the message says what to change.
        UserError: there is too little room for the run's checkpoints.
    """
    bytes_each = size(parts.student, parts.judges.models)
    first_rank(parts.team, lambda: refuse_narrow(run, bytes_each, more_at_once(cfg, run, version)))
    with console.task("completions"):
        losses = first_rank(parts.team, lambda: given(cfg, parts)) if losses is None else losses
    with console.task("push"), during("push"):
        parts.engine.load_weights(parts.student.weights(), version=version)
    with console.task("preflight"):
        drawn = whole(cfg, replace(sampling(cfg, parts, 0), n=1, seed=derive(cfg.seed, "preflight")))
        rollouts = parts.engine.sample(parts.data.some_prompts(cfg.preflight.prompts), drawn)
        rest(parts.engine, keep=True)
        needs = parts.judges.needs
        # What a server may not be able to give shows here.
        asked = 0 if needs.distribution else needs.student_top_k
        judged = scored_by(parts.teacher, rollouts, Needs(logprobs=True, student_top_k=asked), parts.team)
        scored = parts.judges.verify([Scored(r, j) for r, j in zip(rollouts, judged, strict=True)])
        parts.judges.check(scored)
        # Whoever writes in training: what it lacks shows before the first step, and not after a run was begun.
        short = replace(drawn, max_tokens=min(drawn.max_tokens, 16), trial=sampling(cfg, parts, version))
        parts.source.sample(parts.data.take(version)[: cfg.preflight.prompts], short)
        rest(parts.engine, keep=True)
        ours = parts.student.logprobs([(r.prompt.tokens, r.tokens) for r in rollouts])
        check_watched(cfg, parts)
    found = figures(scored, ours)
    limit = allowed_gap(cfg, parts.student)
    check_figures(cfg, found, limit)
    with console.task("push"), during("push"):
        check_push(cfg, parts, pushed_gap(parts, rollouts, version), limit)
    if not version:
        with console.task("checkpoint"), during("checkpoint"):
            rehearse(parts.student, cfg.student.pretrained, parts.judges.models, parts.tokenizer, parts.stop, run)
    kl = f"reverse KL {found['preflight/kl']:.3f} nats/token, " if "preflight/kl" in found else ""
    console.say(f"preflight: {kl}engine-learner gap {found['preflight/gap']:.2g} nats/token")
    for warning in (*losses, *warnings(cfg, scored, parts, found)):
        console.warn(warning)
    return found


def check_watched(cfg: Config, parts: Parts) -> None:
    """UserError where the run is to go by a figure that its evaluations do not have, which a short one shows."""
    measured: set[str] = set()
    if not (names := watched(cfg)):
        return
    few = max(cfg.preflight.prompts, len(parts.data.names))
    for count in (few, cfg.eval.size) if parts.data.eval_prompts(1) else ():
        if not measured.issuperset(names):  # few prompts may lack what some task has to say
            short = replace(cfg, eval=replace(cfg.eval, size=min(count, cfg.eval.size), max_tokens=16))
            drawn = (parts.tokenizer, short, parts.stop, parts.student.read, parts.team)
            measured |= evaluate(parts.engine, parts.teacher, parts.data, *drawn).metrics.keys()
            rest(parts.engine, keep=True)
    refuse_unknown(cfg, sorted(measured))


def check_figures(cfg: Config, found: Mapping[str, float], limit: float) -> None:
    """RunError where engine and learner are more than `limit` apart, or the teacher reads nonsense."""
    if not found["preflight/gap"] <= limit:  # a NaN fails too
        raise RunError(
            f"preflight: engine and learner disagree by {found['preflight/gap']:.3g} nats a token on the same tokens "
            f"(allowed {limit:g}); use one dtype for student.dtype and rollout.dtype, or raise preflight.max_gap"
        )
    if not found.get("preflight/kl", 0.0) <= cfg.preflight.max_kl:
        raise RunError(
            f"preflight: a reverse KL of {found['preflight/kl']:.3g} nats a token (allowed {cfg.preflight.max_kl:g}): "
            "the teacher reads these tokens as nonsense; compare the chat templates (teacher.template, teacher.prompt)"
        )


def check_push(cfg: Config, parts: Parts, moved: float, limit: float) -> None:
    """RunError where engine and learner are more than `limit` apart once the engine was handed other weights."""
    if not moved <= limit:
        raise RunError(
            f"preflight: handed other weights, engine and learner disagree by {moved:.3g} nats a token (allowed "
            f"{limit:g}): rollout={called('rollout', cfg.rollout)} does not take all weights of a "
            f"{class_name(parts.student.split.model)} that change; use rollout=hf, or raise preflight.max_gap"
        )


def given(cfg: Config, parts: Parts) -> list[str]:
    """Read every completion that the data gives to be trained on, and say what of them is lost.

    Raises:
        UserError: one cannot be trained on; names its row.
    """
    if not isinstance(parts.source, Giving):
        return []
    drawn = whole(cfg, sampling(cfg, parts, 0))
    prompts, uncut = parts.data.prompts(), replace(drawn, max_tokens=MOST)
    return look_through(parts.source.given(prompts, uncut), parts.tokenizer, drawn, parts.student.vocabulary)


def allowed_gap(cfg: Config, student: Student) -> float:
    """Largest mean |log-prob of the engine - of the learner| on the same tokens, in nats, that is rounding."""
    return cfg.preflight.max_gap or (0.01 if student.compute == torch.float32 else 0.15)


def check_gap(cfg: Config, student: Student, metrics: Mapping[str, float]) -> None:
    """See that a step was learned from what its own weights have written.

    A dropout of adapters is somebody's wish: the gap is then its work, and no limit holds.

    Raises:
        RunError: Engine and learner are further apart than rounding explains.
    """
    gap, limit, lora = metrics.get("kl/engine_gap", 0.0), allowed_gap(cfg, student), cfg.student.lora
    if not (gap <= limit or (lora is not None and lora.dropout)):
        raise RunError(
            f"engine and learner disagree by {gap:.3g} nats a token on what the engine has just written (allowed "
            f"{limit:g}): it does not have the learner's weights, or computes with them in another way; use rollout=hf "
            "or rollout.dtype=float32 with student.dtype=float32, or raise preflight.max_gap"
        )


def pushed_gap(parts: Parts, rollouts: Sequence[Rollout], version: int) -> float:
    """The gap on prompts and completions after a push of weights that are all others; the true ones come back."""
    pairs: list[TokenPair] = [(ids[:1], ids[1:]) for r in rollouts if (ids := (*r.prompt.tokens, *r.tokens))]
    with parts.student.altered():
        parts.engine.load_weights(parts.student.weights(), version=version)
        theirs = parts.engine.logprobs(pairs)
        rest(parts.engine, keep=False)
        ours = parts.student.logprobs(pairs, temperature=1.0)
    parts.engine.load_weights(parts.student.weights(), version=version)
    gaps = [abs(a - b) for x, y in zip(theirs, ours, strict=True) for a, b in zip(x, y, strict=True)]
    return math.fsum(gaps) / max(1, len(gaps))


def figures(scored: list[Scored], learner: list[list[float]]) -> dict[str, float]:
    """Means over all tokens of the sampled reverse KL and of the gap between engine and learner."""
    mu = [v for s in scored for v in s.rollout.logprobs]
    q = [v for s in scored for v in s.teacher.logprobs.tolist()]
    pi = [v for row in learner for v in row]
    found = {"preflight/gap": math.fsum(abs(a - b) for a, b in zip(mu, pi, strict=True)) / max(1, len(mu))}
    if kls := [a - b for a, b in zip(mu, q, strict=True) if not math.isnan(b)]:
        found["preflight/kl"] = math.fsum(kls) / len(kls)
    ends = [float(s.teacher.logprobs[-1]) for s in scored if s.rollout.tokens and not s.rollout.truncated]
    known = [v for v in ends if not math.isnan(v)]
    return found | ({"preflight/eos": math.fsum(known) / len(known)} if known else {})


def warnings(cfg: Config, scored: list[Scored], parts: Parts, found: Mapping[str, float]) -> list[str]:
    """What need not stop a run but often explains a bad one."""
    out = [
        *too_few(cfg, parts.data.evaluated(cfg.eval.size)),
        *trained_on(parts.data, cfg.eval.size),
        *parts.data.misread(),
    ]
    rollouts: list[Rollout] = [s.rollout for s in scored]
    if (kl := found.get("preflight/kl", 0.0)) > STRANGE:
        out.append(str(foreign(kl, "before step 1")))
    if all(r.truncated for r in rollouts):
        out.append("every preflight completion was cut at sampling.max_tokens: no EOS will be trained")
    if found.get("preflight/eos", 0.0) < UNLIKELY:
        out.append(
            f"the teacher gives the student's EOS a mean log-prob of {found['preflight/eos']:.1f}: it ends its answers "
            "in another way; compare the two models' chat templates and EOS ids"
        )
    listened = {"teacher": "preflight/kl" in found, "reference": parts.judges.needs.reference}
    for name in (name for name, listens in listened.items() if listens):
        out += at_another(name, getattr(cfg, name), parts.student.temperature)
    out += given_at(cfg, parts.student.temperature)
    return out + parts.teacher.notes([r.prompt for r in rollouts])


def at_another(name: str, judge: Any, heat: float) -> list[str]:
    """What to say where a judge, or one of those that it is made of, is not at the temperature of sampling, `heat`."""
    own = dict(heats(name, judge))
    if heat == 1.0 or all(value == heat for value in own.values()):
        return []
    others = [setting for setting, value in own.items() if value is None]
    way = " ".join(f"{setting}={heat:g}" for setting, value in own.items() if value != heat)
    way = f"there is no {others[0]}, and with sampling.temperature=1" if others else f"with {way}"
    return [
        f"sampling.temperature={heat:g}: the student at that temperature is drawn to the {name} at its own; at 1 it "
        f"will be another distribution; {way} both are at the same one"
    ]


def given_at(cfg: Config, heat: float) -> list[str]:
    """What to say where a dataset's completions are learned as they are at a temperature, which they do not have."""
    tokens_alone = any(one.needs == Needs() for one in added(cfg.objective))
    if heat == 1.0 or not tokens_alone or not any(isinstance(part, DatasetSource) for part in parts_of(cfg.source)):
        return []
    return [
        f"sampling.temperature={heat:g}: the student at that temperature learns the dataset's completions; at 1 it "
        "will be another distribution; with sampling.temperature=1 it learns them as it is"
    ]


def heats(name: str, judge: Any) -> Iterator[tuple[str, float | None]]:
    """The temperatures of all whose log-probs a judge goes by, by their settings; None: it has no such setting."""
    kept = {"teacher": judge.teacher} if isinstance(judge, CachedTeacher) else {}  # be it asked any more or not
    inner = kept or (judge.inner if isinstance(judge, Composed) else {})
    for own, one in inner.items():
        yield from heats(f"{name}.{own}", one)
    if not inner:
        yield f"{name}.temperature", getattr(judge, "temperature", None)
