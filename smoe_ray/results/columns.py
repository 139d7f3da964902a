"""The columns of `epochs.parquet` as a Parquet file, and back."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from smoe_ray.columns import EPOCHS

EPOCH_COLUMNS: tuple[str, ...] = tuple(column.name for column in EPOCHS)
"""Every epochs file has these columns; a value that was not measured in an epoch is null."""

TIMING_COLUMNS: tuple[str, ...] = tuple(column.name for column in EPOCHS if column.timing)
"""The only columns that differ between two runs of the same trial."""

MOST_VALUES = 20_000_000
"""Limit of values in a file that is read, or in its column of lists: 200,000 epochs of 100 experts."""
_NUMBERS = frozenset(
    {"null", "float", "double", "halffloat", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
)

Row = dict[str, Any]
"""One epoch: column -> float, int, list of floats (`experts.usage`) or None."""


def to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as the bytes of a Parquet file; columns other than `EPOCH_COLUMNS` are stored as floats.

    Raises:
        TypeError, ValueError: a value does not fit the type of its column (a bug in the code that made the row).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    extra = sorted({name for row in rows for name in row} - set(EPOCH_COLUMNS))
    schema = empty_epochs(extra).schema
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    sink = pa.BufferOutputStream()
    # With few rows, dictionaries and statistics would make up most of the file and of the time to read and write it.
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), sink, use_dictionary=False, write_statistics=False)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def empty_epochs(extra: Sequence[str] = ()) -> Any:
    """A `pyarrow.Table` without rows: `EPOCH_COLUMNS` and `extra` (floats) with their types."""
    import pyarrow as pa

    kinds = {"float": pa.float64(), "int": pa.int64(), "list": pa.list_(pa.float64())}
    types = [(column.name, kinds[column.dtype]) for column in EPOCHS]
    return pa.schema([*types, *((name, pa.float64()) for name in extra)]).empty_table()


def from_parquet(content: bytes) -> Any:
    """A `pyarrow.Table` from the bytes of an epochs file. Raises ValueError if they are not a valid one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # pyarrow.parquet.read_table builds a dataset around each small file: ten times slower.
        file = pq.ParquetFile(pa.BufferReader(content))
        _check(file)
        return file.read(use_threads=False)
    except (pa.ArrowException, OSError):  # its words are about Parquet's insides
        raise ValueError(f"{len(content):,} bytes that are not a whole Parquet file") from None


def _check(file: Any) -> None:
    """Raise ValueError, before any value is read, for a file that training cannot have written, e.g. a billion rows."""
    schema, metadata = file.schema_arrow, file.metadata
    names = schema.names
    if "epoch" not in names:
        raise ValueError("no column 'epoch'")
    for name, kind in zip(names, schema.types, strict=True) if schema != _schema() else ():
        number = kind.value_type if name == "experts.usage" and str(kind).startswith("list<") else kind
        if str(number) not in _NUMBERS:
            raise ValueError(f"column {name[:100]!r} is of type {str(kind)[:100]}")
    values = metadata.num_rows
    if "experts.usage" in names:
        at = names.index("experts.usage")  # columns are flat, so positions in schema and file agree
        values = max(
            values, *(metadata.row_group(group).column(at).num_values for group in range(metadata.num_row_groups)), 0
        )
    values = max(values, metadata.num_rows * len(names))
    if values > MOST_VALUES:
        raise ValueError(f"{values:,} values in {len(names):,} columns: more than training writes")


@functools.cache
def _schema() -> Any:
    return empty_epochs().schema
