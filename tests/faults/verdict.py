"""What is right and wrong about an end, whatever has led to it; and the table of all."""

from __future__ import annotations

from collections.abc import Iterator


def table(tried: dict[str, list[str]]) -> int:
    """Print it; 1 where something has not held."""
    print(f"{'group':18} {'tried':>6} {'passed':>7}")
    for group, found in tried.items():
        print(f"{group:18} {len(found):6} {found.count(''):7}")
    failed = [text for found in tried.values() for text in found if text]
    print("\n".join(["", *failed]) if failed else "")
    return int(bool(failed))


def said(text: str) -> Iterator[str]:
    """What is wrong with an error's line."""
    if not text.isprintable():
        yield f"it does not print: {text[:200]!r}"
    if len(text) > 2010:
        yield f"a line of {len(text)} characters"
    if "internal error" in text or "Traceback" in text:
        yield text[:200]
