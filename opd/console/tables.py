"""The tables at the end of a run, as rows of text; the two forms of the console draw them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from opd.console import figures
from opd.console.base import Metrics
from opd.hints import printable

WIDE = 72
"""Columns of terminal below which the eval table leaves the total of tokens out."""


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Names of models and tasks are anybody's words: what would drive a terminal is spelled out."""
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "header", tuple(map(printable, self.header)))
        object.__setattr__(self, "rows", tuple(tuple(map(printable, row)) for row in self.rows))


ENDS = ("_low", "_high")
"""What the names of an interval's ends end with."""


def accuracy(metrics: Metrics) -> str:
    """Write the accuracy with its interval."""
    return interval(metrics, "eval/accuracy")


def interval(metrics: Metrics, name: str) -> str:
    """Write a share with its 95% interval, if it has one: `71.0% [66.2, 75.5]`."""
    value, low, high = (metrics.get(f"{name}{end}") for end in ("", *ENDS))
    if low is None or high is None:
        return figures.share(value)
    return f"{figures.share(value)} [{100 * low:.1f}, {100 * high:.1f}]"


def by_task(metrics: Metrics) -> dict[str, dict[str, float]]:
    """What an evaluation of several tasks says of each: figures by their names without the task, by task."""
    out: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        kind, _, rest = name.partition("/")
        figure, _, task = rest.partition("/")
        if kind == "eval" and task:
            out.setdefault(task, {})[f"eval/{figure}"] = value
    return out


MORE = {
    "eval/perplexity": "perplexity",
    "eval/bits_per_byte": "bits per byte",
    "eval/text_kl": "text KL",
    "eval/text_kl_forward": "forward",
}
"""Columns of texts that are predicted, where there are any."""


def eval_grid(
    rows: Mapping[str, Metrics], *, title: str, temperature: float, max_tokens: int, width: int = 120
) -> Grid:
    """Lay out eval rows: accuracy and pass@k with 95% intervals where they have them, KL, tokens, length, truncation.

    Below the row of a model that was given several tasks there is one for each, with the number of completions.
    """
    every = list(rows.values())
    there = {name for row in every for name in row}
    extra = sorted(n for n in there if n.startswith(("eval/pass@", "eval/avg@")) and n.count("/") == 1)
    columns: dict[str, Callable[[Metrics], str]] = {"accuracy (95%)": accuracy}
    for name in (n for n in extra if not n.endswith(ENDS)):
        whole = width >= WIDE and not there.isdisjoint(name + end for end in ENDS)
        write = partial(interval, name=name) if whole else _cell(figures.share, name)
        columns[name.removeprefix("eval/") + (" (95%)" if whole else "")] = write
    if "eval/prompt_strict" in there:  # the figure of IFEval that is mostly quoted
        columns["all rules"] = _cell(figures.share, "eval/prompt_strict")
    columns |= {short: _cell(figures.number, name) for name, short in MORE.items() if name in there}
    columns["KL"] = _cell(figures.number, "eval/kl")
    if width >= WIDE:
        columns["tokens"] = _cell(figures.count, "eval/tokens")
    columns["length"] = _cell(lambda v: figures.number(v, 1), "eval/length")
    columns["cut"] = _cell(figures.share, "eval/truncated")
    drawn: list[tuple[str, ...]] = []
    for label, row in rows.items():
        drawn.append((label, *(write(row) for write in columns.values())))
        for task, own in by_task(row).items():
            cells = (write(own) for write in columns.values())
            name = f"· {task} ({figures.count(own.get('eval/count'))})"
            drawn.append((name, *("" if cell == figures.MISSING else cell for cell in cells)))
    head = f"{title} · " if title else ""
    return Grid(f"{head}temperature {temperature:g} · at most {max_tokens} tokens", ("", *columns), tuple(drawn))


def _cell(write: Callable[[float | None], str], name: str) -> Callable[[Metrics], str]:
    return lambda row: write(row.get(name))


def cost_grid(totals: Metrics, width: int = 120) -> Grid:
    """Lay out the `cost/...` metrics of a run by phase, with their sum; FLOPs that are not known are left blank."""
    costs = {name.removeprefix("cost/"): value for name, value in totals.items() if name.startswith("cost/")}
    phases = [n.removesuffix("_s") for n in costs if n.endswith("_s") and not n.endswith("_device_s")]
    whole = costs.get("total_s", 0.0)
    grid = [_cost_row(phase, costs, whole) for phase in sorted(phases, key="total".__eq__)]
    header = ("", "tokens", "prompt", "student", "teacher", "seconds", "device-s", "share")
    kept = [i for i, name in enumerate(header) if width >= WIDE or name not in ("prompt", "device-s")]
    return Grid(
        title="cost · tokens, FLOPs of student and teacher, seconds",
        header=tuple(header[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in grid),
    )


def _cost_row(phase: str, costs: Metrics, whole: float) -> tuple[str, ...]:
    flops = {
        "generate": ("generate_flops_student", "generate_flops_teacher"),
        "score": ("", "score_flops_teacher"),
        "update": ("update_flops_student", "update_flops_teacher"),
        "total": ("flops_student", "flops_teacher"),
    }.get(phase, ("", ""))
    both = {"update_flops_student": costs.get("update_flops_forward", 0.0) + costs.get("update_flops_backward", 0.0)}
    tokens = [figures.count(costs[n]) if n in costs else "" for n in (f"{phase}_tokens", f"{phase}_prompt_tokens")]
    work = [figures.power((both | dict(costs))[n]) if n in both or n in costs else "" for n in flops]
    seconds = [f"{costs.get(n, 0.0):.1f}" for n in (f"{phase}_s", f"{phase}_device_s")]
    share = "" if phase == "total" else figures.share(costs[f"{phase}_s"] / whole if whole else None)
    return (phase, *tokens, *work, *seconds, share)
