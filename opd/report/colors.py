"""Colours of a page, light and dark, that people with any kind of colour vision can tell apart.

Blue and orange are the pair that all kinds of colour blindness keep apart; on both sides a stronger disagreement is
further from the page in lightness too. Contrast as in the Web Content Accessibility Guidelines 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

EDGES = (0.1, 0.5, 1.0, 2.0, 4.0)
"""Nats at which a stronger colour begins."""
PAGES = ("#ffffff", "#14171c")
"""Backgrounds, light and dark."""
INKS = ("#16191d", "#e8eaed")
"""Texts on them."""
BLUES = (
    ("#e4eff9", "#bcd8ef", "#86b8de", "#3f86c0", "#0b4f94"),
    ("#18293a", "#1d4060", "#285f92", "#5b9fdd", "#b5dbff"),
)
"""From weak to strong, light and dark: the teacher finds the token likelier than the student."""
ORANGES = (
    ("#fdecdb", "#fbd2ab", "#f5a866", "#d96c14", "#8f3c04"),
    ("#3a2614", "#5d3914", "#8f5212", "#e58f38", "#ffd0a0"),
)
"""The teacher finds it less likely."""
LINES = (
    ("#0072b2", "#c24e00", "#00795a", "#a3417f", "#7a5c00", "#4b4bc8"),
    ("#56b4e9", "#f0924a", "#2fcf9f", "#e39fc6", "#e3cf3f", "#a9a9ff"),
)
"""Lines of runs, after Okabe and Ito's palette; each has a dash pattern as well."""
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "5 2", "12 4")
RUNS = 2 * len(DASHES)
"""Runs that a page can tell apart: from the seventh on colours come back, with other dashes."""


def level(nats: float) -> int:
    """The colour of a disagreement: 0 for none, up to 5 with the sign of `nats`."""
    strength = sum(abs(nats) >= edge for edge in EDGES)
    return strength if nats > 0 else -strength


def token_class(nats: float) -> str:
    """CSS class of a level: `p3` for +3, `n3` for -3, `z` for 0, `u` where it is not known."""
    if nats != nats:  # NaN
        return "u"
    found = level(nats)
    return "z" if not found else f"{'p' if found > 0 else 'n'}{abs(found)}"


def luminance(color: str) -> float:
    """Relative luminance of `#rrggbb`."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """From 1 to 21; text needs 4.5, lines 3."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(background: str) -> str:
    """The darker or the lighter text, whichever is better read."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, background))


def _both(colors: Sequence[str]) -> str:
    return f"light-dark({','.join(colors)})"


def css() -> str:
    """Rules of the page's colours, of tokens and of runs."""
    rules = [f":root{{--page:{_both(PAGES)};--ink:{_both(INKS)}}}"]
    for name, (light, dark) in {"n": BLUES, "p": ORANGES}.items():
        for i, pair in enumerate(zip(light, dark, strict=True), start=1):
            inks = [ink_on(c) for c in pair]
            rules.append(f".{name}{i}{{background:{_both(pair)};color:{_both(inks)}}}")
    pairs, n = list(zip(*LINES, strict=True)), len(DASHES)
    for i in range(RUNS):
        rules.append(f".run{i}{{--run:{_both(pairs[i % n])};--dash:{DASHES[(i + i // n) % n]}}}")
    return "\n".join(rules)
