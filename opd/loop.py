"""On-policy distillation: sample from the student, score with the teacher, step, push the weights, again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from opd.batch import split_steps
from opd.config.settings import Config, SamplingConfig
from opd.console import Console
from opd.devices.compute import emulated
from opd.devices.idle import idle
from opd.devices.shortage import during
from opd.devices.team import LostRank, Solo, Team, first_rank
from opd.devices.threads import threads
from opd.disk import refusal
from opd.evaluation.evaluate import evaluate
from opd.learner.halving import fitted
from opd.learner.optim import learning_rate
from opd.models.fingerprint import fingerprints
from opd.parts import Parts, Texts, drafts, following, make_models, start_parts
from opd.plan.remedy import advised
from opd.preflight import check_gap, preflight
from opd.recorder import Bystander, Recorder
from opd.rollout.dealt import same
from opd.rollout.drafts import Drafts
from opd.rollout.repetition import loops
from opd.run import checkpoint as ckpt
from opd.run.adapting import adapted, changes, resumed
from opd.run.begun import told
from opd.run.directory import STUDENT, RunFolder
from opd.run.interrupt import Interrupted, StopSignal
from opd.run.ledger import Ledger
from opd.run.metrics import Phases
from opd.run.saving import save
from opd.run.stopping import Watch
from opd.run.ways import unbegun, way
from opd.survey.found import refuse
from opd.survey.look import look
from opd.survey.named import teachers_of
from opd.types import Rollout, RunError, Scored


def train(
    cfg: Config,
    run: RunFolder,
    console: Console,
    *,
    yaml: str = "",
    overrides: tuple[str, ...] = (),
    team: Team | None = None,
) -> str | None:
    """Run `cfg` in the directory `run`, going on from its newest checkpoint where it has one; each rank of `team` does.

    Nothing is done where that has all steps behind it, or is where the run stops.

    Returns:
        Why the run is over before its last step; None: it has taken all of them.

    Raises:
        UserError: a part cannot be had as configured, or no checkpoint of the run is good; nothing was written.
        RunError: preflight failed, or loss or weights are not finite; the message names the last good checkpoint.
        Interrupted: a signal came; the state is saved, if there is any.
    """
    team = team or Solo()
    begun, damaged = first_rank(team, lambda: ckpt.latest(run.checkpoints))
    if begun is None and damaged:
        raise ckpt.none_good(run.path, damaged)
    first = begun.step if begun else 0
    if first >= cfg.steps:
        in_vain = [text for text in overrides if not text.startswith("steps=")]
        console.say(f"steps={cfg.steps}: {first} are taken, and there is nothing left to do")
        if in_vain:
            console.warn(f"{' '.join(in_vain)}: no step is left that this is for; raise steps")
        return None
    watch = Watch.over(cfg, run, begun, team)
    if over := watch.enough(first):
        return over
    with ExitStack() as stack, StopSignal() as stop, threads(cfg.threads):
        with stop.at_once(partial(unbegun, run, first)), advised(cfg):
            for warning in (*told(run, begun, damaged), *emulated(cfg), *idle(cfg, team)):
                console.warn(warning)
            phases = Phases(on_enter=console.phase)
            with phases("models"):
                texts = looked_at(cfg, run, console, begun, team)
                make_models(cfg, console, team)
            with phases("setup"):
                texts = texts or looked_at(cfg, run, console, begun, team, made=True)
                parts = start_parts(cfg, stack, console, begun, team, texts, run.path)
            with during("preflight"):
                preflight(cfg, parts, console, run.path, first, texts.losses if texts else None)
            for warning in first_rank(team, lambda: noted(cfg, parts, run, yaml, overrides, first)):
                console.warn(warning)
            ledger = Ledger(cfg, parts.student, parts.judges)
            for note in ledger.notes():
                console.say(note)
            recorder = stack.enter_context(
                Bystander(run, cfg, phases) if team.rank else
                Recorder(run, cfg, console, phases, begun, parts.tokenizer, ledger)
            )
        writing = drafts(cfg, parts, stack, console, first, begun)
        over = loop(cfg, parts, writing, run, recorder, phases, stop, begun, watch)
        console.costs(recorder.costs)
        return over


def looked_at(
    cfg: Config, run: RunFolder, console: Console, begun: ckpt.Checkpoint | None, team: Team, made: bool = False
) -> Texts | None:
    """What the student reads and is asked, once nothing that shows without weights speaks against the run.

    None on all ranks where its model is not made yet. Raises UserError with all that is to be mended.
    """
    with console.task("checks"), during("data"):
        found = look(cfg, reach=True, made=made, run=None if team.rank else run.path, begun=begun)
    every = team.gather((found.mistakes, found.texts is None))
    refuse(list(dict.fromkeys(said for mistakes, _ in every for said in mistakes)))
    return None if any(unmade for _, unmade in every) else found.texts


def loop(
    cfg: Config, parts: Parts, writing: Drafts, run: RunFolder, recorder: Recorder, phases: Phases, stop: StopSignal,
    good: ckpt.Checkpoint | None, watch: Watch,
) -> str | None:
    """The algorithm: the steps after the checkpoint `good` to `cfg.steps`, evaluated and saved on the way.

    Returns why it ends before, where it does.
    """
    judges, student, first = parts.judges, parts.student, good.step if good else 0
    cfg = resumed(cfg, run, good, parts.team)
    if first == 0:
        with stop.at_once(partial(unbegun, run, first)), placed(0, good), advised(cfg):
            metrics = measure(cfg, parts, phases, recorder, 0)
            watch.see(0, metrics)
            recorder.step(0, metrics, [])
    for step in range(first, cfg.steps):
        with placed(step + 1, good), advised(cfg):
            with phases("generate"):
                rollouts = same(writing.take(step), parts.team)              # x ~ D, y ~ pi_theta(. | x), or another's
            with phases("score"):
                scored = judges.score(rollouts, recorder.alternatives(step + 1))    # log q(y_t | x, y_<t)
            with phases("verify"):
                scored = judges.verify(scored, cfg.sampling.short(step))     # r(x, y), where the task has a verifier
                figures = {k: v for who in parts.followers for k, v in who.told(scored).items()}
            with phases("update"):
                metrics = update(cfg, parts, scored, step, recorder.warn, writing.stale)  # theta <- theta - lr * grad
                scored = [s.without_distributions() for s in scored]
                cfg = adapted(cfg, metrics)                                  # weights that hold a KL follow it
            with phases("push"):
                writing.push(student.weights(), version=step + 1)            # the sampler is on policy again
            last = step + 1 == cfg.steps
            if last or (cfg.eval.every and (step + 1) % cfg.eval.every == 0):
                writing.settle()
                metrics |= measure(cfg, parts, phases, recorder, step + 1)
                if said := watch.see(step + 1, metrics):
                    recorder.warn(said)
            over, best = watch.enough(step + 1), watch.best(step + 1)
            last = last or over is not None
            with during("records"):
                metrics |= figures | rollout_metrics(scored, cfg.sampling, step) | ages(scored, step)
                recorder.step(step + 1, metrics, scored, last)
            signal = max(parts.team.gather(stop.signal))                     # all stop where one is told to
            if last or signal or best == step + 1 or (step + 1) % cfg.checkpoint.every == 0:
                with phases("checkpoint"):
                    keep = cfg.checkpoint.keep
                    written = {**writing.kept, **recorder.kept, **following(parts.followers)}
                    good = save(run.checkpoints, step + 1, student, judges.models, parts.tokenizer, keep, written, best)
        if signal and not last:
            on = way("train --resume", run)
            raise Interrupted(signal, f"stopped after step {step + 1}, state saved; go on with:  {on}")
        if last:
            return over
    return None


def update(
    cfg: Config, parts: Parts, scored: list[Scored], step: int, warn: Callable[[str], None], stale: bool = False
) -> dict[str, float]:
    """Take the optimizer steps that this batch of rollouts is good for; returns their diagnostics together."""
    k, student, team = cfg.optim.steps_per_batch, parts.student, parts.team
    pad = parts.tokenizer.pad_token_id or 0
    done: list[dict[str, float]] = []
    for i, pack in enumerate(split_steps(scored, k, pad, student.split.shared, team.rank, team.size, step)):
        lr = learning_rate(cfg.optim, step * k + i, cfg.steps * k)
        learn = partial(student.update, objective=cfg.objective, lr=lr, teacher=parts.teacher)
        done.append(fitted(student, pack, learn, warn))
        if not (stale or any(older(s.rollout, step) for s in scored)):  # else the gap is what has been learned since
            check_gap(cfg, student, done[0])
    student.taken = step + 1
    return together(done) | changes(cfg)


@contextmanager
def placed(step: int, good: ckpt.Checkpoint | None) -> Iterator[None]:
    """What goes wrong inside is said with its step, and with the last good checkpoint."""
    try:
        yield
    except LostRank:
        raise
    except Exception as e:  # whatever was in a library's hands when the disk was full
        if (why := str(e) if isinstance(e, RunError) else refusal(e)) is None:
            raise
        where = f"the last good checkpoint is {good.path}" if good else "there is no checkpoint yet"
        where = where if good is None or good.path.is_dir() else "its checkpoints are gone, too"
        raise RunError(f"step {step}: {why}; {where}") from e


def noted(
    cfg: Config, parts: Parts, run: RunFolder, yaml: str, overrides: tuple[str, ...], first: int
) -> list[str]:
    """Write down what the run is made of; gives what there is to say of judges and data that are others than so far."""
    judges = {**fingerprints({name: t.checkpoint() for name, t in teachers_of(cfg)}), **parts.judges.marks()}
    data = parts.data.marks()
    others = run.exchanged({"models": judges, "data": data}) if first else {}
    models = {**judges, **fingerprints({STUDENT: cfg.student.pretrained})}
    run.note(yaml, overrides, first, {"models": models, "data": data})
    return [
        f"{name}: this is not the model that judged the first {first} steps; put that one back, or have the rest "
        "judged by this one" for name in others.get("models", [])
    ] + [
        f"{parts.data.place(name)}: this is not the data of the first {first} steps; put that back, or go on "
        "with this" for name in others.get("data", [])
    ]  # fmt: skip


def together(done: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Figures of several optimizer steps: counts are added, the largest of maxima is taken, of the rest the mean.

    Only the first one's weights are those that the engine has sampled with: the gap to it is that step's.
    """
    out = {}
    for name in dict.fromkeys(name for m in done for name in m):
        values = [m[name] for m in done if name in m]
        if name.startswith("kl/engine_gap"):
            out[name] = values[0]
        elif name == "optim/trained_tokens":
            out[name] = math.fsum(values)
        else:
            out[name] = max(values) if name.endswith("_max") else math.fsum(values) / len(values)
    return out


def rollout_metrics(scored: list[Scored], drawn: SamplingConfig | None = None, step: int = 0) -> dict[str, float]:
    """Lengths, truncation and reward of a step's rollouts, written as `drawn` says; what was to be cut is no fault."""
    rollouts: list[Rollout] = [s.rollout for s in scored]
    n, tokens = len(rollouts), sum(len(r.tokens) for r in rollouts)
    rewards = [s.reward for s in scored if s.reward is not None]
    metrics = {
        "rollout/count": float(n),
        "rollout/tokens": float(tokens),
        "rollout/length": tokens / n,
        "rollout/truncated": sum(r.truncated for r in rollouts) / n,
        "rollout/empty": sum(not r.tokens for r in rollouts) / n,
    }
    if drawn and (drawn.repetition.longest or drawn.horizon.first):
        cut = [loops(r.tokens, drawn.repetition) for r in rollouts if r.truncated]
        if drawn.repetition.longest:
            metrics["rollout/looped"] = sum(cut) / n
        if drawn.horizon.first:
            metrics["rollout/horizon"] = float(drawn.tokens(step))
        if drawn.short(step):
            metrics |= {"rollout/cut": (len(cut) - sum(cut)) / n, "rollout/truncated": sum(cut) / n}
    counts = {
        "rollout/left_out": sum(bool(r.tokens) and not any(r.mask) for r in rollouts) / n,
        "rollout/redrawn": sum(r.tries for r in rollouts) / n,
        "rollout/beside": float(sum(len(r.beside) for r in rollouts)),
    }
    metrics |= {name: count for name, count in counts.items() if count}
    return metrics | ({"rollout/reward": sum(rewards) / len(rewards)} if rewards else {})


def ages(scored: Sequence[Scored], step: int) -> dict[str, float]:
    """Steps that the student had gone on when its samples were trained on; nothing where all are of step `step`."""
    steps = [step - s.rollout.version for s in scored if "student" in s.rollout.writers]
    return {"rollout/age": sum(steps) / len(steps), "rollout/age_max": float(max(steps))} if any(steps) else {}


def older(rollout: Rollout, step: int) -> bool:
    """Whether the student's weights of another step wrote it, be it long ago."""
    return rollout.version != step and any(map(math.isfinite, rollout.logprobs))


def measure(cfg: Config, parts: Parts, phases: Phases, recorder: Recorder, step: int) -> dict[str, float]:
    """Evaluate the engine's weights on held-out prompts, if any; the samples go to the run's `eval/` folder."""
    if not parts.data.eval_prompts(1):
        return {}
    with phases("eval"):
        result = evaluate(
            parts.engine, parts.teacher, parts.data, parts.tokenizer, cfg, parts.stop, parts.student.read,
            parts.team,
        )
        recorder.evaluation("student", step, result)
    return result.metrics
