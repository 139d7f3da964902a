"""Quick, Draw! drawings in ``.ndjson``, raw and simplified: drawn as those of sketch-rnn, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smoe_ray.data import Splits, load_splits
from smoe_ray.data.quickdraw import rasterise
from smoe_ray.errors import DataError
from smoe_ray.spec import QuickDrawData
from support.quickdraw_files import scribbles

DRAWINGS = scribbles(9)


def strokes(drawing: np.ndarray, raw: bool) -> list[list[list[float]]]:
    """[x, y] of each stroke; of raw drawings with other numbers, and times."""
    position = np.cumsum(drawing[:, :2], axis=0)
    position = position * 4.5 + 300.25 if raw else position - position.min(axis=0)
    ends = sorted({*(np.flatnonzero(drawing[:, 2]) + 1).tolist(), len(drawing)})
    found = []
    for start, end in zip([0, *ends], ends, strict=False):
        x, y = position[start:end].T.tolist()
        found.append([x, y, list(range(len(x)))] if raw else [x, y])
    return found


def lines(raw: bool, **fields: Any) -> list[str]:
    common = {"word": "cat", "countrycode": "CH", "recognized": True, "key_id": "1"}
    return [json.dumps({**common, **fields, "drawing": strokes(drawing, raw)}) for drawing in DRAWINGS]


def splits_of(text: str, tmp_path: Path, **fields: Any) -> Splits:
    (tmp_path / "cat.ndjson").write_text(text)
    spec = QuickDrawData(classes=("cat",), layout="ndjson", root=str(tmp_path), **{"train_per_class": 3, **fields})
    return load_splits(spec, tmp_path / "cache")


def refused(text: str, tmp_path: Path, *words: str, **fields: Any) -> None:
    with pytest.raises(DataError) as error:
        splits_of(text, tmp_path, test_per_class=2, **fields)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in ("cat.ndjson", *words)), str(error.value)


@pytest.mark.parametrize("raw", [False, True], ids=["simplified", "raw"])
def test_drawings_are_drawn_as_those_of_sketch_rnn(raw: bool, tmp_path: Path) -> None:
    """The first ones are for training, the last ones of the file for testing."""
    splits = splits_of("\n".join([*lines(raw), ""]), tmp_path, test_per_class=2)
    assert np.array_equal(splits.train.image_BHW, rasterise(DRAWINGS[:3]))
    assert np.array_equal(splits.test.image_BHW, rasterise(DRAWINGS[-2:]))


def test_ink_is_what_the_spec_says(tmp_path: Path) -> None:
    splits = splits_of("\n".join(lines(False)), tmp_path, test_per_class=2, ink="white_on_black")
    assert np.array_equal(splits.train.image_BHW, 255 - rasterise(DRAWINGS[:3]))


def test_drawings_that_the_game_did_not_recognise_can_be_left_out(tmp_path: Path) -> None:
    text = [line.replace("true", "false") if k in (1, 8) else line for k, line in enumerate(lines(False))]
    kept = splits_of("\n".join(text), tmp_path, test_per_class=2)
    assert np.array_equal(kept.train.image_BHW, rasterise(DRAWINGS[:3]))
    left_out = splits_of("\n".join(text), tmp_path, test_per_class=2, recognized_only=True)
    assert np.array_equal(left_out.train.image_BHW, rasterise([DRAWINGS[k] for k in (0, 2, 3)]))
    assert np.array_equal(left_out.test.image_BHW, rasterise([DRAWINGS[k] for k in (6, 7)]))
    refused("\n".join(text), tmp_path, "holds 7 recognised drawings", train_per_class=6, recognized_only=True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "cat.ndjson:2: not JSON"),
        ("[" * 100_000, "cat.ndjson:2: not JSON"),
        ('{"word": "cat"}', "cat.ndjson:2: no drawing"),
        ('{"drawing": []}', "it has no points"),
        ('{"drawing": [[[1, 2]]]}', "a stroke has 1 arrays"),
        ('{"drawing": [[[1, 2], [1]]]}', "x of shape (2,) and y of shape (1,)"),
        ('{"drawing": [[["a"], [1]]]}', "not a drawing"),
        ('{"drawing": [[[NaN], [1]]]}', "beyond 1,000,000"),
        ('{"drawing": [[[1e308, -1e308], [1, 1]]]}', "beyond 1,000,000"),
        ('{"drawing": 7}', "not a drawing"),
        ('{"drawing": [[[1, 9], [1, 9], [0, 1]]]}', "raw and simplified drawings in one file (lines 1 and 2)"),
    ],
)
def test_lines_that_are_no_drawing_are_named(line: str, words: str, tmp_path: Path) -> None:
    first, _, *others = lines(False)
    refused("\n".join([first, line, *others]), tmp_path, words)


def test_too_few_drawings_and_endless_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("\n".join(lines(False)[:4]), tmp_path, "holds 4 drawings, 3 + 2 are needed")
    monkeypatch.setattr("smoe_ray.data.ndjson.MAX_LINE_BYTES", 2000)
    refused("x" * 3000, tmp_path, "cat.ndjson:1: a line of more than 2,000 bytes")
