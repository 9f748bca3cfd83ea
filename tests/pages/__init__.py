"""What of the pages of `docs/` is made from the code: `make docs` writes it, tests say whether it is stale."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- made by make docs -->\n", "<!-- end -->\n"


def part(page: Path) -> str:
    """What is made in a page."""
    return page.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


def write(page: Path, made: str) -> None:
    """Put it there anew."""
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace(part(page), made), encoding="utf-8")
