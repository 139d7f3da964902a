"""Tables as CSV, and anything as JSON text, without loss: every list whole, every number with all its digits."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

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


def to_json(value: Any) -> str:
    """One JSON document, as `as_json` describes its parts."""
    return json.dumps(as_json(value), indent=2, allow_nan=False) + "\n"


def as_json(value: Any) -> Any:
    """A value as JSON knows it.

    A table is a list of its rows; a row, a named tuple, a dataclass or a spec is an object by the names of its fields,
    save where it has an ``as_json()`` of its own; a moment is ISO 8601 text. Numbers stay numbers; what was not
    measured, or is not finite, is null.
    """
    if hasattr(value, "as_json"):
        return as_json(value.as_json())
    if hasattr(value, "itertuples"):  # of pandas, which is not imported for this
        names = [str(name) for name in value.columns]
        return [_object(zip(names, row, strict=True)) for row in value.itertuples(index=False, name=None)]
    if hasattr(value, "tolist"):  # of NumPy: an array, or a single number
        value = value.tolist()
    if isinstance(value, BaseModel):
        return as_json(value.model_dump(mode="json"))
    if dataclasses.is_dataclass(value):
        return _object((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    if hasattr(value, "_asdict"):
        return as_json(value._asdict())
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, Mapping):
        return _object(value.items())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if value != value:  # NaT, which is a datetime, is not equal to itself
        return None
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _object(items: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    return {str(name): as_json(item) for name, item in items}


def _cell(value: Any) -> Any:
    plain = as_json(value)
    if isinstance(plain, list | dict):
        return json.dumps(plain, ensure_ascii=False)
    return "\\n".join(plain.splitlines()) if isinstance(plain, str) else plain
