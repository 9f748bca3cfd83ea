"""What a source is made of, and what of that a run has to know before it starts.

A source may say of itself, each time with a `True` that others do without:

- `verifies`: a task's verifier is asked;
- `needs_ends`: and of the completions that it hands over, which therefore have to be whole;
- `needs_teacher`: it goes by the teacher's log-probs of what the student writes;
- `picks`: it takes other prompts than those that it is given;
- `deals`: it has parts that share out the prompts that it is given together;
- `lockstep`: it has two engines write each token together, where their settings say `lockstep` of themselves, too;
- `stale`: its samples are of older weights than those that are trained.

As a number it may have `max_turns`, of a conversation that it holds; as texts `dealing`, how it deals prompts out, and
`remark`, what people are told of its settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from opd.called import called


def parts_of(source: Any) -> Iterator[Any]:
    """A source and all that it is made of."""
    yield source
    inner = [*getattr(source, "tasks", {}).values(), *getattr(source, "used", {}).values()]
    for part in [*inner, *filter(None, [getattr(source, "others", None)])]:
        yield from parts_of(part)


def saying(source: Any, what: str) -> str | None:
    """What the first of its parts is called that says `what` of itself; None: none does."""
    return next((called("source", part) for part in parts_of(source) if getattr(part, what, False)), None)


def turns_of(source: Any, task: str) -> int:
    """Turns of the student, at most, in what a source writes of a task's prompts; 1: completions alone."""
    if (tasks := getattr(source, "tasks", None)) is not None:
        return turns_of(tasks.get(task, source.others), task)
    inner = [turns_of(part, task) for part in getattr(source, "used", {}).values()]
    return max([getattr(source, "max_turns", 1), *inner])
