"""What `data info` says about data: facts, what is probably wrong, and the contact sheet."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_pictures import shifted

from smoe_ray.data import Dataset, Splits
from smoe_ray.data.overview import overview
from smoe_ray.figures.contact_sheet import contact_sheet

RNG = np.random.default_rng(3)
DRAWINGS = shifted(20)
PHOTOS = RNG.integers(0, 256, (20, 3, 16, 24), dtype=np.uint8)


def splits_of(train: list[np.ndarray], test: list[np.ndarray]) -> Splits:
    """Of the images of each class."""
    sets = [
        Dataset(np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts]))
        for parts in (train, test)
    ]
    return Splits(sets[0], sets[1], tuple("abcdefgh"[: len(train)]), "0" * 64)


def test_shape_counts_and_values() -> None:
    seen = overview(splits_of([PHOTOS[:6] // 2, PHOTOS[6:8]], [PHOTOS[8:9], PHOTOS[9:12]]))
    assert (seen.shape, seen.train_C, seen.test_C) == ("24x16 RGB", (6, 2), (1, 3))
    assert (seen.low, seen.high) == (0, 255)
    assert seen.mean[1] == pytest.approx(PHOTOS[8:12].mean() / 255)
    assert seen.background is None
    assert seen.warnings == ()


def test_test_images_that_are_training_images_are_counted() -> None:
    seen = overview(splits_of([PHOTOS[:6], PHOTOS[6:12]], [PHOTOS[[0, 0, 12]], PHOTOS[[7, 13, 1]]]))
    assert seen.warnings == (
        "test images that are also training images: 4 of 6 (a: 2, b: 2); 1 of them as another class",
    )


def test_inverted_drawings_are_told_between_classes_splits_and_within_a_class() -> None:
    dark, light = DRAWINGS[:10], 255 - DRAWINGS[:10]
    tests = [DRAWINGS[18:], DRAWINGS[18:]]
    assert overview(splits_of([dark, dark], [DRAWINGS[18:]] * 2)).background == "dark"
    for train, test, told in (
        ([dark, dark], tests, []),
        ([light, light], [255 - part for part in tests], []),
        ([dark, light], [tests[0], 255 - tests[1]], [
            "train: most images of b are on a light background, those of a on a dark one: is one of them inverted?",
            "test: most images of b are on a light background, those of a on a dark one: is one of them inverted?",
        ]),
        ([dark, dark], [255 - part for part in tests], [
            "training and test images are on opposite backgrounds (a, b): are some inverted?",
        ]),
        ([np.concatenate([dark, light[:2]]), dark], tests, [
            "some images of a class are on the other background than most (train a: 2 of 12): are they inverted?",
        ]),
    ):  # fmt: skip
        assert [w for w in overview(splits_of(train, test)).warnings if "also training images" not in w] == told


def test_photos_have_no_background_to_be_inverted() -> None:
    """Also where some happen to have a plain border."""
    some_plain = PHOTOS.copy()
    some_plain[:5, :, 0] = some_plain[:5, :, -1] = some_plain[:5, ..., 0] = some_plain[:5, ..., -1] = 255
    some_plain[5:9, :, 0] = some_plain[5:9, :, -1] = some_plain[5:9, ..., 0] = some_plain[5:9, ..., -1] = 0
    assert overview(splits_of([some_plain[:16]], [some_plain[16:]])).warnings == ()
    in_colour = np.stack([DRAWINGS, np.zeros_like(DRAWINGS), np.zeros_like(DRAWINGS)], axis=1)
    assert overview(splits_of([in_colour[:16]], [in_colour[16:]])).background == "dark"


# --- the sheet --------------------------------------------------------------------------------------------------------


def tiles(png: bytes, image: np.ndarray, zoom: int) -> int:
    """How often an image (H, W, 3) stands in a sheet, enlarged."""
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    wanted = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    height, width = wanted.shape[:2]
    corners = np.argwhere((sheet[: 1 - height or None, : 1 - width or None] == wanted[0, 0]).all(axis=-1))
    return sum(np.array_equal(sheet[y : y + height, x : x + width], wanted) for y, x in corners)


def test_a_sheet_shows_the_first_images_of_each_class_in_their_colours() -> None:
    splits = splits_of([PHOTOS[:12], PHOTOS[12:13]], [PHOTOS[13:18], PHOTOS[18:19]])
    png = contact_sheet(splits, "title", "subtitle")
    shown = [tiles(png, np.moveaxis(image, 0, 2), zoom=3) for image in PHOTOS]
    assert shown == [1] * 10 + [0, 0] + [1] * 5 + [0] + [1, 0]


def test_grey_sheets_long_names_and_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smoe_ray.figures.contact_sheet.MOST_CLASSES", 3)
    images, labels = DRAWINGS[:5].copy(), np.arange(5)
    images[:, 0, 0] = 77  # by which they are found
    names = tuple(f"{'class ' * 40}{number} é $x$ [b]" for number in range(5))
    splits = Splits(Dataset(images, labels), Dataset(images[::-1].copy(), labels), names, "0" * 64)
    png = contact_sheet(splits, "title", "subtitle")
    assert [tiles(png, np.stack([image] * 3, axis=-1), zoom=3) for image in images] == [1, 1, 2, 1, 1]
    assert Image.open(io.BytesIO(png)).width < 700


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """An .npz in colour, one of whose test images is a training image."""
    x = np.moveaxis(PHOTOS, 1, 3)
    y = np.repeat([0, 1], 8)
    np.savez(tmp_path / "photos.npz", x_train=x[:16], y_train=y, x_test=x[[16, 0, 17, 18]], y_test=[0, 0, 1, 1])
    return tmp_path / "photos.npz"


def test_data_info_of_a_file_and_of_data_alone(
    smoe_ray: Callable[..., tuple[int, str, str]], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "data.yaml").write_text(f"source: images\nroot: {photos}\n")
    for what in (photos, tmp_path / "data.yaml"):
        sheet = tmp_path / "sheets" / f"{what.suffix[1:]}.png"
        code, printed, _ = smoe_ray("data", "info", what, "--to", sheet)
        assert code == 0
        assert printed.startswith(f"images {photos}\nimages: 24x16 RGB, values from 0 to 255\n")
        assert "warning: test images that are also training images: 1 of 4 (0: 1)" in printed
        assert f"contact sheet: {sheet}" in printed
        assert tiles(sheet.read_bytes(), np.moveaxis(PHOTOS[0], 0, 2), zoom=3) == 2
    code, _, said = smoe_ray("data", "info", tmp_path / "data.yaml", "--set", "data.image={size: 7}")
    assert (code, said.count("\n")) == (1, 1)
    assert "data.image.size: must be at least 8, or write 'native' (value 7)" in said


def test_data_info_has_a_section_and_a_sheet_for_each_data_setting(
    smoe_ray: Callable[..., tuple[int, str, str]], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(
        "name: several\nquestion: which?\n"
        f"base: {{data: {{source: images, root: '{photos}'}}, training: {{budget: 1 epochs}}}}\n"
        "axes: {data.image.size: [16, 32], data.fraction: [0.5, 1.0], model.num_experts: [1, 2]}\n"
    )
    code, printed, _ = smoe_ray("data", "info", tmp_path / "study.yaml", "--to", tmp_path / "sheets")
    assert code == 0
    headings = [line.removeprefix(f"images {photos}, ") for line in printed.splitlines() if line.startswith("images ")]
    assert headings == ["image.size: 16", "image.size: 32"]
    assert len(re.findall(r"│ in all +│ +16 │ +4 │", printed)) == 2  # the whole source, not half of it
    assert sorted(file.name for file in (tmp_path / "sheets").iterdir()) == ["several-data-2.png", "several-data.png"]
    code, _, said = smoe_ray("data", "info", tmp_path / "study.yaml", "--to", tmp_path / "one.png")
    assert code == 1
    assert "the study has 2 data settings; give a folder" in said
