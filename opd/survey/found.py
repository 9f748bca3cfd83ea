"""What a look at a config has found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opd.parts import Texts
from opd.plan.shape import Shape
from opd.types import Mistakes, Pretrained, UserError


@dataclass
class Found:
    """What is wrong, what could not be looked at, and figures."""

    mistakes: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    """What was not looked at, and why."""
    warnings: list[str] = field(default_factory=list)
    """What would be a mistake on this machine, and what says little."""
    notes: list[str] = field(default_factory=list)
    """What tasks tell of their rows."""
    rows: dict[str, int] = field(default_factory=dict)
    """Prompts to train on, by task; of procedural tasks all that there could be."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Those beside them that are too long, or empty."""
    evaluated: Mapping[str, int] | None = None
    """Prompts that are evaluated, by task; None where not all tasks were looked at."""
    there: Mapping[str, Pretrained] = field(default_factory=dict)
    """Models that can be read here, by the setting that names them."""
    shape: Shape | None = None
    """The student, adapters included; None where its sizes are not known."""
    texts: Texts | None = None
    """Tokenizer and data, where both are there and in order."""

    @contextmanager
    def trying(self) -> Iterator[None]:
        """What a person can mend is written down, once, and what comes after is looked at all the same."""
        try:
            yield
        except UserError as error:
            if str(error) not in self.mistakes:
                self.mistakes.append(str(error))

    def refuse(self) -> None:
        """Raise UserError where there is a mistake."""
        refuse(self.mistakes)


def refuse(mistakes: Sequence[str]) -> None:
    """Raise UserError where there is one, with all of them."""
    if mistakes:
        raise UserError(mistakes[0]) if len(mistakes) == 1 else Mistakes(*mistakes)
