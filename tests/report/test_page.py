"""The page as text: from real runs, and from runs written by hand."""

from __future__ import annotations

import html
import json
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest

from opd.report.page import render, write_report
from opd.report.record import read_records
from opd.report.samples import TOKENS
from opd.run.directory import RunFolder
from opd.types import UserError
from tests.report.made import Words, judged, record, save_run
from tests.tiny import cli_code

ROWS = [{"step": 0, "eval/accuracy": 0.5, "eval/accuracy_low": 0.4, "eval/accuracy_high": 0.6}, {"step": 1, "a/b": 2.0}]
VOID = {"meta", "link", "input"}


class Balance(HTMLParser):
    """Whether every element that is opened is closed, in the right order; and all ids and addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.addresses += [values[k] or "" for k in ("href", "src") if k in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def json_of(page: str, name: str) -> dict:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def test_a_page_of_real_runs_is_whole_and_points_only_into_itself(real_runs: list[Path]) -> None:
    text = write_report([str(run) for run in real_runs]).read_text()
    page = Balance(text)
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    inside = [a.removeprefix("#") for a in page.addresses if a.startswith("#")]
    assert set(inside) <= set(page.ids)
    assert {a for a in page.addresses if not a.startswith("#")} == {"data:,"}
    assert "://" not in re.sub(r"http://www.w3.org/2000/svg", "", text.split("Settings</h2>")[0])


def test_a_page_tells_what_the_runs_wrote(real_runs: list[Path]) -> None:
    records = read_records([RunFolder(path) for path in real_runs])
    text = render(records)
    assert re.search(r"<code>optim.lr</code></th>\s*<td><code>0.003</code></td><td><code>0.0001</code>", text)
    assert "student, step 6" in text
    curves, facts = json_of(text, "curves-data"), json_of(text, "facts-data")
    for run, r in enumerate(records):
        rows, values = zip(*curves["charts"]["kl/exact"][run], strict=True)
        assert list(values) == pytest.approx([r.rows[i]["kl/exact"] for i in rows], rel=1e-5)
        assert curves["axes"][run]["flops"][-1] == pytest.approx(r.last["cost/flops"], rel=1e-5)
    tokens = [t for sample in facts.values() for t in sample]
    assert len(tokens) == len(re.findall("<span class=[a-z]", text))
    for word, _, q, trained, told in tokens:
        assert trained
        assert len(told) == 5
        assert told == sorted(told, key=lambda item: -item[1])
        assert q <= told[0][1] + 1e-4
        assert all(q == pytest.approx(value, abs=2e-4) for other, value in told if other == word)


def test_text_of_models_cannot_become_part_of_the_page(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><!-- \u2028 &amp; '\" {{ 1 }}"
    scored = [judged(evil, [0, 1], [-1.0, -1.0], [-9.0, -1.0])]
    settings = f"name: {json.dumps(evil)}\nsteps: 1\n"
    run = save_run(tmp_path / "run", ROWS, settings=settings, scored={1: scored}, words=Words(evil, "\n"))
    text = render(read_records([run]))
    assert not Balance(text).open
    assert "<script>alert" not in text
    assert "{{ 1 }}" in text
    assert text.count("<script") == 3
    assert json_of(text, "facts-data")["r0-s1-c0"][0][0] == evil


def test_a_run_without_rollouts_teacher_or_costs_still_has_a_page(tmp_path: Path) -> None:
    text = render([record(tmp_path / "run", ROWS)])
    assert "No rollouts were written down" in text
    assert "its costs were not counted" in text
    assert "40.0, 60.0" in text


def test_a_teacher_that_said_nothing_is_said(tmp_path: Path) -> None:
    silent = [judged("p", [0, 1], [-1.0, -1.0], [math.nan, math.nan], top=False)]
    text = render([record(tmp_path / "silent", ROWS, scored={1: silent})])
    assert "The teacher said nothing of these tokens" in text
    assert "the teacher said nothing of these tokens" in text
    mute = [judged("p", [0, 1], [-1.0, -1.0], [-2.0, -1.0], top=False)]
    text = render([record(tmp_path / "mute", ROWS, scored={1: mute})])
    assert "alternatives were not recorded" in text


def test_runs_recorded_at_other_steps_lie_beside_each_other(tmp_path: Path) -> None:
    scored = [judged("p", [0, 1], [-1.0, -1.0], [-2.0, -1.0])]
    one = record(tmp_path / "one", ROWS, scored={1: scored, 3: scored})
    two = record(tmp_path / "two", ROWS, scored={1: scored})
    assert "Not recorded" not in render([one, two])
    assert "Not recorded at this step" in render([one, two], steps=[3])


def test_a_page_of_very_long_completions_stays_under_5_mb_and_says_what_is_missing(tmp_path: Path) -> None:
    n = 9000
    long = [judged(f"p{i}", [i % 2] * n, [-1.23456] * n, [-9.87654] * n) for i in range(2)]
    words = Words(" likelihood", "\u00e9")
    made = record(tmp_path / "run", ROWS, scored=dict.fromkeys((1, 2, 3), long), words=words)
    text = render([made])
    assert len(text.encode()) < 5e6
    assert f"The last {n - TOKENS // 3} tokens of the first one are left out too" in text
    assert "1 left out to keep the page small" in text


def test_a_damaged_file_of_rollouts_is_named(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", ROWS, scored={1: [judged("p", [0, 1], [-1.0, -1.0], [-2.0, -1.0])]})
    file = run.rollouts / "step_000001.parquet"
    whole = file.read_bytes()
    middle = len(whole) // 3
    for damaged in (b"", whole[:-20], whole[:middle] + b"\xff" * 64 + whole[middle + 64 :]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"step_000001\.parquet: not the rollouts of a step") as error:
            write_report([str(run.path)])
        assert "\n" not in str(error.value)


def test_figures_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    names = ("eval/accuracy", "eval/accuracy_low", "eval/accuracy_high", "cost/total_s", "cost/flops", "kl/exact")
    rows = [
        ROWS[0],
        {"step": 1} | dict.fromkeys(names),
        {"step": 2} | dict.fromkeys(names, "inf"),
        ROWS[1] | {"step": 3},
    ]
    run = save_run(tmp_path / "run", rows)
    run.evals.mkdir()
    found = {"name": "student", "metrics": {"eval/kl": None, "eval/length": 7.5}, "sampling": {"n": 1}}
    found["sampling"] |= {"temperature": 1, "max_tokens": 8}
    (run.evals / "final_before.json").write_text(json.dumps(found))
    text = render(read_records([run]))
    assert "temperature 1 · at most 8 tokens" in text
    assert [point[1] for point in json_of(text, "curves-data")["charts"]["eval/accuracy"][0]] == [0.5]


def test_control_characters_are_shown_as_symbols(tmp_path: Path) -> None:
    evil = "a\x00\x1b[31m\r\x7f\x85\ufffe\n"
    scored = [judged(evil, [0, 1], [-1.0, -1.0], [-9.0, -1.0])]
    run = save_run(tmp_path / "run", ROWS, scored={1: scored}, words=Words(evil, evil))
    text = write_report([str(run.path)]).read_text(encoding="utf-8")
    assert not set(text) & set("\x00\x1b\r\x7f\x85\ufffe")
    assert "a␀␛[31m␍␡��\n" in text


def test_the_command_to_do_it_again_can_be_pasted(tmp_path: Path) -> None:
    record_ = record(tmp_path / "my run; $(x)", ROWS)
    command = html.unescape(re.findall('<pre class="command">(.*?)</pre>', render([record_]))[0])
    assert shlex.split(command) == ["opd", "train", f"conf={record_.run.config}"]


def test_a_place_that_the_system_refuses_is_a_users_error(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", ROWS)
    with pytest.raises(UserError, match=r"--out .*cannot be written: File name too long"):
        write_report([str(run.path)], tmp_path / ("x" * 300))


@pytest.mark.parametrize("out", ["", "no/report.html"])
def test_a_file_that_cannot_be_written_is_refused(out: str, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", ROWS)
    with pytest.raises(UserError, match="--out"):
        write_report([str(run.path)], tmp_path / out)


def test_the_command_writes_where_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save_run(tmp_path / "run", ROWS)
    assert cli_code(["report", str(run.path)]) == 0
    assert capsys.readouterr().out == f"{run.path}/report.html\n"
    assert cli_code(["report", str(run.path), "--out", str(tmp_path / "x.html"), "--step", "4"]) == 2
    assert "--step 4" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


def verdict(**said: str) -> str:
    return json.dumps({"step": 1, "verdicts": [said] if said else []})


def test_verdicts_are_said_first_and_only_of_runs_that_were_looked_at(tmp_path: Path) -> None:
    wrong = {"name": "moving <b>away</b>", "seen": "rose from 1 to 2", "means": "It is worse.", "do": "Lower optim.lr."}
    folders = {name: tmp_path / name for name in ("wrong", "well", "old")}
    for name, folder in folders.items():
        save_run(folder, ROWS)
        if name != "old":
            (folder / "health.json").write_text(verdict(**wrong) if name == "wrong" else verdict())
    page = write_report([str(f) for f in folders.values()], tmp_path / "all.html").read_text()
    assert not Balance(page).open
    told = page[page.index('id="summary"') : page.index('id="figures"')]
    assert "moving &lt;b&gt;away&lt;/b&gt;: rose from 1 to 2" in told
    assert "It is worse. Lower optim.lr." in told
    assert told.count("Nothing that looks wrong in 1 steps.") == 1
    alone = write_report([str(folders["old"])], tmp_path / "old.html").read_text()
    assert "Nothing that looks wrong" not in alone


def evaluated(digest: str, n: int = 1, temperature: float = 1.0) -> str:
    drawn = {"n": n, "temperature": temperature, "max_tokens": 8, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    found = {"name": "student, step 0", "metrics": {"eval/accuracy": 0.5, "eval/count": 20 * n}, "sampling": drawn}
    return json.dumps(found | ({"prompts": {"count": 20, "digest": digest}} if digest else {}))


@pytest.mark.parametrize(
    ("others", "said"),
    [((), ""), (("a",), ""), (("b",), "prompts"), (("a", 4), "n"), (("b", 1, 0.5), "prompts, temperature")],
)
def test_evaluations_that_were_made_otherwise_are_said_not_to_be_comparable(
    others: tuple, said: str, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder, made in zip(folders, (("a",), others), strict=True):
        run = save_run(folder, ROWS)
        if made:
            run.evals.mkdir()
            (run.evals / "student_step_000000.json").write_text(evaluated(*made))
    page = write_report([str(f) for f in folders], tmp_path / "page.html").read_text()
    assert page.count(f"not comparable with the others: other {said}") == (2 if said else 0)
    assert page.count(f"not comparable: measured with other {said}") == (1 if said else 0)
    assert page.count("accuracy, held-out (95%) (not comparable)") == bool(said)
    assert page.count("20 prompts, 1 sample each") == 1 + (said in ("prompts", "prompts, temperature"))


def test_a_run_that_was_measured_in_two_ways_says_so_of_its_own_curve(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", ROWS)
    run.evals.mkdir()
    for step, digest in enumerate(("a", "b")):
        (run.evals / f"student_step_{step:06d}.json").write_text(evaluated(digest))
    assert "not comparable: measured with other prompts" in render(read_records([run]))
