"""Results as data, and as a README shows them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from opd.recipe.result import BEGIN, END, Claim, Result, Table, markdown, with_result
from opd.types import UserError

RESULT = Result(
    tables=(Table("Accuracy", ("method", "steps", "%"), (("OPD", 12345.6, 0.98765), ("SFT", 3, "not reached"))),),
    claims=(Claim("It is faster.", "twice as fast.", "partly"),),
    data={"level": 0.5, "curve": [1.0, 2.0]},
    seconds=170,
)
SHOWN = """**Partly:** It is faster. Here: twice as fast.

Accuracy

| method | steps | % |
| --- | --- | --- |
| OPD | 12,346 | 0.988 |
| SFT | 3 | not reached |

![two curves](two_curves.png)

All stages together took 3 minutes."""


def test_a_result_reads_as_claims_tables_and_plots() -> None:
    assert markdown(RESULT, ["two_curves"]) == SHOWN


def test_a_written_result_reads_back_the_same(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "result.json", machine="two cores")
    assert Result.read(tmp_path / "result.json") == RESULT
    assert json.loads((tmp_path / "result.json").read_text())["machine"] == "two cores"


def refuse(constant: str) -> None:
    """For `parse_constant`: NaN and the infinities are no JSON."""
    raise AssertionError(constant)


def test_a_number_that_json_has_not_is_null_and_reads_back_as_nan(tmp_path: Path) -> None:
    rows = (("a", math.nan), ("b", 1.0))
    Result((Table("T", ("x", "y"), rows),), (), {"curve": [1.0, math.nan, math.inf]}).write(tmp_path / "result.json")
    json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    read = Result.read(tmp_path / "result.json")
    assert read.data["curve"] == pytest.approx([1.0, math.nan, math.nan], nan_ok=True)
    assert "| a | nan |" in markdown(read, [])


def test_bars_and_line_ends_do_not_end_a_cell() -> None:
    shown = markdown(Result((Table("T", ("p(x|y)",), (("one\ntwo | three",), ("escaped \\| before",))),), ()), [])
    assert shown.splitlines()[2:] == ["| p(x\\|y) |", "| --- |", "| one two \\| three |", "| escaped \\| before |"]


def test_a_readme_keeps_all_that_is_not_between_its_marks() -> None:
    readme = f"# Question\n\n{BEGIN}\nold\n{END}\n\nWhat it does not show.\n"
    new = with_result(readme, SHOWN)
    assert new == f"# Question\n\n{BEGIN}\n\n{SHOWN}\n\n{END}\n\nWhat it does not show.\n"
    assert with_result(new, SHOWN) == new


@pytest.mark.parametrize("readme", ["# no marks\n", f"{BEGIN}\n", f"{END}\n"])
def test_a_readme_without_both_marks_is_refused(readme: str) -> None:
    with pytest.raises(UserError, match=r"README\.md: it needs the lines"):
        with_result(readme, SHOWN)
