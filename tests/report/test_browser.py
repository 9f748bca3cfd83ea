"""The page in a real browser: what a person sees, points at and reaches with the keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest

from opd.report.page import write_report
from opd.run.metrics import read_metrics
from tests.report.browser import NAMES, Page, browser, find_chromium

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason=f"there is no browser: none of {', '.join(NAMES)} is in PATH"),
]
TIP = "(tip => tip.hidden ? '' : tip.innerText)(document.getElementById('tip'))"
SHOWN = "[...document.querySelectorAll('.step:not([hidden]) .tokens')]"
FOCUSED = "document.activeElement.id"
STEP = "document.getElementById('step').value"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all."""
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def file(real_runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two real runs."""
    return write_report([str(run) for run in real_runs], tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def page(tab: Page, file: Path) -> Iterator[Page]:
    """The page, loaded anew; at the end it has asked the network for nothing but itself, and nothing went wrong."""
    tab.requests.clear()
    tab.errors.clear()
    tab.open(file)
    yield tab
    assert set(tab.requests) == {file.resolve().as_uri()}
    assert tab.errors == []


def focus_first_token(page: Page) -> str:
    """Of the longest completion."""
    page.ask(f"{SHOWN}.reduce((a, b) => a.children.length >= b.children.length ? a : b).firstChild.focus()")
    return str(page.ask(FOCUSED))


def test_a_focused_token_tells_its_text_both_log_probs_and_what_the_teacher_likes(page: Page) -> None:
    where = focus_first_token(page)
    said = page.ask(TIP)
    for words in ("log μ (student)", "log q (teacher)", "log μ − log q", "teacher’s 1.", "teacher’s 5."):
        assert words in said
    text = page.ask(f"document.getElementById('{where}').textContent")
    assert said.startswith(f'"{text}"')
    mu, q, d = (float(x) for x in re.findall(r"log [^\n]*?\t([-+.\d]+)", said))
    assert mu - q == pytest.approx(d, abs=2e-4)
    assert page.ask(f"document.getElementById('{where}').getAttribute('aria-label')").startswith(f'"{text}", log μ')


def test_arrow_keys_walk_through_the_tokens_and_tab_leaves_them(page: Page) -> None:
    first = focus_first_token(page)
    page.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert page.ask(FOCUSED) == re.sub(r"\d+$", "1", first)
    page.press("End")
    last = page.ask(FOCUSED)
    assert last == page.ask(f"document.getElementById('{first}').parentElement.lastChild.id")
    page.press("ArrowRight")
    assert page.ask(FOCUSED) == last
    page.press("Home")
    assert page.ask(FOCUSED) == first
    page.press("Escape")
    assert page.ask("document.getElementById('tip').hidden")
    page.press("Tab")
    assert not page.ask(FOCUSED).startswith(first.removesuffix("0"))
    assert set(page.ask(f"{SHOWN}.map(list => list.querySelectorAll('[tabindex=\"0\"]').length)")) == {1}


def test_the_mouse_shows_the_same_as_the_focus(page: Page) -> None:
    where = focus_first_token(page)
    focused = page.ask(TIP)
    page.ask("document.activeElement.blur()")
    assert page.ask(TIP) == ""
    page.point(f"#{where}")
    assert page.ask(TIP) == focused


def test_a_focused_element_is_outlined_and_the_keyboard_reaches_every_kind(page: Page) -> None:
    reached = set()
    for _ in range(60):
        page.press("Tab")
        reached.add(page.ask("(e => e.name || e.className || e.id || e.tagName)(document.activeElement)"))
        style = page.ask("getComputedStyle(document.activeElement).outlineStyle")
        assert style != "none"
    assert {"skip", "theme", "axis", "layout", "plot", "SUMMARY"} <= reached


def test_a_worst_token_leads_to_its_place_at_another_step(page: Page) -> None:
    shown = page.ask(STEP)
    links = page.ask("[...document.querySelectorAll('.worst a')].map(a => a.getAttribute('href').slice(1))")
    away = next(link for link in links if f"-s{shown}-" not in link)
    page.ask(f"document.querySelector('.worst a[href=\"#{away}\"]').click()")
    page.settle()
    assert f"-s{page.ask(STEP)}-" in away
    assert page.ask(FOCUSED) == away
    assert page.ask("document.querySelectorAll('.step:not([hidden])').length") == 1


def test_a_curve_is_read_by_arrow_keys_over_each_axis(page: Page) -> None:
    readout = "document.querySelector('[data-metric=\"kl/exact\"] .readout').textContent"
    for axis in page.ask("[...document.querySelectorAll('input[name=axis]')].map(i => i.value)"):
        page.ask(f"document.getElementById('axis-{axis}').click()")
        shown = page.ask("[...document.querySelectorAll('.layers:not([hidden])')].map(l => l.dataset.axis)")
        assert set(shown) == {axis}
        page.ask("document.querySelector('[data-metric=\"kl/exact\"] .plot').focus()")
        page.press("Home")
        first = page.ask(readout)
        page.press("ArrowRight")
        assert first != page.ask(readout)
        assert re.match(r"fast: [\d.]+ at \S+; slow: [\d.]+ at \S+ ", first)
    assert page.ask("document.querySelectorAll('.layers:not([hidden]) .cursor').length") == 2


def test_an_arrow_key_leads_to_another_row_however_close_two_runs_rows_lie(
    tab: Page, real_runs: list[Path], tmp_path: Path
) -> None:
    for run, late in zip(real_runs, (1e-4, 0.0), strict=True):
        rows = copytree(run, tmp_path / run.name) / "metrics.jsonl"
        timed = (row | {"cost/total_s": row["step"] + late} for row in read_metrics(rows) if "cost/total_s" in row)
        rows.write_text("".join(json.dumps(row) + "\n" for row in list(timed)), encoding="utf-8")
    tab.open(write_report([str(tmp_path / run.name) for run in real_runs], tmp_path / "report.html"))
    tab.ask("document.getElementById('axis-seconds').click()")
    tab.ask("document.querySelector('[data-metric=\"kl/exact\"] .plot').focus()")
    readout = "document.querySelector('[data-metric=\"kl/exact\"] .readout').textContent"
    tab.press("Home")
    told = [tab.ask(readout)]
    for _ in range(2):
        tab.press("ArrowRight")
        told.append(tab.ask(readout))
    assert len(set(told)) == 3
    tab.press("ArrowLeft", "ArrowLeft")
    assert tab.ask(readout) == told[0]


def test_runs_lie_over_each_other_or_side_by_side(page: Page) -> None:
    places = "[...document.querySelectorAll('.layers:not([hidden])')[0].children].map(e => e.getBoundingClientRect().x)"
    assert len(set(page.ask(places))) == 1
    page.ask("document.getElementById('side').click()")
    assert len(set(page.ask(places))) == 2


@pytest.mark.parametrize(
    ("system", "clicks", "dark"), [("light", 0, 0), ("dark", 0, 1), ("light", 2, 1), ("dark", 1, 0)]
)
def test_the_theme_is_the_systems_unless_it_is_chosen(
    tab: Page, file: Path, system: str, clicks: int, dark: int
) -> None:
    from opd.report.colors import BLUES, PAGES

    tab.open(file, theme=system)
    for _ in range(clicks):
        tab.ask("document.getElementById('theme').click()")
    color = "getComputedStyle(document.querySelector('{}')).backgroundColor"
    assert tab.ask(color.format("body")) == rgb(PAGES[dark])
    assert tab.ask(color.format(".legend .n5")) == rgb(BLUES[dark][4])


def rgb(color: str) -> str:
    return f"rgb({', '.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))})"


@pytest.mark.parametrize("width", [360, 1600])
def test_nothing_is_wider_than_the_window(tab: Page, real_runs: list[Path], tmp_path: Path, width: int) -> None:
    runs = [copytree(real_runs[0], tmp_path / "fast"), copytree(real_runs[1], tmp_path / ("x" * 200))]
    (runs[0] / "env.json").write_text(json.dumps({"commit": "0" * 40 + "+changes"}))
    tab.open(write_report([str(run) for run in runs], tmp_path / "report.html"), width=width)
    assert tab.ask("document.documentElement.scrollWidth") <= width
