"""Everything of a run that shows without weights, in the order in which a person would mend it."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path

from opd.config.settings import Config
from opd.disk import refuse_narrow
from opd.models.hub import offline
from opd.run.checkpoint import Checkpoint
from opd.run.room import more_at_once
from opd.survey.data import look_at_data
from opd.survey.found import Found
from opd.survey.models import look_at_models
from opd.types import UserError

SAVED = 3 * 4
"""Bytes in a checkpoint for each trained weight: itself and the optimizer's two means of it, in float32."""


def look(
    cfg: Config, *, reach: bool, made: bool = False, run: Path | None = None, begun: Checkpoint | None = None
) -> Found:
    """Look at models, vocabularies, data, verifiers and disk; loads no weight, makes no model, writes nothing.

    Args:
        cfg: The run's settings.
        reach: Whether hubs and servers may be asked, as a run does.
        made: Whether models that are made on first use are there by now.
        run: Folder of the run, on whose disk there has to be room; None: the disk is not looked at. Where the student
            is not here, the run may well be another machine's, and too little room is no mistake yet.
        begun: The checkpoint that it would go on from.

    Returns:
        What was found; mistakes are in it, and are not raised.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it comes with peft, and says what it lacks
    found = Found()
    with nullcontext() if reach else offline():
        reader = look_at_models(cfg, reach, made, begun, found)
        look_at_data(cfg, reach, reader, found)
        if run is not None:
            try:
                check_disk(cfg, found, run, begun.step if begun else 0)
            except UserError as error:
                (found.mistakes if reach or reader else found.warnings).append(str(error))
    return found


def check_disk(cfg: Config, found: Found, run: Path, done: int = 0) -> None:
    """Raise UserError where the checkpoints of what is trained have no room."""
    if found.shape is not None:
        trained = sum(weight.count for weight in found.shape.weights if weight.trained)
        refuse_narrow(run, SAVED * trained, more_at_once(cfg, run, done))
