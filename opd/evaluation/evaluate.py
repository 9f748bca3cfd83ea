"""How good is a model on held-out prompts? Accuracy with intervals, pass@k, length, truncation, KL to the teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from opd.config.settings import Config
from opd.data.prompts import PromptStream
from opd.devices.team import Solo, Team, spread
from opd.evaluation.choosing import GIVEN, Chooser
from opd.evaluation.divergence import Reader, text_divergence
from opd.evaluation.talking import Talking
from opd.judges import scored_by
from opd.needs import Needs
from opd.protocols import Detailed
from opd.rollout.sleep import rest
from opd.seeds import derive
from opd.sources.parts import turns_of
from opd.teaching import Scorer
from opd.text.chat import decode
from opd.text.pieces import piece_bytes
from opd.types import Rollout, Sampling, UserError
from opd.writing import Desk, Sampler, Writer

Z = 1.959963984540054
"""97.5% quantile of the normal distribution."""
QUARTERS = ("eval/kl_quarter1", "eval/kl_quarter2", "eval/kl_quarter3", "eval/kl_quarter4")


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and on what."""

    metrics: dict[str, float]
    """`eval/...` figures."""
    samples: list[dict[str, Any]]
    """One record per completion: prompt, text, answer, score, tokens, truncated, KL."""
    sampling: Sampling


def eval_sampling(cfg: Config, stop: tuple[int, ...]) -> Sampling:
    """How completions are drawn for an evaluation: the same for every model, whatever step it comes from."""
    e = cfg.eval
    heat = cfg.sampling.temperature if e.temperature is None else e.temperature
    return Sampling(
        max_tokens=e.max_tokens or cfg.sampling.max_tokens, n=e.n, temperature=heat, top_p=e.top_p,
        top_k=e.top_k, min_p=e.min_p, stop=stop, seed=derive(cfg.seed, "eval"),
    )  # fmt: skip


def evaluate(
    engine: Writer, teacher: Scorer | None, data: PromptStream, tokenizer: Any, cfg: Config, stop: tuple[int, ...],
    reader: Reader | None = None, team: Team | None = None,
) -> Evaluation:  # fmt: skip
    """Sample the held-out prompts with `engine`, verify every completion and, where there is a teacher, score it.

    `reader` opens the same weights in torch, for the exact KL on texts that are given; None leaves it out.
    """
    team = team or Solo()
    drawn = eval_sampling(cfg, stop)
    rollouts = writer(cfg, engine, data, tokenizer, team).sample(data.eval_prompts(cfg.eval.size), drawn)
    if teacher is not None:
        rest(engine, keep=True)
    texts = [decode(tokenizer, r.tokens) for r in rollouts]
    scores = spread(team, list(zip(rollouts, texts, strict=True)), partial(verified, data))
    kls = token_kls(rollouts, teacher, team) if teacher is not None and drawn.temperature > 0 else None
    metrics = lengths(rollouts)
    given = [r for r, s in zip(rollouts, scores, strict=True) if r.origin == GIVEN and s is None][:: drawn.n]
    metrics |= likelihood(given, tokenizer)
    has = cfg.teacher.provides
    if given and reader is not None and teacher is not None and has.distribution and not has.spans:
        with reader() as student:
            metrics |= text_divergence(student, teacher, given, cfg.optim.micro_tokens, team)
    if kls is not None:
        metrics |= sampled_kl(rollouts, kls, tokenizer)
    metrics |= verdicts(rollouts, scores, drawn.n, cfg.eval.k) | details(rollouts, texts, data)
    samples = [
        {
            "id": r.prompt.example.id, "prompt": r.prompt.example.messages[-1]["content"], "completion": text,
            "answer": r.prompt.example.answer, "score": score, "tokens": len(r.tokens), "truncated": r.truncated,
            "kl": mean_known(kls[i]) if kls is not None else None,
        }
        for i, (r, text, score) in enumerate(zip(rollouts, texts, scores, strict=True))
    ]  # fmt: skip
    return Evaluation(metrics, samples, drawn)


def verified(data: PromptStream, written: Sequence[tuple[Rollout, str]]) -> list[float | None]:
    """The score of each completion and its text: the environment's, else the verifier's."""
    return [data.verify(r.prompt, text) if r.reward is None else r.reward for r, text in written]


def writer(cfg: Config, engine: Writer, data: PromptStream, tokenizer: Any, team: Team) -> Writer:
    """Who writes: the engine, alone or in conversation with the tasks that answer."""
    if not isinstance(engine, Sampler):  # conversations are held with an engine itself
        return engine
    desk = Desk(
        engine, teacher_engine=lambda: engine, read=lambda prompts: [p.tokens for p in prompts], tokenizer=tokenizer,
        task=data.task_of, rendering=data.rendering, team=team,
    )  # fmt: skip
    talking = Talking(desk, lambda task: cfg.eval.max_turns or turns_of(cfg.source, task))
    return Chooser(engine, talking, data.task_of, tokenizer)


def likelihood(given: Sequence[Rollout], tokenizer: Any) -> dict[str, float]:
    """Perplexity per token, and bits per byte, which do not depend on the tokenizer, of texts that were predicted."""
    tokens = sum(len(r.tokens) for r in given)
    if not tokens:
        return {}
    nats = -math.fsum(v for r in given for v in r.logprobs)
    size = sum(len(decode(tokenizer, r.tokens).encode()) for r in given)
    return {"eval/perplexity": math.exp(nats / tokens), "eval/bits_per_byte": nats / math.log(2) / max(1, size)}


def sampled_kl(rollouts: Sequence[Rollout], kls: Sequence[Sequence[float]], tokenizer: Any) -> dict[str, float]:
    """Mean of the tokens' sampled reverse KLs, per token and per byte, and the share of tokens that were judged."""
    known = [v for row in kls for v in row if math.isfinite(v)]
    if not known:
        return {}
    out = {"eval/kl": math.fsum(known) / len(known)} | quarters(kls)
    with suppress(UserError):  # a tokenizer of a kind whose bytes are not known here
        out["eval/kl_per_byte"] = math.fsum(known) / max(1, known_bytes(rollouts, kls, tokenizer))
    return out | {"eval/coverage": len(known) / sum(sum(r.mask) for r in rollouts)}


def quarters(kls: Sequence[Sequence[float]]) -> dict[str, float]:
    """The mean KL of the tokens of each quarter of a completion: where in it student and teacher part."""
    found: dict[str, list[float]] = {name: [] for name in QUARTERS}
    for row in kls:
        for i, v in enumerate(row):
            if math.isfinite(v):
                found[QUARTERS[4 * i // len(row)]].append(v)
    return {name: math.fsum(own) / len(own) for name, own in found.items() if own}


def token_kls(rollouts: Sequence[Rollout], teacher: Scorer, team: Team) -> list[list[float]]:
    """`log mu - log q` of every token, whose mean is the sampled reverse KL of what was drawn from, be that cut off.

    NaN where the teacher says nothing, and on what an environment wrote.
    """
    judged = scored_by(teacher, rollouts, Needs(logprobs=True), team)
    return [
        [mu - q if own else math.nan for mu, q, own in zip(r.logprobs, j.logprobs.tolist(), r.mask, strict=True)]
        for r, j in zip(rollouts, judged, strict=True)
    ]


def known_bytes(rollouts: Sequence[Rollout], kls: Sequence[Sequence[float]], tokenizer: Any) -> int:
    """How many bytes the tokens spell that the teacher has judged."""
    pieces = piece_bytes(tokenizer)
    pairs = ((t, v) for r, row in zip(rollouts, kls, strict=True) for t, v in zip(r.tokens, row, strict=True))
    return sum(len(pieces[t]) for t, v in pairs if math.isfinite(v) and t < len(pieces))


def mean_known(values: Sequence[float]) -> float | None:
    """Mean of the values that are numbers; None where none is."""
    known = [v for v in values if math.isfinite(v)]
    return math.fsum(known) / len(known) if known else None


def lengths(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Mean length, total tokens and share of truncated completions."""
    tokens, n = sum(len(r.tokens) for r in rollouts), len(rollouts)
    truncated = sum(r.truncated for r in rollouts) / n
    return {
        "eval/count": float(n),
        "eval/tokens": float(tokens),
        "eval/length": tokens / n,
        "eval/truncated": truncated,
    }


def verdicts(rollouts: Sequence[Rollout], scores: Sequence[float | None], n: int, k: Sequence[int]) -> dict[str, float]:
    """Accuracy of all completions, `n` of each prompt, and where there are several tasks that of each.

    Those of which not every completion has a score have none.
    """
    owners = [r.prompt.example.task for r in rollouts]
    names = list(dict.fromkeys(owners))
    out = {} if None in scores or not scores else accuracy(by_prompt(scores, n), k)
    for name in names if len(names) > 1 else ():
        own = [s for s, owner in zip(scores, owners, strict=True) if owner == name]
        found = {} if None in own else accuracy(by_prompt(own, n), k)
        out |= {f"{figure}/{name}": v for figure, v in (found | {"eval/count": float(len(own))}).items()}
    return out


def details(rollouts: Sequence[Rollout], texts: Sequence[str], data: PromptStream) -> dict[str, float]:
    """Further figures of tasks that have some."""
    sums: dict[str, tuple[float, float]] = {}
    for rollout, text in zip(rollouts, texts, strict=True):
        task = data.task_of(rollout.prompt.example)
        found = task.details(rollout.prompt.example, text) if isinstance(task, Detailed) else {}
        for name, (points, most) in found.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + points, before[1] + most)
    return {f"eval/{name}": points / most for name, (points, most) in sums.items() if most}


def by_prompt(scores: Sequence[float | None], n: int) -> np.ndarray:
    """Scores [prompts, n] of completions in prompt order."""
    return np.array(scores, dtype=np.float64).reshape(-1, n)


def accuracy(scores: np.ndarray, k: Sequence[int]) -> dict[str, float]:
    """Mean score with its 95% interval, and pass@k, of scores [prompts, samples] in [0, 1]."""
    means = scores.mean(axis=1)
    low, high = interval(means, scores.shape[1])
    out = {"eval/accuracy": float(means.mean()), "eval/accuracy_low": low, "eval/accuracy_high": high}
    correct = (scores >= 1.0).sum(axis=1)
    for size in k if scores.shape[1] > 1 else ():
        values = np.array([pass_at_k(scores.shape[1], int(c), size) for c in correct])
        low, high = interval(values, scores.shape[1])
        out |= {f"eval/pass@{size}": float(values.mean()), f"eval/pass@{size}_low": low, f"eval/pass@{size}_high": high}
    return out


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of `k` samples is right, from `correct` of `n` (Chen et al., 2021)."""
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def interval(means: np.ndarray, samples: int) -> tuple[float, float]:
    """95% Wilson interval of the mean over prompts of values [prompts] in [0, 1], each the mean of `samples`.

    Samples of one prompt are not independent, so that the effective size is what the spread *between prompts* says it
    is: between the number of prompts and the number of samples.
    """
    prompts, p = len(means), float(means.mean())
    spread = float(means.var(ddof=1)) / prompts if prompts > 1 else 0.0
    size = min(max(p * (1 - p) / spread if spread > 0 else 0.0, prompts), prompts * samples)
    centre = (p + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z / (1 + Z**2 / size) * math.sqrt(p * (1 - p) / size + Z**2 / (4 * size**2))
    return max(0.0, centre - half), min(1.0, centre + half)
