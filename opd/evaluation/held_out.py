"""How many prompts an evaluation has, and whether that is enough to say anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from opd.config.settings import Config
from opd.console.figures import FEW, share
from opd.data.prompts import PromptStream, equally
from opd.evaluation.evaluate import interval


def too_few(cfg: Config, evaluated: Mapping[str, int]) -> Iterator[str]:
    """What is to be said of tasks of which so few prompts are held out that their figures say next to nothing.

    Args:
        cfg: The run's settings. Who asks for few prompts (`eval.size`) gets them without a word.
        evaluated: How many prompts there are, by task.
    """
    for name, asked in equally(cfg.eval.size, evaluated).items():
        count = evaluated[name]
        if count >= min(asked, FEW):
            continue
        key, fraction = f"data.tasks.{name}", getattr(cfg.data.tasks[name], "eval_fraction", None)
        rows = fraction is not None
        more = f"raise {key}.eval_fraction, or name others by {key}.eval_path" if rows else "give the task more of them"
        if not count and fraction == 0 and any(evaluated.values()):  # somebody's wish: other tasks are evaluated
            continue
        if not count:
            yield f"{key}: no prompts are held out, and none are evaluated; {more}"
            continue
        low, high = interval(np.full(count, 0.5), 1)
        yield (
            f"{key}: only {count} prompt{'s are' if count > 1 else ' is'} held out, and what is measured on so few "
            f"says next to nothing (an accuracy of 50% would be anything from {share(low, 0)} to {share(high, 0)}); "
            f"{more}"
        )


def trained_on(data: PromptStream, size: int) -> Iterator[str]:
    """What is to be said of tasks of whose held-out prompts, `size` in all, some are trained on: by another, or itself.

    Tasks over rows hold out what they do not train on; one of one's own may do anything.
    """
    for name, (count, looked_at) in data.in_both(size).items():
        yield (
            f"data.tasks.{name}: {count} of {looked_at} held-out prompts are trained on too, and its figures are not "
            "of unseen prompts; have its examples('train') leave out those of examples('eval')"
        )
    for name, (count, size) in (data.trained_too(data) if len(data.names) > 1 else {}).items():
        yield (
            f"data.tasks.{name}: {count} of the {size} prompts that it holds out are trained on by another task, and "
            "its figures are not of unseen prompts; give both the same eval_fraction, or take these rows out of one"
        )


def asked(cfg: Config, evaluated: Mapping[str, int] | None) -> str:
    """What is evaluated, for a plan: `200 prompts x 1`, or how many there are of those that were asked for."""
    size = cfg.eval.size
    if evaluated is None:
        return f"at most {size} prompts x {cfg.eval.n}"
    count = sum(evaluated.values())
    why = "and no more are held out" if len(evaluated) == 1 else "in equal parts by task, as far as there are so many"
    left = "" if count == size else f" (eval.size={size}, {why})"
    return f"{count or 'no'} prompts x {cfg.eval.n}{left}" if count != 1 else f"1 prompt x {cfg.eval.n}{left}"
