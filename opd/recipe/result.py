"""What a recipe has found: tables and claims, as data, from which the README's part and the plots are made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from opd.disk import whole
from opd.plain import plain
from opd.recipe.numbers import decode, to_json
from opd.types import UserError

BEGIN, END = "<!-- result: made from result.json -->", "<!-- end of result -->"
Verdict = Literal["reproduced", "partly", "not reproduced", "not run"]


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers under a title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]


@dataclass(frozen=True)
class Claim:
    """A published claim and what became of it here."""

    text: str
    found: str
    verdict: Verdict


@dataclass(frozen=True)
class Result:
    """All of it."""

    tables: tuple[Table, ...]
    claims: tuple[Claim, ...]
    data: Mapping[str, Any] = field(default_factory=dict)
    """What the plots need, as JSON has it."""
    seconds: float = 0.0
    """Of all stages, added up, also where several ran at once; 0 where it is not known."""

    def write(self, path: Path, **more: Any) -> None:
        """Write `result.json`, with what else should stand in it, such as the machine."""
        with whole(path) as part:
            part.write_text(to_json(asdict(self) | more, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read `result.json`; null in a table or in the data is NaN."""
        raw = decode(plain(path.read_text(encoding="utf-8")))
        tables = tuple(
            Table(t["title"], tuple(t["columns"]), tuple(tuple(row) for row in t["rows"])) for t in raw["tables"]
        )
        return cls(tables, tuple(Claim(**c) for c in raw["claims"]), raw["data"], raw["seconds"])


def markdown(result: Result, plots: Sequence[str]) -> str:
    """The result as a README shows it: claims, tables, plots, and how long it took."""
    parts = [f"**{c.verdict.capitalize()}:** {c.text} Here: {c.found}" for c in result.claims]
    for table in result.tables:
        lines = [f"| {' | '.join(map(cell, row))} |" for row in (table.columns, *table.rows)]
        lines.insert(1, f"|{' --- |' * len(table.columns)}")
        parts.append(f"{table.title}\n\n" + "\n".join(lines))
    parts += [f"![{name.replace('_', ' ')}]({name}.png)" for name in plots]
    if result.seconds:
        parts.append(f"All stages together took {max(1, round(result.seconds / 60))} minutes.")
    return "\n\n".join(parts)


def cell(value: str | float) -> str:
    """A number with three digits; a text on one line, whose bars do not end the cell."""
    if isinstance(value, str):
        return re.sub(r"(?<!\\)\|", r"\\|", " ".join(value.splitlines()))
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def with_result(readme: str, text: str) -> str:
    """A README with its result put between the two marks.

    Raises:
        UserError: it has no such marks.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"README.md: it needs the lines `{BEGIN}` and `{END}`, between which the result is put")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
