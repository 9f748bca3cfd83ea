"""Parquet files that may be anybody's: how much they unpack to is read off their end before anything is unpacked.

pyarrow knows it too, but ends the process where that part of a file contradicts itself: it throws in C++, and nobody
there catches.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES, VALUES_TO_A_BYTE = 2**21, 8
"""Of a file of log-probs, which cannot be packed: more, and more to each of its bytes, it cannot have."""
GROUPS, COLUMNS, MEANING, COUNT = 4, 1, 3, 5
"""Fields of the end of a file, by parquet's definition: row groups, their columns, what is said of one, its values."""
TAIL = 8
"""Bytes behind that end: its length, and a mark."""


def read_parquet(path: Path) -> Any:
    """A pyarrow table of a file.

    Raises:
        ValueError: It is no file, or no parquet, or a small one that unpacks to what no memory holds.
        OSError: It cannot be read.
    """
    from pyarrow.parquet import ParquetFile

    if not path.is_file():
        raise ValueError("it is no file")
    size = path.stat().st_size
    with ParquetFile(path) as file:
        values = _values(_end(path, size))
        if values > max(VALUES, VALUES_TO_A_BYTE * size):
            raise ValueError(f"it has {values} values in {size} bytes")
        return file.read()


def _end(path: Path, size: int) -> bytes:
    """What parquet says at its end of all that is before."""
    with path.open("rb") as file:
        file.seek(max(0, size - TAIL))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - TAIL - length))
        return file.read(length)


def _values(end: bytes) -> int:
    """In all columns together.

    Raises:
        ValueError: The end is damaged.
    """
    try:
        groups = Compact(end).struct()[GROUPS]
        return sum(abs(column[MEANING][COUNT]) for group in groups for column in group[COLUMNS])
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError("its end is damaged") from error


class Compact:
    """Reads Thrift's compact protocol, of which the ends of parquet files are made: values by the numbers of fields.

    Every value takes a byte at least, so that nothing that is read is larger than what it is read from.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self._kinds: dict[int, Callable[[], Any]] = {
            1: lambda: True, 2: lambda: False, 3: self._byte, 4: self._signed, 5: self._signed, 6: self._signed,
            7: lambda: self._skipped(8), 8: lambda: self._skipped(self._number()), 9: self._list, 10: self._list,
            11: self._map, 12: self.struct,
        }  # fmt: skip

    def struct(self) -> dict[int, Any]:
        """Fields by number.

        Raises:
            LookupError: There is no such kind of value, or the data ends before it.
        """
        found, number = {}, 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            found[number] = self._kinds[head & 15]()
        return found

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _number(self) -> int:
        found, shift, byte = 0, 0, 128
        while byte & 128 and shift < 70:
            byte = self._byte()
            found |= (byte & 127) << shift
            shift += 7
        return found

    def _signed(self) -> int:
        number = self._number()
        return (number >> 1) ^ -(number & 1)

    def _skipped(self, size: int) -> None:
        self._at += size
        if self._at > len(self._data):
            raise IndexError(self._at)

    def _list(self) -> list[Any]:
        head = self._byte()
        count = self._number() if head >> 4 == 15 else head >> 4
        read = self._inner(head & 15)
        return [read() for _ in range(count)]

    def _map(self) -> None:
        if count := self._number():
            kinds = self._byte()
            key, value = self._inner(kinds >> 4), self._inner(kinds & 15)
            for _ in range(count):
                key(), value()

    def _inner(self, kind: int) -> Callable[[], Any]:
        """Reads values of a list or a map, where also what is true or false takes a byte."""
        return self._byte if kind in (1, 2) else self._kinds[kind]
