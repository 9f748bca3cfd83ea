"""Rows of Arrow tables, of parquet files and the `datasets` library, as the rows that were put into them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from opd.tasks.lazy import Lazy
from opd.tasks.parsing import Written
from opd.tasks.placed import Placed


def rows_of(table: Any) -> Iterator[dict[str, Any]]:
    """The rows of a table or batch, in order."""
    kinds = {field.name: field.type for field in table.schema}
    for row in table.to_pylist():
        yield {name: _value(cell, kinds[name]) for name, cell in row.items()}


class Saved(Lazy[Placed]):
    """The rows of a dataset, read when they are asked for."""

    def __init__(self, dataset: Any, path: str) -> None:
        """Read through Arrow: what a column is decoded to (pictures, sound) is no text anyway."""
        self._dataset, self._path = dataset.with_format("arrow"), path

    def __len__(self) -> int:
        return len(self._dataset)

    def item(self, index: int) -> Placed:
        """Read one row."""
        (row,) = rows_of(self._dataset[index])
        return self._placed(index, row)

    def __iter__(self) -> Iterator[Placed]:
        """In batches, which is faster."""
        tables = self._dataset.iter(batch_size=1000)
        return (self._placed(i, row) for i, row in enumerate(row for table in tables for row in rows_of(table)))

    def _placed(self, index: int, row: dict[str, Any]) -> Placed:
        return Placed(f"{self._path}, row {index + 1}", row)


def _value(value: Any, kind: Any) -> Any:
    """A value as it was before the table: tables fill fields up with null, and lengthen numbers of few digits."""
    import pyarrow.types as t

    if value is None:
        return None
    if t.is_struct(kind):
        return {field.name: _value(value[field.name], field.type) for field in kind if value[field.name] is not None}
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return [_value(inner, kind.value_type) for inner in value]
    if (t.is_float32(kind) or t.is_float16(kind)) and math.isfinite(value):
        return Written(str(kind.to_pandas_dtype()(value)))
    return value
