"""Checks before the first step: do student, teacher and engine speak of the same tokens and the same weights?"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from opd.config.settings import Config
from opd.console import Console
from opd.needs import Needs
from opd.parts import Parts, sampling
from opd.seeds import derive
from opd.types import Rollout, RunError, Scored

UNLIKELY = -8.0
"""Mean log-prob (nats) below which the teacher is said not to end its answers the way the student does."""


def preflight(cfg: Config, parts: Parts, console: Console) -> dict[str, float]:
    """Sample a few held-out prompts and compare what the parts say of them.

    Returns:
        `preflight/kl` and `preflight/gap` (nats per token) and `preflight/eos` (the teacher's mean log-prob of the
        EOS that ended a completion, where one did).

    Raises:
        RunError: a check failed; the message says what to change.
    """
    with console.task("preflight"):
        drawn = replace(sampling(cfg, parts, 0), n=1, seed=derive(cfg.seed, "preflight"))
        rollouts = parts.engine.sample(parts.data.eval_prompts(cfg.preflight.prompts), drawn)
        judged = parts.teacher.score(rollouts, Needs(logprobs=True))
        scored = parts.judges.verify([Scored(r, j) for r, j in zip(rollouts, judged, strict=True)])
        parts.judges.check(scored)
        # Whoever writes in training: what it lacks shows before the first step, and not after a run was begun.
        parts.source.sample(
            parts.data.take(0)[: cfg.preflight.prompts], replace(drawn, max_tokens=min(drawn.max_tokens, 16))
        )
        ours = parts.student.logprobs([(r.prompt.tokens, r.tokens) for r in rollouts])
    found = figures(scored, ours)
    limit = cfg.preflight.max_gap or (0.01 if parts.student.compute == torch.float32 else 0.15)
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
    kl = f"reverse KL {found['preflight/kl']:.3f} nats/token, " if "preflight/kl" in found else ""
    console.say(f"preflight: {kl}engine-learner gap {found['preflight/gap']:.2g} nats/token")
    for warning in warnings(scored, parts, found):
        console.warn(warning)
    return found


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


def warnings(scored: list[Scored], parts: Parts, found: dict[str, float]) -> list[str]:
    """What need not stop a run but often explains a bad one."""
    out = []
    rollouts: list[Rollout] = [s.rollout for s in scored]
    if all(r.truncated for r in rollouts):
        out.append("every preflight completion was cut at sampling.max_tokens: no EOS will be trained")
    if found.get("preflight/eos", 0.0) < UNLIKELY:
        out.append(
            f"the teacher gives the student's EOS a mean log-prob of {found['preflight/eos']:.1f}: it ends its answers "
            "in another way; compare the two models' chat templates and EOS ids"
        )
    heat = parts.student.temperature
    if heat != 1.0 and "preflight/kl" in found:
        out.append(
            f"sampling.temperature={heat:g}: the student at that temperature is drawn to the teacher at its own; at 1 "
            "it will be another distribution"
        )
    return out + parts.teacher.notes([r.prompt for r in rollouts])
