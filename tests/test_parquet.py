"""Parquet that may be anybody's is read, or refused with an error that Python can catch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opd.parquet import Compact, _end, _values, read_parquet

NESTED = [{"list": [1, 2, 3], "pair": [{"x": "a", "y": [True, False]}], "map": [("k", 1)]}, {"list": None}, {}]
TYPES = pa.schema(
    {
        "list": pa.list_(pa.int64()),
        "pair": pa.list_(pa.struct({"x": pa.string(), "y": pa.list_(pa.bool_())})),
        "map": pa.map_(pa.string(), pa.int64()),
        "flat": pa.float32(),
    }
)


def written(path: Path, times: int = 1, groups: int | None = None) -> Path:
    pq.write_table(pa.Table.from_pylist(NESTED * times, TYPES), path, row_group_size=groups)
    return path


@pytest.mark.parametrize(("times", "groups"), [(1, None), (50, 7), (400, 3)])
def test_the_values_are_counted_as_pyarrow_counts_them(times: int, groups: int | None, tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", times, groups)
    known = pq.ParquetFile(file).metadata
    every = [known.row_group(i).column(k) for i in range(known.num_row_groups) for k in range(known.num_columns)]
    assert _values(_end(file, file.stat().st_size)) == sum(column.num_values for column in every)
    assert read_parquet(file).num_rows == 3 * times


def test_a_file_that_contradicts_itself_ends_no_process(tmp_path: Path) -> None:
    """Which is why pyarrow is not asked: of an end with a level too many it throws where nobody catches."""
    whole = written(tmp_path / "a.parquet").read_bytes()
    size = len(_end(tmp_path / "a.parquet", len(whole)))
    bad, aborts = tmp_path / "bad.parquet", 0
    ask = "import sys, pyarrow.parquet as q; g = q.ParquetFile(sys.argv[1]).metadata.row_group(0); g.column(0)"
    for at in range(len(whole) - 8 - size, len(whole) - 8):
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])  # a list one longer or shorter
        try:
            read_parquet(bad)
        except (ValueError, OSError, pa.ArrowException) as error:
            if "histogram size mismatch" in str(error) and not aborts:
                aborts += subprocess.run([sys.executable, "-c", ask, str(bad)], capture_output=True).returncode < 0
    assert aborts


# The last is a map of so many truths that counting them takes forever, where none takes a byte; to pyarrow it is empty.
@pytest.mark.parametrize("end", [b"", b"\x19", b"\x49\xfc\xff\xff\xff\xff\x0f", b"\x49\xf7\xff\xff\xff\xff\xff\xff\x7f",
                                 b"\x48\xff\xff\xff\x7f", b"\x1c" * 5000, b"\x4d", b"\x15\x02",
                                 b"\x1b\x80\x80\x80\x80\x80\x80\x80\x80\x10\x11\x00"])  # fmt: skip
def test_an_end_that_ends_in_the_middle_or_promises_more_than_there_is_is_damaged(end: bytes) -> None:
    with pytest.raises(ValueError, match="its end is damaged"):
        _values(end)


def test_fields_are_read_by_number() -> None:
    data = b"\x15\x54\x28\x03abc\x05\x80\x02\x01\x19\x25\x02\x04\x1b\x01\x85k\x06\x00\x12\x00"
    assert Compact(data[:2] + b"\x00").struct() == {1: 42}
    assert Compact(data[:7] + b"\x00").struct() == {1: 42, 3: None}
