"""Several sources as one: labels, names, limits, styles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smoe_ray.data import load_splits
from smoe_ray.errors import DataError
from smoe_ray.spec import CombinedData


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Any]:
    """Two image sets whose class names are the same; every image shows its own number."""
    made = {}
    for part, (first, counts) in {"one": (0, (6, 6)), "two": (100, (12, 6))}.items():
        y = np.repeat(np.arange(len(counts)), counts)
        x = np.broadcast_to((first + np.arange(len(y), dtype=np.uint8))[:, None, None], (len(y), 28, 28)).copy()
        x[:, 20:, 20:] = 255
        np.savez(tmp_path / f"{part}.npz", x=x, y=y)
        made[part] = {"source": "images", "root": str(tmp_path / f"{part}.npz")}
    return made


def load(tmp_path: Path, parts: dict[str, Any], **fields: Any) -> Any:
    return load_splits(CombinedData.model_validate({"parts": parts} | fields), tmp_path / "cache")


def test_labels_are_distinct_and_names_say_the_part(tmp_path: Path, parts: dict[str, Any]) -> None:
    splits = load(tmp_path, parts)
    assert splits.class_names == ("one/0", "one/1", "two/0", "two/1")
    assert splits.train.label_B.tolist() == [0] * 5 + [1] * 5 + [2] * 10 + [3] * 5
    assert splits.test.label_B.tolist() == [0, 1, 2, 2, 3]
    assert splits.test.image_BHW[:, 0, 0].tolist() == [5, 11, 110, 111, 117]


def test_classes_are_chosen_and_limits_apply_on_top(tmp_path: Path, parts: dict[str, Any]) -> None:
    splits = load(tmp_path, parts, classes=["two/0", "one/1"], train_per_class=4, test_per_class=1, fraction=0.5)
    assert splits.class_names == ("two/0", "one/1")
    assert splits.train.image_BHW[:, 0, 0].tolist() == [100, 101, 6, 7]
    assert splits.test.image_BHW[:, 0, 0].tolist() == [110, 11]
    for fields, words in (
        ({"classes": ["two/9"]}, r"no class 'two/9'; did you mean 'two/[01]'\?"),
        ({"train_per_class": 6}, "class 'one/0' has 5 train images, 6 are needed"),
        ({"test_per_class": 2}, "class 'one/0' has 1 test images, 2 are needed"),
    ):
        with pytest.raises(DataError, match=words) as error:
            load(tmp_path, parts, **fields)
        assert "\n" not in str(error.value)


def test_a_part_has_a_fraction_and_an_imbalance_of_its_own(tmp_path: Path, parts: dict[str, Any]) -> None:
    whole = load(tmp_path, parts)
    parts["two"] |= {"fraction": 0.5, "imbalance": {"weights": {"1": 0.5}}}
    splits = load(tmp_path, parts)
    assert np.bincount(splits.train.label_B).tolist() == [5, 5, 5, 1]
    assert splits.fingerprint != whole.fingerprint


def test_styles_are_kept_where_every_part_has_them(tmp_path: Path, parts: dict[str, Any]) -> None:
    eyes = {"source": "synthetic", "classes": ["eye"], "train_per_class": 12, "test_per_class": 4}
    sketches = {"left": eyes, "right": eyes | {"classes": ["pencil"], "drawing_seed": 1}}
    splits = load(tmp_path, sketches, classes=["right/pencil", "left/eye"])
    of_class = {
        label: {splits.style_names[style] for style in splits.train.style_B[splits.train.label_B == label]}
        for label in (0, 1)
    }
    assert all(name.startswith("right/pencil/") for name in of_class[0])
    assert all(name.startswith("left/eye/") for name in of_class[1])
    alone = load_splits(CombinedData.model_validate({"parts": sketches}).parts["left"], tmp_path / "cache")
    assert np.array_equal(splits.train.parameter_BP[12:], alone.train.parameter_BP, equal_nan=True)
    assert splits.parameter_names == alone.parameter_names

    mixed = load(tmp_path, {"left": eyes, "one": parts["one"]})
    assert mixed.style_names == mixed.parameter_names == ()
    assert mixed.train.style_B is None
    assert mixed.train.parameter_BP is None


def test_parts_of_different_shapes_are_refused_with_the_format_that_suits_all(
    tmp_path: Path, parts: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", x=x, y=np.repeat([0, 1], 6))
    np.savez(tmp_path / "wide.npz", x=x[:, :16], y=np.repeat([0, 1], 6))
    photos = {"source": "images", "root": str(tmp_path / "photos.npz")}
    wide = {"source": "images", "root": str(tmp_path / "wide.npz")}
    sketches = {"source": "synthetic", "classes": ["eye"], "train_per_class": 5, "test_per_class": 2}
    for several, message in (
        ({"photos": photos, "wide": wide, "one": parts["one"]},
         "photos 32x32 RGB, wide 32x16 RGB, one 28x28 grey; set data.parts.wide.image and data.parts.one.image to "
         "{size: 32, channels: rgb}"),
        ({"photos": photos, "sketches": sketches},
         "photos 32x32 RGB, sketches 28x28 grey; set data.parts.photos.image to {size: 28, channels: grey}"),
        ({"wide": wide, "one": parts["one"]},
         "set data.parts.wide.image and data.parts.one.image to {size: 28, channels: rgb}"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=re.escape(message)) as error:
            load(tmp_path, several)
        assert "\n" not in str(error.value)
    fitting = load(tmp_path, {"photos": photos | {"image": {"size": 28, "channels": "grey"}}, "sketches": sketches})
    assert fitting.train.image_shape == (1, 28, 28)
    assert load(tmp_path, {"a": photos, "b": photos}).test.image_shape == (3, 32, 32)
