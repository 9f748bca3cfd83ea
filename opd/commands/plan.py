"""`opd plan`: memory, seconds and GPU hours of a config on GPUs that need not be here; no weight is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opd.config.catalog import unnamed
from opd.config.compose import load
from opd.hints import joined
from opd.run.directory import RunFolder
from opd.types import UserError

if TYPE_CHECKING:
    from opd.config.settings import Config
    from opd.plan.forecast import Forecast
    from opd.survey.found import Found


@dataclass(frozen=True)
class Planned:
    """What a config comes to, and what a look at it has found."""

    forecast: Forecast
    found: Found
    notes: Sequence[str] = ()
    """What was made of what was typed, for people."""


def plan(
    conf: str | None,
    overrides: Sequence[str],
    gpu: str | None = None,
    gpus: int | None = None,
    prompt: float | None = None,
    tokens: float | None = None,
) -> Planned:
    """Look at a config, and predict it on `gpus` cards of a kind.

    Args:
        conf: its name or file.
        overrides: Hydra's.
        gpu: a card of `opd.plan.cards`, or `cpu`; None: what is here, measured where it is a processor.
        gpus: how many; None: as many as the config's `devices` ask for.
        prompt: mean tokens of a prompt; None: the longest allowed.
        tokens: mean tokens of a completion; None: the longest allowed.

    Raises:
        UserError: no such config or card, a mistake that shows without weights, or a model's config is not to be had.
    """
    if conf is None:
        raise unnamed(overrides)
    if gpu not in (None, "cpu"):
        from opd.plan.cards import card

        card(gpu)  # before torch, which a look at a model takes
    made = load(conf, overrides)
    config = made.config
    from opd.survey.look import check_disk, look

    found = look(config, reach=False)
    found.refuse()
    try:
        check_disk(config, found, RunFolder.at(config.runs).path)
    except UserError as error:  # it may be another machine's disk that the run will lie on
        found.warnings.append(str(error))
    return Planned(predicted(config, gpu, gpus, prompt, tokens), found, made.notes)


def predicted(
    config: Config, gpu: str | None, gpus: int | None = None, prompt: float | None = None, tokens: float | None = None
) -> Forecast:
    """The same of a config that is there."""
    from opd.devices.compute import dtype_name
    from opd.devices.threads import pick_threads
    from opd.plan.cards import card
    from opd.plan.forecast import forecast
    from opd.plan.here import here, processor
    from opd.plan.layout import layout_of
    from opd.plan.work import Lengths

    count = pick_threads(config.threads)
    chosen = here(count) if gpu is None else processor(count) if gpu == "cpu" else card(gpu)
    auto = dtype_name("auto", "cpu") if chosen.cpu else "bfloat16"
    lengths = Lengths.of(config, prompt, tokens)
    return forecast(config, chosen, layout_of(config, gpus), lengths, auto)


def shown(planned: Planned, gpus: int | None, as_json: bool) -> str:
    """As tables or as JSON."""
    from opd.plan.tables import lines
    from opd.survey import figures

    made, config = planned.forecast, planned.forecast.crew.config
    if as_json:
        return json.dumps(made.record() | {"run": figures.record(config, planned.found)}, indent=2)
    return "\n".join(
        [f"plan: {config.name}", *figures.lines(config, planned.found, planned.notes), "", *lines(made, gpus)]
    )


def command(conf: str, overrides: Sequence[str]) -> str:
    """The command that predicts a run; its networks take a while to look at, so that `--dry-run` only names it."""
    return f"  needs      shown by: {joined(['opd', 'plan', f'conf={conf}', *overrides])}"
