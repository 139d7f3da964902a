"""The contract of data sources.

Subclass it in a test module and give the data of a study, small::

    class TestRings(SourceContract):
        @pytest.fixture
        def data(self) -> DataSpec:
            return PluginData(source="my_package.rings:Rings", train_per_class=20, test_per_class=10)

Shapes: B images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smoe_ray.data import Source, prepare, requirements, split
from smoe_ray.spec import DataSpec


class SourceContract:
    """What every data source must do; subclass it and override `data` (see the module)."""

    @pytest.fixture
    def data(self) -> DataSpec:
        """A few images of the source under test, at fraction 1."""
        raise NotImplementedError("override the fixture data")

    @pytest.fixture
    def source(self, data: DataSpec, tmp_path: Path) -> Source:
        """The source, read once."""
        return prepare(data, tmp_path / "cache")

    def test_every_class_has_images_of_one_shape(self, source: Source) -> None:
        """uint8, training images sorted by label."""
        for dataset in (source.train, source.test):
            assert dataset.image_BHW.dtype == np.uint8
            assert dataset.image_shape == source.train.image_shape
            assert set(dataset.label_B.tolist()) == set(range(len(source.class_names)))
        assert np.all(np.diff(source.train.label_B) >= 0)

    def test_images_are_as_the_spec_announces(self, data: DataSpec, source: Source) -> None:
        """Shape, classes and numbers, where the spec has them."""
        assert data.image_shape in (None, source.train.image_shape)
        if data.classes is not None:
            assert source.class_names == tuple(data.classes)
        for wanted, dataset in ((data.train_per_class, source.train), (data.test_per_class, source.test)):
            if wanted is not None:
                assert np.bincount(dataset.label_B).tolist() == [wanted] * len(source.class_names)

    def test_it_reads_the_same_again(self, data: DataSpec, source: Source, tmp_path: Path) -> None:
        """Also after the cache is gone."""
        again = prepare(data, tmp_path / "another cache")
        assert again.folder.name == source.folder.name
        assert again.fingerprint == source.fingerprint

    def test_a_fraction_is_the_beginning_of_each_class(self, data: DataSpec, source: Source) -> None:
        """Taken by smoe-ray, not by the source: half of the images, and all that is tested on."""
        half = split(source, data.model_copy(update={"fraction": 0.5}))
        for label in range(len(source.class_names)):
            whole = source.train.image_BHW[source.train.label_B == label]
            part = half.train.image_BHW[half.train.label_B == label]
            assert len(part) == len(whole) // 2
            assert np.array_equal(part, whole[: len(part)])
        assert len(half.test) == len(source.test)

    def test_it_says_what_it_needs(self, data: DataSpec) -> None:
        """Here nothing is absent, or it could not have been read."""
        assert all(need.state != "absent" for need in requirements(data))
