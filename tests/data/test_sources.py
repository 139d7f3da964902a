"""The interface of data sources: every kind implements it, and so may an object from outside the package."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from smoe_ray.data import Content, DataRequirement, Dataset, ReadContext, prepare
from smoe_ray.data.sources import combined, images, named, parquet, quickdraw, source_reader, synthetic
from smoe_ray.spec import NamedDataBase, SyntheticData
from smoe_ray.spec.data import BUILT_IN_SOURCES, BuiltInData

READERS = {"combined": combined, "images": images, "parquet": parquet, "quickdraw": quickdraw, "synthetic": synthetic}


def test_every_kind_of_data_spec_has_a_reader() -> None:
    specs = {name: spec for spec in get_args(BuiltInData) for name in get_args(spec.model_fields["source"].annotation)}
    assert tuple(sorted(specs)) == tuple(sorted(BUILT_IN_SOURCES))
    for name, spec in specs.items():
        assert source_reader(spec.model_construct(source=name)) is READERS.get(name, named)
        assert (name in READERS) != issubclass(spec, NamedDataBase)


class Stripes:
    """A source from outside: B training images of any height and width."""

    def __init__(self, text: str, height: int = 12, width: int = 20, test_width: int | None = None) -> None:
        self.text, self.train_shape, self.test_shape = text, (height, width), (height, test_width or width)

    def requirements(self, _spec: SyntheticData) -> tuple[DataRequirement, ...]:
        return ()

    def find(self, _spec: SyntheticData, _context: ReadContext) -> str:
        return self.text

    def key(self, _spec: SyntheticData, found: str, _context: ReadContext) -> Sequence[str]:
        return [found]

    def read(self, _spec: SyntheticData, found: str, _context: ReadContext) -> Content:
        def dataset(count: int, shape: tuple[int, int]) -> Dataset:
            image_BHW = np.arange(count * shape[0] * shape[1], dtype=np.uint8).reshape(count, *shape)
            return Dataset(image_BHW, np.zeros(count, np.int64))

        return Content(dataset(5, self.train_shape), dataset(2, self.test_shape), (found,))


def test_an_object_from_outside_is_a_source_of_images_of_any_size(tmp_path: Path) -> None:
    source = prepare(SyntheticData(), tmp_path, reader=Stripes("a"))
    assert source.class_names == ("a",)
    assert source.train.image_shape == source.test.image_shape == (1, 12, 20)
    assert source.train.image_BHW[0, 1, :3].tolist() == [20, 21, 22]
    assert prepare(SyntheticData(), tmp_path, reader=Stripes("a")).folder == source.folder
    assert prepare(SyntheticData(), tmp_path, reader=Stripes("b")).folder != source.folder


def test_the_code_of_a_source_is_part_of_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folders = set()
    for number, comment in enumerate(("", "# changed", "")):
        (tmp_path / f"elsewhere{number}.py").write_text(
            f"from test_sources import Stripes\nclass Same(Stripes): pass\n{comment}"
        )
        same = importlib.import_module(f"elsewhere{number}").Same
        folders.add(prepare(SyntheticData(), tmp_path / "cache", reader=same("a")).folder)
    assert len(folders) == 2


def test_training_and_test_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test: images of shape \(2, 12, 21\)"):
        prepare(SyntheticData(), tmp_path, reader=Stripes("a", test_width=21))
