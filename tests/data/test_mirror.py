"""Prepared data that another machine finds, and data that are prepared elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from smoe_ray.data import prepare, quickdraw
from smoe_ray.data.sources import synthetic
from smoe_ray.errors import StorageError
from smoe_ray.spec import SyntheticData

SPEC = SyntheticData(classes=("eye", "cat"), train_per_class=6, test_per_class=3)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    name = f"/{tmp_path.name}"
    yield f"memory:/{name}/.cache/data"
    fsspec.filesystem("memory").rm(name, recursive=True)


def test_a_second_machine_fetches_what_the_first_made(
    tmp_path: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare(SPEC, tmp_path / "one", mirror=mirror)
    monkeypatch.setattr(synthetic, "draw", lambda spec: pytest.fail("it was drawn again"))
    fetched = prepare(SPEC, tmp_path / "two", mirror=mirror)
    assert fetched.fingerprint == made.fingerprint
    assert np.array_equal(fetched.train.image_BHW, made.train.image_BHW)
    assert np.array_equal(fetched.test.label_B, made.test.label_B)


def test_what_was_made_before_there_was_a_mirror_is_left_there(tmp_path: Path, mirror: str) -> None:
    prepare(SPEC, tmp_path)
    assert not fsspec.filesystem("memory").exists(mirror)
    prepare(SPEC, tmp_path, mirror=mirror)
    assert fsspec.filesystem("memory").glob(f"{mirror}/prepared/*/meta.json")


def test_half_a_copy_counts_for_nothing(tmp_path: Path, mirror: str) -> None:
    made = prepare(SPEC, tmp_path / "one", mirror=mirror)
    files = fsspec.filesystem("memory")
    [meta] = files.glob(f"{mirror}/prepared/*/meta.json")
    files.rm(meta)
    assert prepare(SPEC, tmp_path / "two", mirror=mirror).fingerprint == made.fingerprint
    assert files.exists(meta)


def test_a_damaged_copy_is_made_again_and_replaced(tmp_path: Path, mirror: str) -> None:
    made = prepare(SPEC, tmp_path / "one", mirror=mirror)
    files = fsspec.filesystem("memory")
    [labels] = files.glob(f"{mirror}/prepared/*/train.label_B.npy")
    whole = files.cat_file(labels)
    files.pipe_file(labels, whole[:-1] + b"x")
    again = prepare(SPEC, tmp_path / "two", mirror=mirror)
    assert again.notes == ("prepared data were damaged (train.label_B.npy) and have been made again",)
    assert again.fingerprint == made.fingerprint
    assert files.cat_file(labels) == whole


def test_a_mirror_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no-such-protocol") as caught:
        prepare(SPEC, tmp_path, mirror="no-such-protocol://bucket")
    assert "\n" not in str(caught.value)


def test_another_map_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickdraw, "_POOL_PAYS_FROM", 3)
    monkeypatch.setattr(quickdraw, "_CHUNK", 2)
    pieces: list[int] = []

    def elsewhere(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        pieces.extend(len(item) for item in items)
        return map(function, items)

    drawings = [np.array([[0, 0, 0], [9 + turn, 5, 0], [3, turn, 1]], dtype=np.int16) for turn in range(5)]
    assert np.array_equal(quickdraw.rasterise(drawings, elsewhere), quickdraw.rasterise(drawings))
    assert pieces == [2, 2, 1]
