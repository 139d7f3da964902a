"""Tables as CSV and JSON text, without loss: every list whole, every number with all its digits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def to_csv(frame: pd.DataFrame) -> str:
    """One line per row, after a line of column names. A list is one cell of JSON text, ``[0.1, 0.9]``.

    A line break inside a text is written as ``\\n``, so that tools that read line by line see whole rows.
    """
    cells = frame.copy(deep=False)
    for position, kind in enumerate(frame.dtypes):
        if kind == object or str(kind) in ("str", "string"):  # noqa: E721  # a dtype
            cells.isetitem(position, [_cell(value) for value in frame.iloc[:, position]])
    text: str = cells.to_csv(index=False, lineterminator="\n")
    return text


def to_json(frame: pd.DataFrame) -> str:
    """A list of records, one per row; what was not measured, or is not finite, is null."""
    names = [str(name) for name in frame.columns]
    records = [
        {name: _plain(value) for name, value in zip(names, row, strict=True)}
        for row in frame.itertuples(index=False, name=None)
    ]
    return json.dumps(records, indent=2, allow_nan=False) + "\n"


def _cell(value: Any) -> Any:
    plain = _plain(value)
    if isinstance(plain, list | dict):
        return json.dumps(plain, ensure_ascii=False)
    return "\\n".join(plain.splitlines()) if isinstance(plain, str) else plain


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if hasattr(value, "tolist"):  # of NumPy: an array, or a single number
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value) if value == value else None  # NaT is not equal to itself
