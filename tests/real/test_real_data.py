"""Real Quick, Draw! drawings in both of Google's layouts, MNIST digits and CIFAR-10 photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smoe_ray.data import load_splits, prepare
from smoe_ray.data.overview import overview
from smoe_ray.data.quickdraw import read_drawings
from smoe_ray.errors import DataError
from smoe_ray.spec import ImageData, NamedData, QuickDrawData

PAPER = ("face", "eye", "cat", "snowflake", "pencil")
COUNTS = {"face": (23, 4), "eye": (20, 4), "cat": (169, 28), "snowflake": (31, 5), "pencil": (30, 4)}


@pytest.fixture
def sketchrnn(shared_data: Path) -> str:
    return str(shared_data / "quickdraw" / "sketchrnn")


@pytest.mark.parametrize("name", PAPER)
def test_our_reader_reads_what_numpy_reads(sketchrnn: str, name: str) -> None:
    file = Path(sketchrnn) / f"{name}.npz"
    with np.load(file, allow_pickle=True) as trusted:
        for member, count in zip(("train", "test"), COUNTS[name], strict=True):
            ours = read_drawings(file, member)
            assert len(ours) == count
            assert all(np.array_equal(a, b) for a, b in zip(ours, trusted[member], strict=True))


def test_the_five_categories_of_the_paper_are_rasterised(sketchrnn: str, tmp_path: Path) -> None:
    spec = QuickDrawData(root=sketchrnn, train_per_class=20, test_per_class=4)
    splits = load_splits(spec, tmp_path)
    assert splits.class_names == PAPER
    assert splits.train.image_BHW.shape == (100, 28, 28)
    assert splits.test.label_B.tolist() == [label for label in range(5) for _ in range(4)]
    for image in splits.train.image_BHW:
        ink = image < 128
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        assert 0.02 < ink.mean() < 0.6
        assert 21 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 25  # 0.8 of 28 pixels and the line
        assert abs(rows.mean() - 13.5) < 4
        assert image[[0, -1]].min() > 200
        assert image[:, [0, -1]].min() > 200


def test_too_few_real_drawings_are_counted(sketchrnn: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"face\.npz: 'train' holds 23 drawings, 70,000 are needed") as error:
        prepare(QuickDrawData(root=sketchrnn), tmp_path)
    assert "data.train_per_class: 23 or fewer" in str(error.value)


def test_the_drawings_study_of_bitmaps_is_read_as_it_lies_on_disk(shared_data: Path, tmp_path: Path) -> None:
    classes = ("cat", "eye", "snowflake", "flower", "banana")
    spec = QuickDrawData(
        classes=classes, layout="bitmap", ink="white_on_black", root=str(shared_data / "quickdraw"),
        train_per_class=2500, test_per_class=500,
    )  # fmt: skip
    splits = load_splits(spec, tmp_path)
    assert np.bincount(splits.train.label_B).tolist() == [2500] * 5
    for label, name in enumerate(classes):
        pixels = np.load(shared_data / "quickdraw" / f"{name}.npy").reshape(-1, 28, 28)
        assert np.array_equal(splits.train.image_BHW[splits.train.label_B == label], pixels[:2500])
        assert np.array_equal(splits.test.image_BHW[splits.test.label_B == label], pixels[-500:])


def test_both_layouts_show_alike_drawings_when_the_ink_is_the_same(shared_data: Path, tmp_path: Path) -> None:
    """Google's bitmaps fill the frame and are drawn a little otherwise; but ink is dark and paper is light in both."""
    root = shared_data / "quickdraw"
    bitmap = QuickDrawData(classes=("cat",), layout="bitmap", root=str(root), train_per_class=100, test_per_class=10)
    raster = QuickDrawData(classes=("cat",), root=str(root / "sketchrnn"), train_per_class=100, test_per_class=10)
    means = [load_splits(spec, tmp_path).train.image_BHW.mean() for spec in (bitmap, raster)]
    assert all(150 < mean < 240 for mean in means)
    assert abs(means[0] - means[1]) < 30


def test_real_digits_are_upright(shared_data: Path, tmp_path: Path) -> None:
    splits = load_splits(NamedData(source="mnist", root=str(shared_data / "mnist")), tmp_path)
    assert splits.class_names == tuple("0123456789")
    assert (len(splits.train), len(splits.test)) == (8000, 2000)
    ones = splits.train.image_BHW[splits.train.label_B == 1].mean(axis=0) > 60
    rows, columns = np.flatnonzero(ones.any(axis=1)), np.flatnonzero(ones.any(axis=0))
    assert np.ptp(rows) > 1.5 * np.ptp(columns)  # a one is taller than it is wide
    assert splits.train.image_BHW[:, 0].mean() < 1  # white on black


def test_real_photographs_have_their_colours_and_a_sky_above(shared_data: Path, tmp_path: Path) -> None:
    splits = load_splits(NamedData(source="cifar10", root=str(shared_data / "cifar10")), tmp_path)
    assert (splits.train.image_BHW.shape, splits.test.image_BHW.shape) == ((10_000, 3, 32, 32), (2500, 3, 32, 32))
    mean = {
        name: splits.train.image_BHW[splits.train.label_B == label].mean(axis=0)
        for label, name in enumerate(splits.class_names)
    }
    for name in ("airplane", "ship"):
        red, green, blue = mean[name].mean(axis=(1, 2))
        assert red < green < blue
        assert mean[name][:, :8].mean() > mean[name][:, 24:].mean() + 20
    red, _, blue = mean["frog"].mean(axis=(1, 2))
    assert red > blue + 20


def test_real_photographs_and_digits_keep_their_format_and_raise_no_alarm(shared_data: Path, tmp_path: Path) -> None:
    """CIFAR-10 in colour, pixel by pixel; MNIST white on black."""
    file = shared_data / "cifar10" / "cifar10.npz"
    photos = load_splits(ImageData(root=str(file)), tmp_path)
    with np.load(file) as arrays:
        order = np.argsort(arrays["y_test"].ravel(), kind="stable")
        assert np.array_equal(photos.test.image_BHW, np.moveaxis(arrays["x_test"][order], 3, 1))
    digits = load_splits(ImageData(root=str(shared_data / "mnist")), tmp_path)
    seen = [overview(splits) for splits in (photos, digits)]
    assert [(each.shape, each.background, each.warnings) for each in seen] == [
        ("32x32 RGB", None, ()), ("28x28 grey", "dark", ()),
    ]  # fmt: skip
