"""What a run has measured is not lost without a word, whatever becomes of its `metrics.jsonl`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from opd.run.checkpoint import Checkpoint
from opd.run.metrics import read_metrics
from opd.run.rows import MetricsFile, rows_until
from opd.types import RunError, UserError
from tests.tiny import cli_code


def opened(path: Path, steps: range, heard: list[str]) -> MetricsFile:
    """A new file with some steps in it."""
    file = MetricsFile(path, say=heard.append)
    for step in steps:
        file.write(step, {"kl/sampled": step / 10})
    return file


def without(path: Path, line: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))


HARM: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "without a row": lambda path: without(path, 1),
    "of another run": lambda path: path.write_bytes(b'{"step": 0}\n{"step": 1}\n{"step": 2}\n'),
    "spoilt": lambda path: path.write_bytes(b"{{{\n" + path.read_bytes()),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_file_that_is_harmed_while_the_run_goes_on_is_whole_after_the_next_step(tmp_path: Path, harm: str) -> None:
    path, heard = tmp_path / "metrics.jsonl", []
    file = opened(path, range(3), heard)
    HARM[harm](path)
    for step in (3, 4):
        file.write(step, {"kl/sampled": step / 10})
    file.close()
    opened(tmp_path / "whole", range(5), []).close()
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()
    assert heard == [f"{path} was changed or removed by somebody else; it is written again, with all its rows"]
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.jsonl", "whole"}


@pytest.mark.parametrize("harm", [name for name in HARM if name != "longer"])
def test_a_run_that_goes_on_takes_the_rows_that_are_lost_from_its_checkpoint(tmp_path: Path, harm: str) -> None:
    path, heard = tmp_path / "metrics.jsonl", []
    file = opened(path, range(4), [])
    saved = file.state()
    whole = path.read_bytes()
    file.close()
    HARM[harm](path)
    MetricsFile(path, 4, saved, heard.append).close()
    assert path.read_bytes() == whole
    assert heard == [f"{path} was not as the run had left it; its rows were taken from the checkpoint"]


def test_rows_after_the_checkpoint_are_no_harm(tmp_path: Path) -> None:
    path, heard = tmp_path / "metrics.jsonl", []
    file = opened(path, range(4), heard)
    saved, whole = file.state(), path.read_bytes()
    file.write(4, {})
    file.close()
    again = MetricsFile(path, 4, saved, heard.append)
    assert path.read_bytes() == whole
    assert torch.equal(again.state()["rows"], saved["rows"])
    assert heard == []


def test_lost_rows_are_counted_where_the_checkpoint_has_none(tmp_path: Path) -> None:
    path, heard = tmp_path / "metrics.jsonl", []
    opened(path, range(5), []).close()
    without(path, 1)
    MetricsFile(path, 4, None, heard.append).close()
    assert heard == [f"{path} lacks 1 of the 4 rows before step 4, and the checkpoint has none"]
    HARM["spoilt"](path)
    with pytest.raises(UserError, match="line 1"):
        MetricsFile(path, 4)


NO_ROWS: dict[str, dict[str, torch.Tensor]] = {
    "nothing": {},
    "other things": {"row": torch.zeros(3, dtype=torch.uint8)},
    "numbers": {"rows": torch.zeros(3)},
    "numbers of a kind that numpy lacks": {"rows": torch.zeros(3, dtype=torch.bfloat16)},
    "no byte": {"rows": torch.zeros(0, dtype=torch.uint8)},
    "one byte": {"rows": torch.zeros((), dtype=torch.uint8)},
    "no JSON": {"rows": torch.frombuffer(bytearray(b'{"step": 0}\n{{\n'), dtype=torch.uint8)},
    "half a line": {"rows": torch.frombuffer(bytearray(b'{"step": 0}\n{"step": 1}'), dtype=torch.uint8)},
    "steps out of order": {"rows": torch.frombuffer(bytearray(b'{"step": 1}\n{"step": 0}\n'), dtype=torch.uint8)},
    "steps after it": {"rows": torch.frombuffer(bytearray(b'{"step": 3}\n'), dtype=torch.uint8)},
}


@pytest.mark.parametrize("held", NO_ROWS.values(), ids=NO_ROWS)
def test_what_a_checkpoint_holds_in_place_of_rows_counts_as_none(tmp_path: Path, held: dict[str, torch.Tensor]) -> None:
    path, heard = tmp_path / "metrics.jsonl", []
    opened(path, range(4), []).close()
    whole = path.read_bytes()
    checkpoint = Checkpoint(tmp_path / "step_000002")
    checkpoint.path.mkdir()
    save_file(held, checkpoint.path / "metrics.safetensors")
    for saved in (held, checkpoint.tensors("metrics")):
        MetricsFile(path, 3, saved, heard.append).close()
        assert (path.read_bytes(), heard) == (whole[: whole.index(b'{"step": 3')], [])
    assert [row["step"] for row in rows_until(path, checkpoint)] == [0, 1, 2]
    without(path, 1)
    MetricsFile(path, 3, held, heard.append).close()
    assert heard == [f"{path} lacks 1 of the 3 rows before step 3, and the checkpoint has none"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_whose_folder_is_gone_ends_with_one_line_and_writes_nothing_elsewhere(
    tmp_path: Path, replaced: bool
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    file = opened(folder / "metrics.jsonl", range(2), [])
    folder.rename(tmp_path / "moved")
    if replaced:
        folder.mkdir()
    with pytest.raises(RunError, match=f"run={folder}: the folder is gone, or another one has its name"):
        file.write(2, {})
    assert [row["step"] for row in read_metrics(tmp_path / "moved/metrics.jsonl")] == [0, 1]
    assert not folder.exists() or not list(folder.iterdir())


def test_a_run_that_has_lost_its_metrics_goes_on_with_all_of_them(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert cli_code(["train", f"conf={config}", f"run={run}", "steps=3"]) == 0
    shutil.rmtree(run / "checkpoints/step_000003")
    before = (run / "metrics.jsonl").read_bytes().splitlines()
    (run / "metrics.jsonl").unlink()
    capsys.readouterr()
    assert cli_code(["train", "--resume", f"run={run}"]) == 0
    said = capsys.readouterr()
    assert "was not as the run had left it; its rows were taken from the checkpoint" in said.out + said.err
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [0, 1, 2, 3]
    assert (run / "metrics.jsonl").read_bytes().splitlines()[:3] == before[:3]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_metrics_that_are_no_file_are_refused_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "metrics.jsonl"
    make(path)
    with pytest.raises(UserError, match="this is no file"):
        MetricsFile(path, saved={"rows": torch.zeros(0, dtype=torch.uint8)})
    with pytest.raises(UserError, match="this is no file"):
        read_metrics(path)
