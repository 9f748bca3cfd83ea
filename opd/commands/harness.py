"""`opd harness`: an exported checkpoint through lm-evaluation-harness, with that tool's own tasks and figures."""

from __future__ import annotations

import importlib.util
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from opd.commands.taken import taken
from opd.config.arguments import Debug, Json, Parts, echo, split_settings
from opd.extras import install
from opd.hints import nearest
from opd.models.there import check_there
from opd.types import Pretrained, UserError

Backend = Literal["hf", "vllm"]


def harness(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[run=DIR|model=PATH]", help="Default: the newest run.")
    ] = None,
    tasks: Annotated[
        str, typer.Option(help="Names of lm-eval's tasks, or YAML files of your own; commas between.")
    ] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many items of each task.")] = None,
    few_shot: Annotated[int | None, typer.Option(min=0, help="Worked examples; default: the task's own.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts into the model's chat template.")] = False,
    backend: Annotated[Backend, typer.Option(help="hf (transformers), or vllm (its GPU build).")] = "hf",
    batch: Annotated[int, typer.Option(min=1, help="Sequences at once in transformers.")] = 8,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for the figures; default: RUN/eval/harness.json.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust-remote-code", help="Code that comes with the model may run.")] = False,
    parts: Parts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run lm-evaluation-harness on the exported checkpoint of the newest run, of run=DIR, or on model=PATH."""
    from opd.disk import whole, writing
    from opd.run.directory import RunFolder, refuse_unwritable

    named, others = split_settings(settings or [], {"run", "model"})
    if others:
        raise UserError(f"{others[0]}: allowed are run=DIR and model=PATH; all else is an option, see --help")
    names = [name for name in tasks.split(",") if name]
    require(backend, names)
    named = taken(named)
    if not debug:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model, place, shown = subject(named, trust, parts or ())
    place = place if out is None else out
    refuse_unwritable(RunFolder(place.parent), "name another file by --out FILE")  # before an hour of measuring
    template = shown if chat else None
    results = evaluate(model, names, limit=limit, few_shot=few_shot, template=template, backend=backend, batch=batch)
    text = json.dumps(
        {"model": model.path, "backend": backend, "limit": limit, "chat": chat, **results}, indent=2, default=str
    )
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with whole(place, follow=out is not None) as part:
        part.write_text(text + "\n", encoding="utf-8")
    echo(text if as_json else f"{table(results)}\n{place}")


def require(backend: Backend, names: Sequence[str]) -> None:
    """Raise UserError where a package or the tasks are missing, before anything is loaded."""
    if not importlib.util.find_spec("lm_eval"):
        raise UserError(f"this needs lm-evaluation-harness, which is not installed:  {install('harness')}")
    if not names:
        raise UserError("--tasks: at least one must be named, as in --tasks arc_easy,hellaswag")
    if backend == "vllm" and not _installed("vllm"):
        raise UserError(
            "--backend vllm: lm-eval looks for the package vllm, which is not installed (its CPU build has another "
            "name); use --backend hf, or the GPU build"
        )


def subject(named: dict[str, str], trust: bool, parts: Sequence[str]) -> tuple[Pretrained, Path, Mapping[str, Any]]:
    """The model, whose own code may run where `trust` says so, and the file for its results.

    And what its run passes to the chat template: a student that learned not to think is not asked to.
    """
    from opd.config.compose import draft_of_run
    from opd.run.directory import find_run
    from opd.run.ways import way

    if "model" in named:
        if "run" in named:
            raise UserError(f"run={named['run']}: model={named['model']} is given too; leave one out")
        return (
            Pretrained(named["model"], trust),
            Path("runs") / time.strftime("harness-%Y%m%d-%H%M%S") / "eval" / "harness.json",
            {},
        )
    run = find_run(named)
    found = (file.parent for file in (run.path / "export").glob("*/config.json"))  # an adapter alone has none
    exported = [folder for folder in found if folder.name.removeprefix("step_").isdigit()]  # nor one that is packed
    if not exported:
        raise UserError(f"run={run.path}: it has no export yet; first:  {way('export', run, ours=False)}")
    config = draft_of_run(run.config, (), parts, models=False).checked().config
    model = Pretrained(str(max(exported)), trust)
    return model, run.evals / "harness.json", config.data.template_kwargs


def evaluate(
    model: Pretrained,
    tasks: Sequence[str],
    *,
    limit: int | None,
    few_shot: int | None,
    template: Mapping[str, Any] | None,
    backend: Backend,
    batch: int,
) -> dict[str, Any]:
    """What lm-eval reports: `results` by task, `groups`, versions, and its own settings.

    `template` is passed to the model's chat template; None: prompts are not put into one.

    Raises:
        UserError: a task that there is not, whose data cannot be had, or a folder without a model.
    """
    import datasets
    import jinja2
    import lm_eval
    from lm_eval.tasks import TaskManager

    from opd.devices.compute import pick_device

    check_there(model.path)
    manager = TaskManager()
    for name in tasks:
        if name not in manager.all_tasks and not (name.endswith(".yaml") and Path(name).is_file()):
            near = nearest(name, manager.all_tasks)
            raise UserError(f"--tasks {name}: no such task of lm-eval, nor a .yaml file{near}")
    settings: dict[str, Any] = {"pretrained": model.path, "dtype": "auto"}
    settings |= {"trust_remote_code": model.trust_remote_code, "chat_template_args": dict(template or {})}
    try:
        _load(manager, tasks)  # before the model: their data may not be at hand
        found: dict[str, Any] | None = lm_eval.simple_evaluate(
            backend, settings, list(tasks), task_manager=manager, limit=limit, num_fewshot=few_shot,
            batch_size=batch if backend == "hf" else "auto", device=str(pick_device("auto")),
            apply_chat_template=template is not None, log_samples=False,
        )  # fmt: skip
    except (OSError, datasets.exceptions.DatasetsError, jinja2.TemplateError) as error:
        raise UserError(f"--tasks {','.join(tasks)} of {model}: {str(error).strip().splitlines()[0]}") from error
    assert found is not None, "only other ranks have no results"
    return found


def _load(manager: Any, tasks: Sequence[str]) -> None:
    """Have lm-eval read the tasks; UserError for a file that is none."""
    import datasets

    for name in tasks:
        try:
            manager.load([name])
        except (OSError, datasets.exceptions.DatasetsError):
            raise
        except Exception as error:  # it reads a person's YAML as it comes, and fails wherever something is amiss
            if not name.endswith(".yaml"):
                raise
            said = " ".join(str(error).split())[:200]
            raise UserError(
                f"--tasks {name}: lm-eval cannot read this task ({type(error).__name__}: {said})"
            ) from error


def table(results: Mapping[str, Any]) -> str:
    """A line for each figure, of tasks and then of groups of them.

    lm-eval's own tables have letters for headings with the pytablewriter that its dependencies lead to.
    """
    from opd.console.plain import draw
    from opd.console.tables import Grid

    rows = []
    for name, found in {**results.get("results", {}), **results.get("groups", {})}.items():
        shots = str(results.get("n-shot", {}).get(name, ""))
        for key, value in found.items():
            metric, _, how = key.partition(",")
            if how and not metric.endswith("_stderr"):
                ends = (value, found.get(f"{metric}_stderr,{how}", ""))
                told = (f"{v:.4f}" if isinstance(v, float) else str(v) for v in ends)
                rows.append((str(found.get("alias", name)), shots, how, metric, *told))
    header = ("task", "examples", "filter", "metric", "value", "standard error")
    return "\n".join(line.rstrip() for line in draw(Grid("", header, tuple(rows)))[1:])


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
