"""What the command line does, as functions, for notebooks and scripts: `import opd` brings these, and no torch.

Mistakes are `UserError`, runs that cannot go on `RunError`, a signal in mid-run `Interrupted`: with the command line's
messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opd.run.interrupt import Interrupted
from opd.types import RunError, UserError

if TYPE_CHECKING:
    import pandas

    from opd.commands.train.job import Order
    from opd.config.compose import Composed
    from opd.config.settings import Config
    from opd.console import Console
    from opd.run.directory import RunFolder

__all__ = [
    "Interrupted", "Rows", "Run", "RunError", "UserError",
    "compose", "evaluate", "export", "load_run", "resume", "sample", "train",
]  # fmt: skip

Place = str | Path | None
Step = int | str | None


class Rows(list[dict[str, Any]]):
    """Records of the same kind, in order."""

    def frame(self) -> pandas.DataFrame:
        """The same as a pandas data frame: a row for each, a column for every name."""
        import pandas

        return pandas.DataFrame.from_records(self)


@dataclass(frozen=True)
class Run:
    """A run: where it is, what it is made of, and what it wrote down; read anew at every access."""

    path: Path
    parts: Sequence[str] = ()
    """Modules and packages beyond those that ship whose classes its config may name."""

    @property
    def folder(self) -> RunFolder:
        """Where which of its files lies."""
        from opd.run.directory import RunFolder

        return RunFolder(self.path)

    @property
    def config(self) -> Config:
        """Its settings."""
        from opd.config.compose import draft_of_run

        return draft_of_run(self.folder.config, (), self.parts, models=False).checked().config

    @property
    def metrics(self) -> Rows:
        """One row a step, in order, the step itself under `step`; 0 is before the first one."""
        from opd.run.metrics import read_metrics

        return Rows(read_metrics(self.folder.metrics))

    @property
    def evaluations(self) -> Rows:
        """One row for each model that was evaluated, also by `evaluate`: its `name`, `file`, and `eval/...` figures."""
        from opd.run.results import read_evaluation

        files = sorted(self.folder.evals.glob("*.json"))
        return Rows({"name": e["name"], "file": f.stem} | e["metrics"] for f in files for e in [read_evaluation(f)])

    @property
    def steps(self) -> list[int]:
        """The steps whose completions were kept (`log.rollouts_every`)."""
        from opd.run.transcripts import recorded_steps

        return recorded_steps(self.folder.rollouts)

    def rollouts(self, step: int) -> Rows:
        """The completions of one of the `steps`, one row each: prompt, completion, reward, tokens, log-probs (nats)."""
        from opd.run.transcripts import read_rows

        if step not in self.steps:
            raise UserError(f"step={step}: its completions were not kept; there are {self.steps or 'none'}")
        return Rows(read_rows(self.folder.rollouts, step))

    @property
    def checkpoints(self) -> list[int]:
        """The steps that there are checkpoints of, oldest first."""
        from opd.run.checkpoint import checkpoints

        return [c.step for c in checkpoints(self.folder.checkpoints)]


AnyRun = Run | str | Path | None
"""A run, its folder, or the newest one."""


def compose(conf: str | Path, *overrides: str, **parts: Any) -> Composed:
    """Put a config together and check it; reads no weight, writes nothing.

    Args:
        conf: name of a config that ships, or a file.
        overrides: as on the command line, `"optim.lr=1e-5"`.
        parts: objects in place of whole parts, `objective=MyObjective()`; any field of a `Config`.
    """
    from opd.config.compose import load

    composed = load(str(texts(conf, overrides)), overrides)
    return composed.with_parts(**parts) if parts else composed


def texts(conf: str | Path, overrides: Sequence[str]) -> str | Path:
    """The config's name; UserError where it or an override is something else than a text."""
    if not isinstance(conf, str | Path):
        raise UserError(f"conf: allowed is a name or a file, and this is a {type(conf).__name__}")
    for text in overrides:
        if not isinstance(text, str):
            raise UserError(f"{text!r}: allowed are texts, each an argument of its own, such as 'optim.lr=1e-5'")
    return conf


def train(
    conf: str | Path | Composed, *overrides: str, run: Place = None, quiet: bool = False,
    console: Console | None = None,
) -> Run:  # fmt: skip
    """Train a student: `opd train`. A new run, in the folder `run` or one of its own under `runs`."""
    from opd.commands.train.job import Order
    from opd.config.compose import Composed

    if isinstance(conf, Composed) and overrides:
        raise UserError(f"{overrides[0]}: a config that is composed already takes no overrides; give them to compose()")
    if isinstance(conf, Composed):
        order = Order(named(run=run), conf.overrides, yaml=conf.yaml, quiet=quiet)
        return carry_out(order, composed=conf, console=console)
    return carry_out(Order(named(conf=texts(conf, overrides), run=run), overrides, quiet=quiet), console=console)


def resume(
    run: AnyRun = None, *overrides: str, quiet: bool = False, parts: Sequence[str] = (), console: Console | None = None
) -> Run:
    """Go on from the newest checkpoint of a run, by default of the newest: `opd train --resume`."""
    from opd.commands.train.job import Order

    return carry_out(
        Order(named(run=run), overrides, resume=True, quiet=quiet, parts=_parts(run, parts)), console=console
    )


def carry_out(order: Order, *, composed: Composed | None = None, console: Console | None = None) -> Run:
    """Train as ordered, unless it is done."""
    from opd.commands.train.job import Training

    return Run(Training(order, composed=composed, console=console).carry_out().absolute(), order.parts)


def evaluate(
    run: AnyRun = None, *overrides: str, step: Step = None, model: Place = None,
    conf: Place = None, out: Place = None, quiet: bool = False, parts: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Measure base, student and teacher side by side: `opd eval`. `{"student before": {"eval/accuracy": ...}, ...}`.

    Args:
        run: the newest one, if none is given.
        overrides: as on the command line, `"data=gsm8k"`.
        step: one of its checkpoints; default: the last.
        model: any model instead of a run, with `conf` for prompts, teacher and sampling.
        conf: see `model`.
        out: folder for figures and completions; default: the run's `eval/`.
        quiet: only warnings and the last line.
        parts: modules and packages beyond those that ship whose classes the run may name.
        console: who shows it; default: what the terminal can show.
    """
    from opd.commands.eval.job import Evaluating
    from opd.commands.jobs import Order

    given = named(run=run, step=step, model=model, conf=conf, out=out)
    order = Order(given, overrides, quiet=quiet, parts=_parts(run, parts))
    return Evaluating(order, console=console).carry_out()


def export(
    run: AnyRun = None, *overrides: str, step: Step = None, out: Place = None,
    dtype: str = "bfloat16", adapter: bool = False, format: str = "safetensors", quantize: str | None = None,
    push: str | None = None, public: bool = False, quiet: bool = False, parts: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a checkpoint for other programs, and check that it is the same model: `opd export`.

    Returns:
        `path` of the folder, `step`, `dtype` and `parity` (mean nats a token from the learner); where it was `pushed`.
    """
    from opd.commands.export.order import Order
    from opd.commands.export.push import asked
    from opd.commands.finding import find_subject
    from opd.commands.heeded import say_unheeded
    from opd.commands.work import at_work
    from opd.devices.launched import refuse_other

    refuse_other("opd.export")
    order, repo = Order(dtype, adapter, format, quantize), asked(push, public)
    order.check_installed()
    subject = find_subject(named(run=run, step=step), overrides, _parts(run, parts))
    say_unheeded("export --format gguf" if format == "gguf" else "export", overrides)
    from opd.commands.export.export import export_run

    with at_work(subject.made, quiet, console) as shown:
        written = export_run(subject, shown, order, out=None if out is None else Path(out), repo=repo)
        shown.finish(f"exported: {written['path']}" + (f", pushed to {repo.name}" if repo else ""))
    return written


def sample(
    run: AnyRun = None, prompts: str | Sequence[str] | None = None, *overrides: str, n: int = 1,
    temperature: float = 1.0, max_tokens: int | None = None, step: Step = None, model: Place = None,
    conf: Place = None, parts: Sequence[str] = (), console: Console | None = None,
) -> Rows:  # fmt: skip
    """Let the student answer prompts, by default three of its data, held-out first: `opd sample`; `n` rows each."""
    from opd.commands.finding import find_subject
    from opd.commands.heeded import say_unheeded
    from opd.commands.work import at_work

    subject = find_subject(named(run=run, step=step, model=model, conf=conf), overrides, _parts(run, parts))
    say_unheeded("sample", overrides)
    from opd.commands.chat.sample import Request, sample_texts

    with at_work(subject.made, True, console) as shown:
        asked = [prompts] if isinstance(prompts, str) else prompts
        return Rows(sample_texts(subject, shown, Request(asked, n, temperature, max_tokens)))


def load_run(run: AnyRun = None, runs: str | Path = "runs", parts: Sequence[str] = ()) -> Run:
    """A run that is there already: the one in the folder `run`, else the newest under `runs`.

    Its config may name classes of `parts`, modules and packages, beyond those that ship.
    """
    from opd.run.directory import newest_run, open_run

    given = named(run=run)
    found = open_run(given["run"]) if given else newest_run(str(runs))
    return Run(found.path.absolute(), _parts(run, parts))


def named(**given: Any) -> Mapping[str, str]:
    """What is given, as the command line has it."""
    found = {name: value.path if isinstance(value, Run) else value for name, value in given.items()}
    return {name: str(value) for name, value in found.items() if value is not None}


def _parts(run: AnyRun, parts: Sequence[str]) -> tuple[str, ...]:
    """What is allowed, beside what is allowed of the run already."""
    return (*(run.parts if isinstance(run, Run) else ()), *parts)
