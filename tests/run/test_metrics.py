"""metrics.jsonl survives kills and resumes; seconds go to the right phase."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from opd.run.metrics import Phases, peak_memory_gb, read_metrics, skim
from opd.run.rows import MetricsFile
from opd.types import UserError


class FakeClock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, steps: range, first: int = 0) -> None:
    file = MetricsFile(path, first=first)
    for step in steps:
        file.write(step, {"kl/sampled": step / 10})
    file.close()


def test_a_line_is_readable_before_the_file_is_closed(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.write(0, {"eval/accuracy": 0.5})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "eval/accuracy": 0.5}]
    file.close()
    file.close()


def test_numbers_that_json_lacks_come_back_and_every_line_is_legal_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.write(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1})
    file.close()

    def refuse(name: str) -> float:
        raise AssertionError(name)

    assert json.loads(path.read_text(), parse_constant=refuse)["b"] == "inf"
    path.write_text(path.read_text() + '{"step": 2, "a": null}\n')
    row, foreign = read_metrics(path)
    assert math.isnan(row["a"])
    assert math.isnan(foreign["a"])
    assert (row["b"], row["c"], row["d"]) == (math.inf, -math.inf, 0.1)


def test_a_resumed_file_equals_that_of_a_run_without_a_break(tmp_path: Path) -> None:
    write(tmp_path / "whole", range(1, 11))
    write(tmp_path / "broken", range(1, 8))  # killed after step 7, the last checkpoint is of step 5
    write(tmp_path / "broken", range(6, 11), first=6)
    assert (tmp_path / "broken").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("cut", range(1, 28))
def test_a_half_written_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    write(path, range(3, 4), first=3)
    assert path.read_bytes() == whole


def test_a_fresh_start_empties_the_file_and_an_empty_file_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.touch()
    write(path, range(1, 4))
    write(path, range(2))
    assert [row["step"] for row in read_metrics(path)] == [0, 1]


def test_a_step_is_written_once_and_in_order(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl", first=5)
    file.write(5, {})
    with pytest.raises(ValueError, match="step 5 after step 5"):
        file.write(5, {})
    file.close()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"not json", "not JSON"), (b"[1]", "not an object"), (b"null", "not an object"), (b'{"kl": 1}', "no step"),
        (b'{"step": "x"}', "step is 'x'"), (b'{"step": 1e400}', "no step"), (b'{"step": 1.5}', "no step"),
        (b'{"step": 2, "kl": []}', "kl is '[]'"), (b'{"step": 1, "kl{"step": 2}', "not JSON"), (b"", "not JSON"),
        (b"\xff\xfe", "not UTF-8"), (b"[" * 100_000, "too deep"), (b'{"step": true, "kl": {}}', "kl is '{}'"),
    ],
)  # fmt: skip
def test_a_spoilt_line_is_named_with_what_to_do(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: .*; take the line out") as caught:
        read_metrics(path)
    assert says in str(caught.value)
    assert "Error" not in str(caught.value)  # no word of Python's


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.jsonl: it cannot be read: No such file"):
        read_metrics(tmp_path / "metrics.jsonl")


def phases() -> tuple[Phases, FakeClock]:
    clock = FakeClock()
    return Phases(clock=clock, wait=lambda: None), clock


def test_seconds_shares_and_tokens_per_second_of_a_step() -> None:
    times, clock = phases()
    for name, seconds in [("generate", 4.0), ("score", 2.0), ("update", 1.0), ("update", 1.0), ("eval", 1.0)]:
        with times(name):
            clock.now += seconds
    clock.now += 1.0
    out = times.take({"generate": 400, "push": 10})
    assert out["perf/step_s"] == 10.0
    assert out["perf/update_s"] == 2.0
    assert out["perf/eval_s"] == 1.0
    assert out["perf/generate_tokens_s"] == 100.0
    assert "perf/push_tokens_s" not in out
    shares = {name: value for name, value in out.items() if name.endswith("_share")}
    assert shares.pop("perf/other_share") == pytest.approx(0.2)
    assert sum(shares.values()) == pytest.approx(0.8)


def test_take_begins_anew_and_the_total_goes_on() -> None:
    times, clock = phases()
    for _ in range(2):
        with times("generate"):
            clock.now += 3.0
        assert times.take()["perf/generate_s"] == 3.0
    assert times.total == {"generate": 6.0}
    assert times.take()["perf/other_share"] == 1.0


def test_the_generation_of_an_eval_counts_as_eval_only() -> None:
    times, clock = phases()
    with times("eval"), times("generate"):
        clock.now += 3.0
    out = times.take({"generate": 100})
    assert out["perf/eval_s"] == 3.0
    assert "perf/generate_s" not in out
    assert "perf/generate_tokens_s" not in out


def test_a_phase_that_fails_is_counted_and_leaves_the_clock_usable() -> None:
    times, clock = phases()

    def fail() -> None:
        with times("update"):
            clock.now += 2.0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with times("update"):
        clock.now += 1.0
    assert times.take()["perf/update_s"] == 3.0


def test_entering_a_phase_is_told() -> None:
    told: list[str] = []
    times = Phases(on_enter=told.append)
    with times("eval"), times("generate"):
        pass
    with times("score"):
        pass
    assert told == ["eval", "score"]


def test_peak_memory_is_plausible_in_gigabytes() -> None:
    assert 0.005 < peak_memory_gb() < 1000


def test_rows_that_are_skimmed_are_the_first_the_last_and_those_of_evaluations(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": s, "kl/exact": s / 10} | ({"eval/kl": 1.0} if s in (0, 50, 70) else {}) for s in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 100')
    assert [row["step"] for row in skim(path)] == [0, 1, 2, 50, 70, 99]
    assert skim(path)[3] == rows[50]
    assert skim(tmp_path / "none") == []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "nothing\n" + json.dumps(rows[0]) + "\n")
    with pytest.raises(UserError, match="line 101"):
        skim(path)
