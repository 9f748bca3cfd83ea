"""What people see: plain lines to a pipe, a panel on a terminal that is given back whatever happens."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console as Rich
from rich.text import Text

from opd.console import PlainConsole, Sample, Verdict, can_draw, figures, make_console
from opd.console.history import History
from opd.console.panel import WRONG, RunPanel, boxed, clean
from opd.console.plain import draw
from opd.console.tables import cost_grid, eval_grid
from opd.evaluation.evaluate import accuracy

STEP = {
    "kl/sampled": 0.412, "rollout/length": 48.2, "rollout/truncated": 0.031, "rollout/reward": 0.64,
    "optim/grad_norm": 0.81, "perf/generate_tokens_s": 1180.0, "perf/score_tokens_s": 2441.0,
    "perf/update_tokens_s": 412.0, "perf/generate_share": 0.5, "perf/score_share": 0.2, "perf/update_share": 0.2,
    "perf/push_share": 0.03, "perf/other_share": 0.07, "perf/peak_memory_gb": 3.12, "perf/step_s": 1.92,
}  # fmt: skip
EVAL = {
    "eval/accuracy": 0.71, "eval/accuracy_low": 0.662, "eval/accuracy_high": 0.755, "eval/kl": 0.4,
    "eval/tokens": 12345.0, "eval/length": 48.2, "eval/truncated": 0.012,
}  # fmt: skip
COST = {
    "cost/generate_tokens": 12_345.0, "cost/generate_prompt_tokens": 3_000.0, "cost/generate_flops_student": 1.5e12,
    "cost/generate_flops_teacher": 0.0, "cost/update_tokens": 12_345.0, "cost/update_prompt_tokens": 3_000.0,
    "cost/update_flops_forward": 1.5e12, "cost/update_flops_backward": 3e12, "cost/update_flops_teacher": 0.0,
    "cost/flops_student": 6e12, "cost/flops_teacher": math.nan, "cost/generate_s": 3.0, "cost/update_s": 1.0,
    "cost/total_s": 4.0, "cost/generate_device_s": 6.0, "cost/update_device_s": 2.0, "cost/total_device_s": 8.0,
}  # fmt: skip


class FakeClock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeTerminal(io.TextIOWrapper):
    """A stream that says that it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True


def plain(quiet: bool = False) -> tuple[PlainConsole, io.StringIO, io.StringIO, FakeClock]:
    out, err, clock = io.StringIO(), io.StringIO(), FakeClock()
    return PlainConsole(out, err, quiet=quiet, clock=clock), out, err, clock


# Figures


def test_figures_are_written_for_people() -> None:
    assert [figures.count(n) for n in (0, 1180, 9999, 12345, 1.2e6, None)] == [
        "0",
        "1,180",
        "9,999",
        "12.3k",
        "1.2M",
        "-",
    ]
    assert [figures.clock(n) for n in (4, 83, 7389, math.nan)] == ["0:04", "1:23", "2:03:09", "-"]
    assert [figures.seconds(n) for n in (4.21, 59.99, 83)] == ["4.2 s", "1:00", "1:23"]
    assert [figures.number(n) for n in (0.4121, 0.0, 1.3e-5, -2.5, math.nan)] == [
        "0.412",
        "0.000",
        "1.3e-05",
        "-2.500",
        "-",
    ]
    assert figures.share(0.0312) == "3.1%"


def test_a_sparkline_starts_at_zero_keeps_its_width_and_shows_gaps() -> None:
    assert figures.sparkline([1.0, 0.5, 0.0], 10) == "█▅▁"
    assert figures.sparkline([1.0, math.nan, 1.0], 10) == "█ █"
    assert figures.sparkline([1.0] * 500 + [0.5] * 500, 4) == "██▅▅"
    assert figures.sparkline([0.5], 5, high=1.0) == "▅"
    assert (figures.sparkline([], 5), figures.sparkline([0.0], 5), figures.sparkline([-0.1, math.inf], 5)) == (
        "",
        "▁",
        "▁ ",
    )


def test_the_time_left_is_measured_from_the_end_of_the_first_step() -> None:
    clock = FakeClock()
    history = History("x", 12, clock, first=2)
    assert history.eta is None
    for step, seconds in [(3, 60.0), (4, 2.0), (5, 2.0)]:
        clock.now += seconds
        history.add(step, STEP)
    assert history.eta == pytest.approx(14.0)
    clock.now += 1.0
    assert history.eta == pytest.approx(13.0)


# Plain lines


def test_the_line_of_a_step_is_stable() -> None:
    console, out, _, clock = plain()
    console.begin("quickstart", 300, done=40)
    clock.now += 2.0
    console.step(41, STEP)
    console.step(42, {"kl/sampled": 0.4} | EVAL)
    assert out.getvalue().splitlines() == [
        "training quickstart: steps 41 to 300",
        "step=41/300 kl=0.4120 reward=0.640 length=48.2 truncated=0.031 grad_norm=0.81 generate_tok/s=1180 "
        "score_tok/s=2441 update_tok/s=412 memory_gb=3.12 seconds=1.92 eta=8:38",
        "step=42/300 kl=0.4000 eta=0:00",
        "eval step=42/300 accuracy=0.710 low=0.662 high=0.755 kl=0.4000 length=48.2 truncated=0.012",
    ]


def test_a_long_silence_is_announced_and_progress_told_every_ten_seconds() -> None:
    console, out, _, clock = plain()
    with console.task("loading teacher", 100) as job:
        for done in range(0, 100, 10):
            clock.now += 3.0
            job.update(done)
    assert out.getvalue().splitlines() == [
        "loading teacher ...", "loading teacher: 30/100, 12.0 s", "loading teacher: 70/100, 24.0 s",
        "loading teacher: 30.0 s",
    ]  # fmt: skip


def test_a_failed_task_says_so_and_the_error_goes_on() -> None:
    console, out, _, _ = plain()
    with pytest.raises(OSError, match="gone"), console.task("loading teacher"):
        raise OSError("gone")
    assert out.getvalue().splitlines()[-1] == "loading teacher: failed after 0.0 s"


def test_quiet_shows_warnings_and_the_last_line_only() -> None:
    console, out, err, _ = plain(quiet=True)
    with console, console.task("loading teacher"):
        console.say("hello")
    console.begin("x", 3)
    console.step(1, STEP | EVAL, Sample("a", "b"))
    console.table({"student": EVAL}, title="x", temperature=0, max_tokens=8)
    console.costs(COST)
    console.warn("3 empty rollouts")
    console.finish("exported to run/export")
    assert (out.getvalue(), err.getvalue()) == ("exported to run/export\n", "warning: 3 empty rollouts\n")


def test_plain_text_is_ascii_without_escapes() -> None:
    console, out, err, _ = plain()
    with console.task("loading"):
        pass
    console.begin("x", 3)
    console.step(1, STEP | EVAL)
    console.table({"student": EVAL}, title="sums", temperature=0.7, max_tokens=8)
    console.costs(COST)
    text = out.getvalue() + err.getvalue()
    assert text.isascii()
    assert "\x1b" not in text
    assert "temperature 0.7 - at most 8 tokens" in text


FLAT = Verdict("nothing learned", "reverse KL was 1 and is 1", "It is as it was.", "Raise optim.lr.")
CUT = Verdict("more and more cut off", "now 60%", "The ends are lost.", "Raise sampling.max_tokens.")


def test_what_is_wrong_is_told_when_it_is_new_when_it_is_over_and_at_the_end() -> None:
    console, out, err, _ = plain()
    for found in ([FLAT], [FLAT], [FLAT, CUT], [CUT], [FLAT, CUT]):
        console.verdicts(found)
    assert err.getvalue().splitlines() == [f"warning: {v}" for v in (FLAT, CUT, FLAT)]
    assert out.getvalue().splitlines() == ["no longer: nothing learned"]
    console.verdicts([FLAT, CUT], last=True)
    assert err.getvalue().splitlines()[3:] == [f"warning: {v}" for v in (FLAT, CUT)]


# Which form


@pytest.mark.parametrize(
    ("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", ""), ("TERM", "unknown"), ("ENCODING", "ascii")]
)
def test_the_panel_is_for_terminals_that_can_show_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert can_draw(FakeTerminal())
    assert not can_draw(io.StringIO())
    monkeypatch.setenv(name, value)
    assert not can_draw(FakeTerminal(value if name == "ENCODING" else "utf-8"))


def test_a_pipe_gets_plain_lines() -> None:
    assert isinstance(make_console(io.StringIO()), PlainConsole)


# Tables


def test_the_eval_table_has_intervals_and_says_how_it_was_sampled() -> None:
    grid = eval_grid(
        {"student after": EVAL, "teacher": {"eval/accuracy": 0.95}}, title="sums", temperature=0, max_tokens=128
    )
    assert grid.title == "sums · temperature 0 · at most 128 tokens"
    assert grid.rows[0] == ("student after", "71.0% [66.2, 75.5]", "0.400", "12.3k", "48.2", "1.2%")
    assert grid.rows[1] == ("teacher", "95.0%", "-", "-", "-", "-")
    assert len({len(line) for line in draw(grid)[1:]}) == 1


def test_pass_at_k_gets_a_column_where_there_is_one() -> None:
    grid = eval_grid({"a": EVAL | {"eval/pass@4": 0.8}, "b": EVAL}, title="", temperature=1, max_tokens=8)
    assert grid.header[2] == "pass@4"
    assert (grid.rows[0][2], grid.rows[1][2]) == ("80.0%", "-")


@pytest.mark.parametrize(("width", "header", "cell"), [
    (120, "pass@4 (95%)", "80.0% [72.0, 86.5]"), (60, "pass@4", "80.0%"),
])  # fmt: skip
def test_an_interval_is_in_the_cell_of_its_figure_and_has_no_column(width: int, header: str, cell: str) -> None:
    scores = np.array([[1, 1, 0, 1], [0, 0, 1, 0]], dtype=float)
    measured = EVAL | accuracy(scores, (1, 4))
    known = {"eval/pass@4": 0.8, "eval/pass@4_low": 0.72, "eval/pass@4_high": 0.865}
    grid = eval_grid({"a": measured | known}, title="", temperature=1, max_tokens=8, width=width)
    assert grid.rows[0][grid.header.index(header)] == cell
    assert not [name for name in grid.header if "_" in name], grid.header


def test_each_of_several_tasks_has_a_row_of_its_own_below_the_models() -> None:
    short = {"eval/accuracy/short": 0.9, "eval/accuracy_low/short": 0.8, "eval/accuracy_high/short": 0.95}
    tasks = short | {"eval/pass@4/short": 1.0, "eval/count/short": 100.0, "eval/count/text": 20.0}
    grid = eval_grid({"a": EVAL | {"eval/pass@4": 0.8} | tasks, "b": EVAL}, title="", temperature=1, max_tokens=8)
    assert grid.header == ("", "accuracy (95%)", "pass@4", "KL", "tokens", "length", "cut")
    assert [row[0] for row in grid.rows] == ["a", "· short (100)", "· text (20)", "b"]
    assert grid.rows[1][1:] == ("90.0% [80.0, 95.0]", "100.0%", "", "", "", "")
    assert set(grid.rows[2][1:]) == {""}


def test_costs_are_laid_out_by_phase_and_what_is_not_known_is_left_open() -> None:
    grid = cost_grid(COST)
    assert grid.rows[0] == ("generate", "12.3k", "3,000", "1.50e+12", "", "3.0", "6.0", "75.0%")
    assert grid.rows[1] == ("update", "12.3k", "3,000", "4.50e+12", "", "1.0", "2.0", "25.0%")
    assert grid.rows[-1] == ("total", "", "", "6.00e+12", "-", "4.0", "8.0", "")
    assert len({len(line) for line in draw(grid)[1:]}) == 1
    assert cost_grid({}).rows == ()


@pytest.mark.parametrize("width", [60, 80])
def test_the_table_of_costs_fits_the_terminal(width: int) -> None:
    lines = render(boxed(cost_grid(COST, width=width)), width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("width", [60, 100])
def test_the_eval_table_fits_the_terminal(width: int) -> None:
    names = ("student before", "student after", "teacher")
    grid = eval_grid(dict.fromkeys(names, EVAL), title="sums", temperature=0, max_tokens=128, width=width)
    lines = render(boxed(grid), width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


# The panel


def render(what: object, width: int, height: int = 40) -> list[str]:
    console = Rich(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return capture.get().splitlines()


def panel(steps: Sequence[int] = (1, 2, 3), sample: Sample | None = None) -> RunPanel:
    history = History("quickstart", 300, FakeClock())
    history.add(0, EVAL)
    for step in steps:
        history.add(step, STEP)
    return RunPanel(history, sample=sample)


@pytest.mark.parametrize("width", [60, 72, 80, 84, 100, 140, 160, 200])
def test_the_panel_fills_its_width_exactly_and_cuts_no_figure(width: int) -> None:
    lines = render(panel(), width)
    assert {len(line) for line in lines} == {width}
    text = "\n".join(lines)
    for word in (
        "step 3 of 300",
        "0.412",
        "71.0%",
        "66.2–75.5",
        "1,180 tok/s",
        "2,441 tok/s",
        "412 tok/s",
        "3.1%",
        "3.1 GB",
    ):
        assert word in text, word


@pytest.mark.parametrize(("count", "said"), [(2, "of 2 at step 0"), (200, "at step 0")])
def test_the_panel_says_of_how_few_answers_an_accuracy_is(count: int, said: str) -> None:
    shown = panel()
    shown.history.series["eval/count"] = [(0, count)]
    (line,) = (row for row in render(shown, 100) if "71.0%" in row)
    assert line.strip(" │").endswith(f"  {said}"), line


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_panel_keeps_its_height_whatever_the_sample(width: int) -> None:
    samples = [None, Sample("a", ""), Sample("why? " * 99, "because\n" * 99, 1.0), Sample("日本語" * 50, "\x1b[2J" * 9)]
    assert len({len(render(panel(sample=sample), width)) for sample in samples}) == 1
    assert len({len(line) for line in render(panel(sample=samples[2]), width)}) == 1


@pytest.mark.parametrize("height", [16, 20, 24, 40])
def test_the_panel_fits_the_height_of_the_terminal(height: int) -> None:
    assert len(render(panel(sample=Sample("a", "b " * 999)), 80, height)) < height


@pytest.mark.parametrize("width", [60, 84, 160])
def test_what_is_wrong_is_a_line_of_the_panel_while_it_lasts(width: int) -> None:
    shown = panel()
    well = render(shown, width)
    shown.verdicts = [FLAT, CUT]
    ill = render(shown, width)
    (line,) = (row for row in ill if FLAT.name in row)
    assert line[2:].startswith(f"! {FLAT.name}  → {FLAT.do}  ")
    assert {len(row) for row in ill} == {width}
    assert [row for row in ill if "!" not in row][:8] == well[:8]
    shown.verdicts = []
    assert render(shown, width) == well


@pytest.mark.parametrize("height", [16, 20, 24, 40])
def test_a_panel_with_all_that_can_be_wrong_fits_the_height_of_the_terminal(height: int) -> None:
    shown = panel(sample=Sample("a", "b " * 999))
    shown.verdicts = [FLAT, CUT] * WRONG
    lines = render(shown, 80, height)
    assert len(lines) < height
    assert 1 <= sum("!" in line for line in lines) <= WRONG


def test_the_panel_is_drawn_before_the_first_step_and_without_steps() -> None:
    assert "step 0 of 300" in "\n".join(render(panel(steps=()), 80))
    assert "done" in "\n".join(render(RunPanel(History("x", 0, FakeClock())), 80))


def test_a_token_that_the_teacher_refuses_is_marked_by_more_than_colour() -> None:
    shown = panel(sample=Sample("a", "", pieces=[("fine ", 0.0), ("odd ", 1.5), ("wrong", 9.0)]))
    console = Rich(width=80, height=40, file=io.StringIO(), force_terminal=True, color_system="256", _environ={})
    with console.capture() as capture:
        console.print(shown)
    text = Text.from_ansi(capture.get())
    styles = {text.plain[s.start : s.end].strip(): s.style for s in text.spans if not isinstance(s.style, str)}
    assert styles["wrong"].underline
    assert not styles["odd"].underline
    assert styles["odd"].color is not None


def test_control_characters_of_a_model_do_not_reach_the_terminal() -> None:
    assert clean("a\x1b[2Jb\r\tc\nd\x9b") == "a [2Jb  c\nd "


# A real terminal

RUN = """
import logging, os, subprocess, sys, time
logging.basicConfig(stream=sys.stderr)
from opd.console import make_console, Sample
with make_console() as console:
    with console.task("loading teacher", 3) as job:
        job.update(2)
        print("python line", file=sys.stderr)
        os.write(2, b"10%\\r100% native line\\n")
        subprocess.run("echo child line >&2", shell=True)
        logging.getLogger("x").warning("handler line")
    console.begin("demo", 3)
    for step in (1, 2):
        console.phase("generate")
        console.step(step, {"kl/sampled": 0.5 / step}, Sample("why?", "because"))
        time.sleep(0.6)
    console.warn("mind the gap")
    print("ready", flush=True)
    ENDING
print("after", flush=True)
"""


def on_terminal(ending: str, kill: signal.Signals | None = None) -> tuple[str, int, int]:
    """Run a script on a pseudo-terminal; give what it showed, its exit status, and the terminal's local flags."""
    termios = pytest.importorskip("termios")
    leader, follower = os.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    script = textwrap.dedent(RUN).replace("ENDING", ending)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=follower, stdout=follower, stderr=follower,
        env=env | {"TERM": "xterm-256color", "PYTHONUTF8": "1"}, start_new_session=True,
    )  # fmt: skip
    shown = b""
    os.set_blocking(leader, False)
    end = time.monotonic() + 60  # other test processes are at work too
    while process.poll() is None and time.monotonic() < end:
        shown += drain(leader)
        if kill is not None and b"ready" in shown:
            process.send_signal(kill)
            kill = None
        time.sleep(0.02)
    process.kill()
    shown += drain(leader)
    flags = termios.tcgetattr(follower)[3]
    os.close(leader)
    os.close(follower)
    return shown.decode(), process.wait(), flags & termios.ECHOCTL


def drain(descriptor: int) -> bytes:
    data = b""
    while True:
        try:
            more = os.read(descriptor, 65536)
        except OSError:
            return data
        if not more:
            return data
        data += more


def words(shown: str) -> str:
    """Return what a terminal's output says, without its escapes."""
    return Text.from_ansi(shown.replace("\r", "")).plain


def given_back(shown: str) -> bool:
    return shown.count("\x1b[?25l") > 0 and shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_the_panel_stands_and_what_others_print_scrolls_above_it() -> None:
    shown, status, echo = on_terminal("pass")
    assert status == 0
    assert given_back(shown)
    assert echo
    plain_text = words(shown)
    for line in ("python line", "100% native line", "child line", "WARNING:x:handler line", "ready"):
        assert any(row.endswith(line) for row in plain_text.splitlines()), line
    assert "10%" not in plain_text.replace("100%", "")
    assert "! warning: mind the gap" in plain_text
    assert "step 2 of 3" in plain_text
    assert "✓ loading teacher" in plain_text
    assert plain_text.rstrip().endswith("after")


@pytest.mark.parametrize(
    ("ending", "kill", "status", "says"),
    [
        ("raise RuntimeError('boom')", None, 1, "RuntimeError: boom"),
        ("sys.exit(7)", None, 7, "step 2 of 3"),
        ("time.sleep(20)", signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt"),
        ("time.sleep(20)", signal.SIGTERM, -signal.SIGTERM, "step 2 of 3"),
        ("time.sleep(20)", signal.SIGHUP, -signal.SIGHUP, "step 2 of 3"),
        ("os.abort()", None, -signal.SIGABRT, "Fatal Python error"),
    ],
)
def test_the_terminal_is_given_back_however_a_run_ends(
    ending: str, kill: signal.Signals | None, status: int, says: str
) -> None:
    shown, code, echo = on_terminal(ending, kill)
    assert code == status
    assert says in words(shown)
    if "abort" not in ending:  # a crash in native code runs nothing of ours
        assert given_back(shown)
        assert echo


def test_a_verdict_stands_in_the_panel_alone_until_the_end_says_all_of_it() -> None:
    ending = (
        "from opd.console import Verdict\n"
        "    wrong = Verdict('nothing learned', 'it was 1 and is 1', 'It is as it was.', 'Raise optim.lr.')\n"
        "    console.verdicts([wrong]); time.sleep(0.9); console.verdicts([]); time.sleep(0.9); print('healthy')\n"
        "    console.verdicts([wrong], last=True)"
    )
    shown, status, _ = on_terminal(ending)
    assert status == 0
    while_it_lasted, _, end = words(shown).partition("healthy")
    assert "! nothing learned  → Raise optim.lr.  it was 1 and is 1" in while_it_lasted
    assert "It is as it was" not in while_it_lasted
    assert end.count("! warning: nothing learned: it was 1 and is 1. It is as it was. Raise optim.lr.") == 1


def test_resuming_shows_the_earlier_steps_in_the_sparkline() -> None:
    shown, status, _ = on_terminal(
        "pass\nwith make_console() as again:\n"
        "    again.begin('again', 9, done=2, history=[{'step': 1, 'kl/sampled': 1.0}, {'step': 2, 'kl/sampled': .5}])\n"
        "    time.sleep(0.6)"
    )
    assert status == 0
    assert "step 2 of 9" in words(shown)
    assert "█▅" in shown
