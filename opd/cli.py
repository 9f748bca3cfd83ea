"""The command line. Every heavy import is inside its command, so that `--help` answers at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from opd import __version__, api
from opd.commands.chat.command import chat, sample
from opd.commands.config import config_app
from opd.commands.diff import diff
from opd.commands.harness import harness
from opd.commands.init.command import init
from opd.commands.new import new
from opd.commands.recipe import recipe_app
from opd.commands.runs import runs
from opd.commands.taken import taken
from opd.commands.together import leave_to_first
from opd.commands.work import console_for
from opd.config.arguments import Debug, Json, Parts, Quiet, Settings, Version, echo, split_settings
from opd.devices.aloud import say
from opd.devices.launched import refuse_several
from opd.devices.shortage import shortage
from opd.hints import line
from opd.types import PartError, RunError, UserError

app = typer.Typer(
    name="opd",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(config_app, name="config")
app.add_typer(recipe_app, name="recipe")


@app.callback()
def options(context: typer.Context, version: Version = False) -> None:
    """On-policy distillation: the student writes, the teacher judges every token, the student learns."""
    leave_to_first(context.invoked_subcommand or "")


@app.command()
def train(
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of run=DIR.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Look at models and data, print the plan and the resolved config; do nothing."),
    ] = False,
    multirun: Annotated[bool, typer.Option("--multirun", "-m", help="Run every combination of a=1,2 b=3,4.")] = False,
    parts: Parts = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a student on its own samples."""
    named, overrides = split_settings(settings or [], {"conf", "run"})
    if dry_run:
        leave_to_first("train --dry-run")
    if multirun:
        refuse_several("--multirun", "give devices=ranks devices.ranks=N")
        from opd.commands.train.multirun import run_all

        chosen = {"--resume": resume, "--dry-run": dry_run, "--quiet": quiet, "--debug": debug}
        raise typer.Exit(min(1, run_all(named, overrides, [flag for flag, on in chosen.items() if on])))
    from opd.commands.train.job import Order, Training

    named = taken(named, overrides, quiet=quiet) if resume else named
    order = Order(named, overrides, resume=resume, quiet=quiet, debug=debug, parts=parts or ())
    if dry_run:
        from opd.commands.plan import command

        made = Training(order).plan()
        conf = str(made.run.config) if resume else named["conf"]
        echo(f"{made.looked_at()}\n{command(conf, overrides)}\n\n{made.composed.yaml}")
    else:
        api.carry_out(order)


@app.command()
def plan(
    settings: Settings = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="h100, h200, b200, a100-80, a100-40, l40s, 4090, ..., cpu; default: what is here."),
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, max=4096, help="How many; default: as devices says.")] = None,
    prompt: Annotated[
        float | None, typer.Option(min=1, max=1e9, help="Mean tokens of a prompt; default: the longest allowed.")
    ] = None,
    tokens: Annotated[
        float | None, typer.Option(min=1, max=1e9, help="Mean tokens of a completion; default: the longest allowed.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict memory, seconds and GPU hours of a config, and what would fit better; nothing is loaded."""
    from opd.commands import plan as forecast

    named, overrides = split_settings(settings or [], {"conf"})
    found = forecast.plan(named.get("conf"), overrides, gpu, gpus, prompt, tokens)
    echo(forecast.shown(found, gpus, as_json))


@app.command("eval")
def evaluate(
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for figures and completions; default: RUN/eval.")
    ] = None,
    parts: Parts = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure base, student and teacher side by side: of the newest run, run=DIR (step=N), or model=PATH conf=NAME."""
    named, overrides = split_settings(settings or [], {"conf", "run", "step", "model"})
    from opd.commands.eval.job import Evaluating
    from opd.commands.jobs import Order

    named = taken(named, overrides, quiet=quiet) | ({"out": str(out)} if out else {})
    job = Evaluating(Order(named, overrides, quiet=quiet, debug=debug, aside=as_json, parts=parts or ()))
    rows = job.carry_out()
    if as_json and job.first:
        echo(json.dumps(rows, indent=2))


@app.command()
def export(
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write; default: RUN/export.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write the LoRA adapter instead of the merged model.")
    ] = False,
    form: Annotated[
        str, typer.Option("--format", help="safetensors, or gguf for llama.cpp and Ollama, with a Modelfile.")
    ] = "safetensors",
    quantize: Annotated[
        str | None, typer.Option(help="Pack the weights: int8 or int4 as safetensors, q8_0 as gguf.")
    ] = None,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Put it on the Hugging Face hub, in a private repository.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: where everybody can read it.")] = False,
    parts: Parts = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a checkpoint of the newest run, or run=DIR (step=N), for other programs, and check that it is the same."""
    from opd.commands.export.order import Order

    Order(dtype, adapter, form, quantize).check_installed()  # before a run is looked for
    named, overrides = split_settings(settings or [], {"run", "step"})
    named = taken(named, overrides, quiet=quiet)
    console = console_for(as_json, quiet, debug)
    result = api.export(
        named.get("run"), *overrides, step=named.get("step"), out=out, dtype=dtype, adapter=adapter, format=form,
        quantize=quantize, push=push, public=public, parts=parts or (), console=console,
    )  # fmt: skip
    if as_json:
        echo(json.dumps(result, indent=2))


app.command()(sample)
app.command()(chat)
app.command()(harness)
app.command()(runs)
app.command()(diff)


@app.command()
def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Run folders; none: the newest one.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; default: RUN/report.html, or beside several runs."),
    ] = None,
    step: Annotated[
        list[int] | None, typer.Option("--step", help="Recorded step whose samples go in; may be given several times.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write one HTML file of a run, or of several side by side: curves, costs, samples, what the teacher minded."""
    from opd.report.page import write_report

    echo(write_report(runs or [taken({})["run"]], out, step or []))


app.command()(init)
app.command()(new)


@app.command("serve-teacher")
def serve_teacher(
    model: Annotated[str, typer.Argument(help="Folder, hub name, or conf=NAME for that config's teacher.")],
    extra: Annotated[
        list[str] | None, typer.Argument(metavar="-- VLLM_FLAGS", help="Further flags of vllm serve.")
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    top_k: Annotated[int, typer.Option(min=0, help="Likeliest tokens that may be asked for.")] = 20,
    dtype: Annotated[
        str,
        typer.Option(
            help="float32, bfloat16, float16, or auto: on a CPU what it is fast in, on a GPU the checkpoint's."
        ),
    ] = "auto",
    max_len: Annotated[int | None, typer.Option(min=2, help="Prompt and completion, and one more.")] = None,
) -> None:
    """Start a vLLM server that teacher=server can ask for log-probs."""
    from opd.commands.serve import serve

    serve(model, host=host, port=port, top_k=top_k, dtype=dtype, max_len=max_len, extra=extra or [])


@app.command()
def doctor(settings: Settings = None, as_json: Json = False) -> None:
    """Check this machine and installation, or the checkpoints of run=DIR: a verdict and a fix for each point."""
    from opd.commands.doctor import checked

    checks = checked(settings or [])
    echo(json.dumps([vars(c) for c in checks], indent=2) if as_json else "\n".join(map(str, checks)))
    raise typer.Exit(int(any(c.verdict == "fail" for c in checks)))


@app.command()
def version() -> None:
    """Print the version."""
    echo(__version__)


def fail(code: int, *messages: str) -> NoReturn:
    """Print a line for each on stderr and leave; of several processes that have the same to say one does."""
    say("\n".join(f"opd: {line(message)}" for message in messages))
    sys.exit(code)


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; turns errors into exit codes 1, 2, 129, 130 and 143."""
    from opd.console.outlet import mend
    from opd.disk import refusal
    from opd.run.interrupt import CtrlC, Interrupted
    from opd.run.startup import hush
    from opd.unseen import leave_out

    mend()
    leave_out()
    try:
        os.getcwd()
    except OSError:
        fail(2, "the folder that you are in is gone; change to another one")
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    hush(debug)
    try:
        with CtrlC():
            app(args=arguments, prog_name="opd")
    except UserError as e:
        fail(2, *e.each)
    except RunError as e:
        if debug and isinstance(e, PartError):
            raise
        fail(1, str(e))
    except Interrupted as e:
        fail(128 + e.signal, str(e))
    except (KeyboardInterrupt, SystemExit) as e:
        if isinstance(e, SystemExit) and e.code != 130:  # what Typer makes of KeyboardInterrupt
            raise
        lost = "; what came after the last checkpoint is lost" if arguments[:1] == ["train"] else ""
        fail(130, f"aborted{lost}")
    except Exception as e:  # the last resort: a person gets one line, a developer asks for the traceback
        if debug:
            raise
        if said := shortage(e) or refusal(e):
            fail(1, str(said))
        fail(1, f"internal error, {type(e).__name__}: {str(e)[:300]}; see it with --debug")


if __name__ == "__main__":
    main()
