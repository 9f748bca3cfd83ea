"""What the live panel looks like. Blue and orange only, and never colour alone: shapes and underlines say it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.style import Style
from rich.table import Table
from rich.text import Text

from opd.console import figures
from opd.console.history import History, Sample, Verdict
from opd.console.tables import Grid
from opd.hints import printable

BLUE, PALE, ORANGE, GREY = "color(33)", "color(110)", "color(208)", "color(244)"
LABEL = Style(color="color(244)")
PHASES = (("generate", "█", BLUE), ("score", "▓", PALE), ("update", "▒", ORANGE), ("other", "░", GREY))
NARROW, WIDE = 84, 140
"""Columns below which the panel drops what it can spare, and from which the sample stands beside the figures."""
WRONG = 3
"""Verdicts that the panel has room for."""
DOUBTED, REFUSED = 1.0, 3.0
"""Nats by which the teacher must find a token less likely before it is orange, and before it is underlined too."""


@dataclass
class Doing:
    """A task under way."""

    name: str
    begun: float
    done: float = 0.0
    total: float | None = None
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style=BLUE))

    def update(self, done: float, total: float | None = None) -> None:
        """Say how much of the total is done."""
        self.done, self.total = done, total if total is not None else self.total

    @property
    def progress(self) -> str:
        """How far it is: `120/400`."""
        return "" if self.total is None else f"{self.done:g}/{self.total:g}"


def clean(text: str) -> str:
    """Drop control characters: what a model writes must not drive the terminal."""
    return "".join(c if c == "\n" or c.isprintable() else " " for c in text)


def task_lines(tasks: Sequence[Doing], now: float) -> RenderableType:
    """Draw the tasks of the set-up, one line each."""
    grid = Table.grid(padding=(0, 1))
    for task in tasks:
        known = task.total is not None
        bar = ProgressBar(task.total, task.done, width=20, complete_style=BLUE, finished_style=BLUE) if known else ""
        grid.add_row(
            task.spinner, Text(printable(task.name)), bar, task.progress, Text(figures.seconds(now - task.begun), LABEL)
        )
    return grid


def boxed(grid: Grid) -> RenderableType:
    """Draw a table of results."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), border_style=LABEL)
    for i, name in enumerate(grid.header):
        table.add_column(Text(name, LABEL), justify="right" if i else "left", no_wrap=True)
    for row in grid.rows:
        table.add_row(*(Text(cell) for cell in row))
    return Group("", Text(f" {grid.title}", "bold"), table)


@dataclass
class RunPanel:
    """The panel of a training run, drawn from its history to fit the terminal."""

    history: History
    phase: str = ""
    sample: Sample | None = None
    tasks: Sequence[Doing] = ()
    verdicts: Sequence[Verdict] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the panel at the width and height of the terminal."""
        inner = options.max_width - 4
        wide = options.max_width >= WIDE
        left = 84 if wide else inner
        body: list[RenderableType] = [self._trends(left), "", self._figures(left), self._time_bar(left)]
        used = 8 + len(self._trend_rows(left))
        room = max(0, min(WRONG, options.size.height - used - 3))
        wrong = [verdict_line(verdict) for verdict in self.verdicts[:room]]
        used += len(wrong)
        if wide:
            sides = Table.grid(padding=(0, 3, 0, 0))
            sides.add_row(Group(*body), self._sample(console, inner - left - 3, used - 3))
            body = [sides]
        elif (lines := min(options.size.height - used - 5, 7)) >= 2:
            body += ["", self._sample(console, inner, lines)]
        yield Panel(
            Group(self._header(inner), *wrong, "", *body),
            title=Text(printable(self.history.name), "bold"),
            title_align="left",
            subtitle=self._doing(),
            subtitle_align="right",
            border_style=LABEL,
            box=box.ROUNDED,
        )

    def _header(self, width: int) -> RenderableType:
        h = self.history
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        for _ in range(3):
            grid.add_column(no_wrap=True)
        bar = ProgressBar(max(h.steps, 1), h.step, complete_style=BLUE, finished_style=BLUE, style="color(242)")
        gone = f"{figures.clock(h.elapsed)}{' elapsed' if width >= NARROW - 4 else ''}"
        left = f"{figures.clock(h.eta)} left" if h.step < h.steps else "done"
        percent = figures.share(h.step / h.steps if h.steps else 1.0, 0)
        step = Text.assemble(("step ", LABEL), (f"{h.step}", "bold"), (f" of {h.steps}", LABEL))
        grid.add_row(step, bar, percent, Text(gone, LABEL), left)
        return grid

    def _doing(self) -> Text | None:
        """Say in the lower border what goes on, so that the panel keeps its height."""
        if self.tasks:
            return Text(f"{printable(self.tasks[-1].name)} {self.tasks[-1].progress}".rstrip(), BLUE)
        return Text(self.phase, LABEL) if self.phase else None

    def _trend_rows(self, width: int) -> list[tuple[Text, ...]]:
        """Lay out what should move: label, value, detail, sparkline, where it began."""
        room = min(60, width - (34 if width < NARROW - 4 else 58))
        last = self.history.last
        rows = [self._trend("reverse KL", "kl/sampled", figures.number, "nats/token", room)]
        if figures.known(last("eval/accuracy")):
            low, high = last("eval/accuracy_low"), last("eval/accuracy_high")
            interval = f"{100 * low:.1f}–{100 * high:.1f}" if low is not None and high is not None else ""
            rows.append(self._trend("accuracy", "eval/accuracy", figures.share, interval, room, high=1.0))
        if figures.known(last("rollout/reward")):
            rows.append(self._trend("reward", "rollout/reward", figures.number, "mean", room))
        return rows

    def _trend(
        self, label: str, name: str, write: Callable[[float | None], str], detail: str, room: int,
        high: float | None = None,
    ) -> tuple[Text, ...]:  # fmt: skip
        values = self.history.series.get(name, [])
        spark = figures.sparkline([value for _, value in values], room, high)
        count = self.history.last("eval/count") if name.startswith("eval/") else None
        few = f"of {count:.0f} " if count is not None and count < figures.FEW else ""
        at = f"{few}at step {values[-1][0]}" if name.startswith("eval/") else ""
        since = f"from {write(values[0][1])}" if len(values) > 1 else ""
        note = ", ".join(filter(None, (at, since)))
        value = Text(write(self.history.last(name)), "bold")
        return Text(label, LABEL), value, Text(detail, LABEL), Text(spark, BLUE), Text(note, LABEL)

    def _trends(self, width: int) -> RenderableType:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=10, no_wrap=True)
        grid.add_column(width=6, justify="right", no_wrap=True)
        grid.add_column(width=10, no_wrap=True)
        for row in self._trend_rows(width):
            grid.add_row(*(row[:4] if width < NARROW - 4 else row))
        return grid

    def _figures(self, width: int) -> RenderableType:
        """Lay out tokens/s and share of each phase beside the health of the step."""
        last = self.history.last
        health = [
            ("length", figures.number(last("rollout/length"), 1)),
            ("truncated", figures.share(last("rollout/truncated"))),
            ("grad norm", figures.number(last("optim/grad_norm"), 2)),
            ("memory", f"{figures.number(last('perf/peak_memory_gb'), 1)} GB"),
            ("ratio max", figures.number(last("optim/ratio_max"), 2)),
            ("eff. sample", figures.share(last("optim/ess"), 0)),
            ("engine gap", figures.number(last("kl/engine_gap"), 4)),
            ("learn rate", figures.number(last("optim/lr"))),
        ]
        columns = 2 if width >= 72 else 1
        grid = Table.grid(padding=(0, 1, 0, 0))
        for size in (1, 8, 11, 4, *(3, 11, 8) * columns):
            grid.add_column(width=size, justify="right" if size in (11, 4, 8) else "left", no_wrap=True)
        for i, (name, glyph, colour) in enumerate(PHASES):
            pace = last(f"perf/{name}_tokens_s")
            tokens = Text(f"{figures.count(pace)} tok/s" if pace is not None else "")
            label = Text(name, Style(bold=self.phase == name), justify="left")
            part = Text(figures.share(self._part(name), 0), LABEL)
            rest = [cell for key, value in health[i :: len(PHASES)][:columns] for cell in figure(key, value)]
            grid.add_row(Text(glyph, colour), label, tokens, part, *rest)
        return grid

    def _part(self, phase: str) -> float | None:
        """Share of a phase; pushing the weights is too short to show by itself and counts as other."""
        value = self.history.last(f"perf/{phase}_share")
        push = self.history.last("perf/push_share") or 0.0
        return value + push if phase == "other" and value is not None else value

    def _time_bar(self, width: int) -> RenderableType:
        parts = [(self._part(name) or 0.0, glyph, colour) for name, glyph, colour in PHASES]
        text = Text()
        edge, done = 0.0, 0
        for value, glyph, colour in parts:
            edge += value * width
            text.append(glyph * (round(edge) - done), colour)
            done = round(edge)
        return text

    def _sample(self, console: Console, width: int, lines: int) -> RenderableType:
        """Draw prompt and completion in a fixed number of lines, so that the panel does not jump."""
        sample = self.sample or Sample(" ", "")
        head = Text("prompt", LABEL)
        reply = Text("student", LABEL)
        if sample.reward is not None:
            reply.append(f"\nscore {sample.reward:.2g}", LABEL)
        room = max(width - 12, 8)
        most = 2 * room * lines  # wrapping what will not be shown takes longer than all the rest
        if sample.pieces is not None:
            text = Text.assemble(*((clean(piece), surprise(gap)) for piece, gap in sample.pieces[:most]))[:most]
        else:
            text = Text(clean(sample.completion[:most]))
        prompt = list(Text(clean(sample.prompt[:most]).strip(), LABEL).wrap(console, room))
        asked = min(len(prompt), max(1, lines // 3))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=10)
        grid.add_row(head, fit(prompt, room, asked))
        grid.add_row(reply, fit(list(text.wrap(console, room)), room, lines - asked))
        return grid


def figure(label: str, value: str) -> tuple[Text, Text, Text]:
    """Lay out one figure: a gap, its label, its value."""
    return Text(""), Text(label, LABEL, justify="left"), Text(value)


def verdict_line(verdict: Verdict) -> Text:
    """One line of what is wrong: its name, then what to change and the figures as far as there is room."""
    said = Text.assemble((f"! {verdict.name}", f"bold {ORANGE}"), f"  → {verdict.do}  ", (verdict.seen, LABEL))
    said.no_wrap, said.overflow = True, "ellipsis"
    return said


def surprise(gap: float) -> Style:
    """Style of a token that the teacher finds `gap` nats less likely than the student did."""
    if not gap >= DOUBTED:  # nor where the teacher says nothing (NaN)
        return Style()
    return Style(color="color(208)", bold=gap >= REFUSED, underline=gap >= REFUSED)


def fit(wrapped: list[Text], width: int, lines: int) -> Text:
    """Join exactly `lines` lines of a wrapped text; an ellipsis says that there is more."""
    kept = wrapped[:lines]
    if len(wrapped) > lines and kept:
        kept[-1].truncate(width - 2)
        kept[-1].append(" …", LABEL)
    return Text("\n").join(kept + [Text("")] * (lines - len(kept)))
