"""Tables as text: whole, line by line, and equal to what was written."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from smoe_ray.results import to_csv, to_json


def cells(frame: pd.DataFrame) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(frame))))


@pytest.mark.parametrize("length", [0, 1, 19, 20, 30, 1024, 5000])
def test_a_list_is_one_cell_of_json_whatever_its_length(length: int) -> None:
    values = (np.arange(length) / 7).tolist()
    frame = pd.DataFrame({"usage": [np.array(values), None], "seed": [0, 1]})
    assert to_csv(frame).count("\n") == 3
    assert json.loads(cells(frame)[0]["usage"]) == values
    assert cells(frame)[1]["usage"] == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((64, 32), "[64, 32]"),
        ([(1, 2), ("a", None)], '[[1, 2], ["a", null]]'),
        (np.array([0.1, math.nan, math.inf]), "[0.1, null, null]"),
        (np.array([np.float32(0.5)]), "[0.5]"),
        ({"b": np.int64(1)}, '{"b": 1}'),
        ((), "[]"),
        ("two\nlines\r\nof text", r"two\nlines\nof text"),
        ('quoted, "so"', 'quoted, "so"'),
        ("猫", "猫"),
        (np.float64(0.1), "0.1"),
    ],
)
def test_what_a_cell_says(value: Any, text: str) -> None:
    frame = pd.DataFrame({"value": pd.Series([value, "other"], dtype=object)})
    assert cells(frame)[0]["value"] == text


def test_numbers_keep_all_their_digits() -> None:
    numbers = [0.1 + 0.2, 1e-17, 5e-324, 1.7976931348623157e308, 1 / 3]
    frame = pd.DataFrame({"x": numbers, "n": range(5), "arm": pd.Categorical(list("abcab"))})
    assert [float(row["x"]) for row in cells(frame)] == numbers
    assert [row["x"] for row in json.loads(to_json(frame))] == numbers
    assert [row["arm"] for row in json.loads(to_json(frame))] == list("abcab")


def test_json_has_no_number_that_json_does_not_know() -> None:
    frame = pd.DataFrame({"x": [math.nan, math.inf], "t": [None, (1, math.nan)], "when": [pd.NaT, pd.Timestamp(0)]})
    assert json.loads(to_json(frame)) == [
        {"x": None, "t": None, "when": None},
        {"x": None, "t": [1, None], "when": "1970-01-01T00:00:00"},
    ]


def test_the_table_itself_is_not_changed() -> None:
    frame = pd.DataFrame({"usage": [[1.0], [2.0]]})
    to_csv(frame)
    assert frame["usage"].tolist() == [[1.0], [2.0]]
