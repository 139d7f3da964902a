"""Quick, Draw! drawings in Google's ``.ndjson`` files, raw or simplified: one drawing per line.

Format: https://github.com/googlecreativelab/quickdraw-dataset#the-raw-moderated-dataset

Shapes: P points of one drawing.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smoe_ray.bounded_read import open_regular
from smoe_ray.data.files import one_line
from smoe_ray.data.quickdraw import Drawing, another_copy, as_drawing
from smoe_ray.errors import DataError

MAX_LINE_BYTES = 10_000_000
"""A longer line is refused; Google's longest raw drawings are far shorter."""

MAX_COORDINATE = 1_000_000
"""Pixels; screens are far smaller."""


def read_ndjson(file: Path, train: int, test: int, recognized_only: bool) -> tuple[list[Drawing], list[Drawing]]:
    """The first `train` drawings of a file, and its last `test`.

    A stroke is [x, y] in simplified files and [x, y, t] in raw ones; the times are not used. Only the drawings that
    are returned are held in memory.

    Args:
        file: UTF-8 text, one JSON object with `drawing` per line.
        train, test: how many drawings.
        recognized_only: leave out drawings that the game did not recognise.

    Raises:
        DataError: the file is damaged, holds something else, or fewer drawings than `train` and `test` together.
    """
    first: list[tuple[int, bytes]] = []
    last: deque[tuple[int, bytes]] = deque(maxlen=test)
    total = 0
    for number, line in _lines(file):
        if recognized_only and not _parsed(file, number, line).get("recognized", True):
            continue
        total += 1
        (first if len(first) < train else last).append((number, line))
    if train + test > total:
        kept = " recognised" if recognized_only else ""
        raise DataError(
            f"{file}: holds {total:,}{kept} drawings, {train:,} + {test:,} are needed; "
            "lower data.train_per_class or data.test_per_class"
        )
    kinds: dict[int, int] = {}  # numbers of arrays in a stroke: the line where that kind first stands

    def drawn(part: Iterable[tuple[int, bytes]]) -> list[Drawing]:
        return [_drawing(file, number, _parsed(file, number, line), kinds) for number, line in part]

    return drawn(first), drawn(last)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Each line that is not blank, and its number from 1 on."""
    number = 0
    with open_regular(file) as stream:
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise DataError(f"{file}:{number}: a line of more than {MAX_LINE_BYTES:,} bytes; one drawing per line")
            if line.strip():
                yield number, line


def _parsed(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}:{number}: not JSON ({one_line(error)}); {another_copy(file)}") from None
    if not isinstance(item, dict) or "drawing" not in item:
        raise DataError(f'{file}:{number}: no drawing; needed: {{"drawing": [[[x, ...], [y, ...]], ...], ...}}')
    return item


def _drawing(file: Path, number: int, item: dict[str, Any], kinds: dict[int, int]) -> Drawing:
    """Steps from point to point, (P, 3), as sketch-rnn has them."""
    try:
        position, lifted = [], []
        for stroke in item["drawing"]:
            if len(stroke) not in (2, 3):
                raise ValueError(f"a stroke has {len(stroke)} arrays; needed: [x, y] or [x, y, t]")
            kinds.setdefault(len(stroke), number)
            x, y = (np.asarray(values, dtype=np.float64) for values in stroke[:2])
            if x.ndim != 1 or x.shape != y.shape:
                raise ValueError(f"a stroke has x of shape {x.shape} and y of shape {y.shape}")
            if len(x):
                position.append(np.stack([x, y], axis=1))
                lifted.append(np.arange(len(x)) == len(x) - 1)
        if not position:
            raise ValueError("it has no points")
        if len(kinds) > 1:
            raise ValueError(
                f"raw and simplified drawings in one file (lines {' and '.join(map(str, kinds.values()))})"
            )
        position_P2 = np.concatenate(position)
        if not (np.abs(position_P2) <= MAX_COORDINATE).all():  # NaN is not
            raise ValueError(f"coordinates that are no numbers or beyond {MAX_COORDINATE:,}")
        return as_drawing(np.column_stack([np.diff(position_P2, axis=0, prepend=0.0), np.concatenate(lifted)]))
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{file}:{number}: not a drawing ({one_line(error)}); {another_copy(file)}") from None
