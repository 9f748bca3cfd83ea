"""What `opd train` is about to do: with which config, in which folder, from which step; nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from opd.called import called
from opd.config.catalog import unnamed
from opd.config.compose import Composed, Draft, draft, draft_of_run, load, read_back
from opd.config.stop import StopConfig, less_is_better
from opd.devices.team import Team, first_rank
from opd.protocols import Devices, ModelSource
from opd.run.checkpoint import latest, none_good, step_of, strangers
from opd.run.directory import RunFolder, find_run, new_run, refuse_unwritable
from opd.run.left import refuse_used
from opd.teaching import Teacher
from opd.types import UserError
from opd.writing import Source

if TYPE_CHECKING:
    from opd.config.settings import Config


Told = tuple[str, tuple[str, ...], str, bool]
"""The settings as YAML, and the other fields of a plan."""
LONGEST = 100
"""Characters of a model's name."""


@dataclass(frozen=True)
class Plan:
    """A run that can be started."""

    composed: Composed
    run: RunFolder
    free: bool = False
    """Whether the folder may as well have another name: nobody has asked for this one."""

    def looked_at(self) -> str:
        """The plan with what a look at it has found, for people; no hub is asked, and nothing is written.

        Raises:
            UserError: there are mistakes that a run would end with; with all of them.
        """
        from opd.survey import figures
        from opd.survey.look import look

        config = self.composed.config
        begun, _ = latest(self.run.checkpoints, read=None)
        found = look(config, reach=False, run=self.run.path, begun=begun)
        found.refuse()
        said = figures.lines(config, found, self.composed.notes)
        return "\n".join([describe(config, self.run, found.evaluated), *said])

    def told(self) -> Told:
        """The same in plain values, for another process; `heard` takes them back."""
        return self.composed.yaml, self.composed.overrides, str(self.run.path), self.free


def heard(told: Told) -> Plan:
    """The plan that another process has made; what it left open is decided in it."""
    yaml, overrides, run, free = told
    return Plan(read_back(yaml, overrides), RunFolder(Path(run)), free)


def agreed(team: Team, make: Callable[[], Plan]) -> Plan:
    """The plan that the first rank makes, on all: a run's name holds the time, and idle cores come and go."""
    return make() if team.size == 1 else heard(first_rank(team, lambda: make().told()))


def drafted(named: Mapping[str, str], overrides: Sequence[str], resume: bool, parts: Sequence[str] = ()) -> Draft:
    """What is asked for, as far as it is known without torch; UserError where that is a mistake already."""
    if resume:
        return draft_of_run(run_named(named, overrides).config, overrides, parts)
    if "conf" not in named:
        raise unnamed(overrides)
    if "run" in named:
        refuse_used(RunFolder.at(named["run"]))
    return draft(named["conf"], overrides)


def fresh(conf: str | Path | Draft | Composed | None, overrides: Sequence[str], run: str | Path | None = None) -> Plan:
    """Plan a new run of a config, in the folder `run` or one of its own."""
    if conf is None:
        raise unnamed(overrides)
    if run is not None:
        refuse_used(RunFolder.at(str(run)))
    composed = conf.checked() if isinstance(conf, Draft) else conf
    composed = (load(str(composed), overrides) if isinstance(composed, str | Path) else composed).settled()
    config = composed.config
    folder = new_run(config.runs, config.name) if run is None else RunFolder.at(str(run))
    refuse_unwritable(folder)
    return Plan(composed, folder, free=run is None)


def resumed(
    named: Mapping[str, str], overrides: Sequence[str], parts: Sequence[str] = (), begun_with: Draft | None = None
) -> Plan:
    """Plan to go on with `run=`, or with the newest run, from its newest checkpoint; without any, from the beginning.

    `begun_with`: its config with the overrides, where that is drafted already.
    """
    run = run_named(named, overrides)
    composed = (begun_with or draft_of_run(run.config, overrides, parts)).checked().settled()
    begun = draft_of_run(run.config, (), parts, models=False).checked().config.student
    for name in ("model", "lora"):
        now, then = getattr(composed.config.student, name), getattr(begun, name)
        if now != then:
            raise UserError(f"student.{name}: a run goes on with the student that it began with; begin a new run")
    newest, damaged = latest(run.checkpoints, read=None)  # who goes on from it reads it to the end
    others = strangers(run.checkpoints)
    if newest is None and (damaged or others):
        raise none_good(run.path, damaged)
    if ahead := [path for path in others if newest and step_of(path) > newest.step]:
        raise UserError(f"{ahead[0]}: this is no checkpoint of the run, which will write one there; move it elsewhere")
    return Plan(composed, run)


def run_named(named: Mapping[str, str], overrides: Sequence[str]) -> RunFolder:
    """The run to go on with."""
    if "conf" in named:
        raise UserError(f"conf={named['conf']}: a run goes on with its own config; leave this or --resume out")
    return find_run(named, overrides)


def describe(cfg: Config, run: RunFolder, evaluated: Mapping[str, int] | None) -> str:
    """The plan in a few lines; `evaluated`: prompts that are held out and asked for, by task, where that is known."""
    from opd.evaluation.held_out import asked
    from opd.plan.turns import beside

    rollouts = cfg.data.prompts_per_step * cfg.sampling.n
    evals = f"at steps 0, {cfg.steps}" + (f" and every {cfg.eval.every}" if cfg.eval.every else "")
    lora = f"LoRA rank {cfg.student.lora.rank}" if cfg.student.lora else "all weights"
    size = f"{cfg.data.prompts_per_step} prompts x {cfg.sampling.n} samples = {rollouts} rollouts"
    more = f", and {extra} beside them" if (extra := beside(cfg)) else ""
    tokens, horizon = cfg.sampling.tokens(cfg.steps - 1), cfg.sampling.horizon.said(cfg.sampling.max_tokens)
    lines = [
        f"plan: {cfg.steps} steps of {size}, at most {rollouts * tokens} tokens a step{more}",
        f"  student    {model_name(cfg.student.model)}, {lora}",
        f"  teacher    {teacher_name(cfg.teacher)}",
        f"  objective  {type(cfg.objective).__name__}, needs {cfg.objective.needs}",
        f"  source     {source_name(cfg.source)}",
        f"  engine     {type(cfg.rollout).__name__}, temperature {cfg.sampling.temperature:g}",
        *([f"  horizon    {horizon}"] if horizon else []),
        f"  computes   {cfg.computes}",
        *([f"  devices    {where}"] if (where := places(cfg.devices)) else []),
        f"  data       {', '.join(cfg.data.tasks)}",
        f"  eval       {asked(cfg, evaluated)}, {evals}",
        f"  checkpoint every {cfg.checkpoint.every} steps, the newest {cfg.checkpoint.keep} kept"
        + (f", and the best by {cfg.checkpoint.best}" if cfg.checkpoint.best else ""),
        *([f"  stops      {stops(cfg.stop)}"] if cfg.stop.metric else []),
        f"  run        {run.path}",
    ]
    return "\n".join(lines)


UNSPREAD = ("tensor_parallel", 1)
"""Nothing to tell of: as all engines are."""


def places(devices: Devices) -> str:
    """Where a run computes, as it is typed; empty: one process, in which all happens in turn."""
    names = ("ranks", "shard", "engines", "ahead", "tensor_parallel")
    typed = {name: value for name in names if (value := getattr(devices, name, None)) and (name, value) != UNSPREAD}
    kind = called("devices", devices)
    return "" if kind == "one" and not typed else " ".join([kind, *(f"{k}={v}" for k, v in typed.items())])


def stops(stop: StopConfig) -> str:
    """When a run is over before its last step."""
    metric = stop.metric or ""
    least = "at most" if less_is_better(metric) else "at least"
    rules = [f"{metric} {least} {stop.target:g}"] if stop.target is not None else []
    margin = f" by more than {stop.change:g}" if stop.change else ""
    rules += (
        [f"{metric} not better{margin} in {stop.patience} evaluation{'s' if stop.patience > 1 else ''}"]
        if stop.patience is not None
        else []
    )
    return " or ".join(rules)


def source_name(source: Source) -> str:
    """A source's kind, and how it deals prompts out where it does."""
    dealing = getattr(source, "dealing", "")
    return type(source).__name__ + (f", {dealing} of the prompts" if dealing else "")


def teacher_name(teacher: Teacher) -> str:
    """A teacher as a person would name it: its kind, and its model where it has one."""
    model = getattr(teacher, "model", None)
    return f"{model_name(model)} ({type(teacher).__name__})" if model else type(teacher).__name__


def model_name(model: str | ModelSource | None) -> str:
    """A model as a person would name it: a path or a hub name, or how it is made, what is nested by its kind alone."""
    if isinstance(model, str) or not is_dataclass(model):
        return str(model)
    values = ((f.name, getattr(model, f.name)) for f in fields(model))
    own = (f"{k}={type(v).__name__ if is_dataclass(v) else v}" for k, v in values if v is not None)
    return shorten(f"{type(model).__name__}({', '.join(own)})", LONGEST, placeholder=" ...)")
