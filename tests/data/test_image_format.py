"""One format for all images of a source: size and colours as they are or as `data.image` says, pixel by pixel."""

from __future__ import annotations

import os
import struct
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_images import load, refused

from smoe_ray.data.image_format import Chosen, EncodedImage, arrays_in_format, pictures_in_format
from smoe_ray.errors import DataError
from smoe_ray.spec import ImageFormat

RNG = np.random.default_rng(11)
COLOUR = RNG.integers(0, 256, (12, 20, 24, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (12, 20, 24), dtype=np.uint8)


def save(root: Path, arrays: Any, name: str = "a", suffix: str = ".png", **options: Any) -> Path:
    (root / name).mkdir(parents=True, exist_ok=True)
    for number, array in enumerate(arrays):
        image = array if isinstance(array, Image.Image) else Image.fromarray(array)
        image.save(root / name / f"{number:02}{suffix}", **options)
    return root


def all_images(root: Path, cache: Path, **fields: object) -> np.ndarray:
    """Training images, then test images, which are the last of a class."""
    splits = load(root, cache, **fields)
    return np.concatenate([splits.train.image_BHW, splits.test.image_BHW])


# --- what is, stays ---------------------------------------------------------------------------------------------------


def test_28x28_grey_images_have_the_fingerprints_that_they_always_had(tmp_path: Path) -> None:
    """Of the version before there were formats: they are part of every trial's identity."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "plain.npz", x=x, y=y)
    np.savez(tmp_path / "channel.npz", x=x[..., None], y=y)
    for kind, shown in (("L", lambda a: a), ("P", lambda a: Image.fromarray(a).convert("P")),
                        ("LA", lambda a: Image.fromarray(np.stack([x[0], a], -1), "LA"))):  # fmt: skip
        for label in range(4):
            save(tmp_path / kind, [shown(a) for a in x[y == label]], f"c{label}")
    array = "56e2ed71b000f52e3d9ee8567badd7087fa23c49cb3021316bd622c85380df66"
    files = "0bdd1384f3197bf8064c17e2054e5d8f12717790b759a8ea261ee74ed4fa10d8"
    for root, fields, expected in (
        ("plain.npz", {}, array), ("channel.npz", {}, array), ("L", {}, files), ("P", {}, files),
        ("plain.npz", {"transpose": True}, "735aa8308cbb4cbbf75bae01f071d54e749f569866363b6a9e1840a05b5852bf"),
        ("LA", {}, "ee30fb868c3e9633bb95a81b6d8fd071c1f50de956c899f5f7c7319cf0306783"),
        ("LA", {"background": "black"}, "d0bef037f8a94b262da9dc94755ffda57eb853113b62c1cc5e4a07060fbf349b"),
    ):  # fmt: skip
        assert load(tmp_path / root, tmp_path / "cache", **fields).fingerprint == expected


@given(
    grey=st.lists(st.booleans(), min_size=6, max_size=6),
    channels=st.sampled_from(["keep", "grey", "rgb"]),
    depth=st.sampled_from([3, 4]),
    background=st.sampled_from(["white", "black"]),
    files=st.booleans(),
)
@settings(deadline=None, max_examples=80, derandomize=True)
def test_images_are_grey_if_all_are_and_else_all_are_rgb(
    grey: list[bool], channels: Any, depth: int, background: Any, files: bool
) -> None:
    """Whichever of the six, in two splits of two classes, is in colour; the same from arrays and from files."""
    images = np.where(np.array(grey)[:, None, None, None], COLOUR[:6, ..., :1], COLOUR[:6])
    if depth == 4:
        alpha = np.where(GREY[:6] > 100, 255, 0)[..., None].astype(np.uint8)
        seen = np.where(alpha == 255, images, 255 if background == "white" else 0)
        images = np.concatenate([images, alpha], axis=-1)
    else:
        seen = images
    parts = [[[0], [1, 2]], [[3, 4], [5]]]
    if files:
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), images)
            encoded = [Path(folder) / "a" / f"{number:02}.png" for number in range(6)]
            pictures = [[[encoded[n] for n in part] for part in split] for split in parts]
            made = pictures_in_format(pictures, ImageFormat(channels=channels), "here", background)
    else:
        chosen = [[Chosen(images, np.array(part)) for part in split] for split in parts]
        made = arrays_in_format(chosen, ImageFormat(channels=channels), "here", background)
    if channels == "grey" or (channels == "keep" and all(grey)):
        expected = np.stack([np.asarray(Image.fromarray(image.astype(np.uint8)).convert("L")) for image in seen])
    else:
        expected = np.moveaxis(seen, 3, 1)
    assert np.array_equal(np.concatenate(made.images), expected)
    assert [[len(part.image) for part in split] for split in made.classes] == [[1, 2], [2, 1]]
    assert all(np.array_equal(np.concatenate([part.image for part in split]), whole)
               for split, whole in zip(made.classes, made.images, strict=True))  # fmt: skip
    assert made.transparent == (6 if depth == 4 else 0)


def test_grey_drawings_saved_in_colour_are_grey(tmp_path: Path) -> None:
    save(tmp_path / "jpg", np.repeat(GREY[..., None], 3, axis=-1), suffix=".jpg", quality=90)
    save(tmp_path / "grey", GREY, suffix=".jpg", quality=90)
    found = all_images(tmp_path / "jpg", tmp_path / "cache")
    assert np.abs(found.astype(int) - all_images(tmp_path / "grey", tmp_path / "cache")).max() <= 1
    save(tmp_path / "jpg", COLOUR[:1], "b", ".jpg")
    save(tmp_path / "jpg", COLOUR[:2], "b", ".jpg")
    assert load(tmp_path / "jpg", tmp_path / "cache").train.image_shape == (3, 20, 24)
    assert load(tmp_path / "jpg", tmp_path / "cache", classes=["a"]).train.image_shape == (1, 20, 24)


def test_transposed_arrays_in_colour(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=COLOUR, y=np.zeros(12, int))
    found = all_images(tmp_path / "set.npz", tmp_path / "cache", transpose=True)
    assert np.array_equal(found, COLOUR.transpose(0, 3, 2, 1))


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resample", ["lanczos", "bicubic", "bilinear", "box", "nearest"])
def test_images_are_resized_as_pillow_does(tmp_path: Path, resample: str) -> None:
    wanted = Image.Resampling[resample.upper()]
    np.savez(tmp_path / "set.npz", x=COLOUR, y=np.zeros(12, int))
    save(tmp_path / "set", [*GREY[:3], *GREY[3:, 4:]])
    for root, images in ((tmp_path / "set.npz", COLOUR), (tmp_path / "set", [*GREY[:3], *GREY[3:, 4:]])):
        found = all_images(root, tmp_path / "cache", image={"size": 9, "resample": resample})
        expected = np.stack([np.asarray(Image.fromarray(image).resize((9, 9), wanted)) for image in images])
        assert np.array_equal(found, expected if expected.ndim == 3 else np.moveaxis(expected, 3, 1))


def test_images_of_several_sizes_are_asked_about(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    save(tmp_path / "set", [*GREY[:4], GREY[4, :9], *(np.zeros((30, n), np.uint8) for n in range(31, 35))])
    save(tmp_path / "set", GREY[5:8].swapaxes(1, 2), "b", exif=turned)  # upright, they are as those of a
    refused(
        tmp_path / "set", tmp_path / "cache",
        "set: images of 6 sizes (width x height): 24x20 (7 images), 24x9 (1 image), 31x30 (1 image), 32x30 (1 image) "
        "and 2 more; choose one size for all: data.image: {size: 28}",
    )  # fmt: skip
    refused(tmp_path / "set", tmp_path / "cache", "24x20 (4 images)", classes=["a"])
    assert load(tmp_path / "set", tmp_path / "cache", classes=["b"]).train.image_shape == (1, 20, 24)
    halves = {"x_train": GREY, "x_test": GREY[:6, 2:], "y_train": np.zeros(12, int), "y_test": np.zeros(6, int)}
    np.savez(tmp_path / "set.npz", **halves)
    refused(tmp_path / "set.npz", tmp_path / "none", "24x20 (12 images), 24x18 (6 images)", "data.image: {size: 28}")


@pytest.mark.parametrize(("height", "width", "advice"), [(7, 7, 8), (20, 129, 48), (180, 240, 128), (5, 9, 8)])
def test_sides_that_no_model_takes_are_refused_with_one_that_it_does(
    tmp_path: Path, height: int, width: int, advice: int
) -> None:
    images = RNG.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=images, y=np.zeros(3, int))
    save(tmp_path / "set", images)
    for root in (tmp_path / "set.npz", tmp_path / "set"):
        refused(root, tmp_path / "none", f"{width}x{height} (3 images); sides of 8 to 128", f"{{size: {advice}}}")
        assert load(root, tmp_path / "cache", image={"size": advice}).train.image_shape == (3, advice, advice)


# --- files as people have them ----------------------------------------------------------------------------------------


def png_of_16_bits(image: np.ndarray) -> bytes:
    """(H, W, 3) or (H, W) of uint16 as PNG (Portable Network Graphics 1.2, chapters 3 and 4)."""
    height, width = image.shape[:2]

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 2 if image.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def palette_image(image: np.ndarray, transparent: int | None = None) -> tuple[Image.Image, np.ndarray]:
    """An image of mode P in 16 colours, and the colours of its pixels."""
    index = image[..., 0] // 16
    made = Image.fromarray(index, "P")
    colours = RNG.integers(0, 256, (16, 3), dtype=np.uint8)
    made.putpalette(colours.tobytes())
    if transparent is not None:
        made.info["transparency"] = transparent
        colours[transparent] = 255
    return made, colours[index]


def _rgba(alpha: int) -> tuple[Image.Image, np.ndarray]:
    made = Image.fromarray(np.concatenate([COLOUR[0], np.full((20, 24, 1), alpha, np.uint8)], axis=-1))
    return made, np.round(COLOUR[0] * (alpha / 255) + 255 * (1 - alpha / 255))


def _as(mode: str, image: np.ndarray) -> tuple[Image.Image, np.ndarray]:
    return Image.fromarray(image).convert(mode), image


BLACK_OR_WHITE = np.where(GREY[0] > 127, 255, 0).astype(np.uint8)
CMYK = np.zeros((20, 24, 4), np.uint8)
CMYK[:10, :, 0], CMYK[10:, :12, 3], CMYK[10:, 12:, 2] = 255, 255, 255  # cyan; black; yellow
CMYK_SEEN = np.full((20, 24, 3), 255, np.uint8)
CMYK_SEEN[:10, :, 0] = CMYK_SEEN[10:, :12] = CMYK_SEEN[10:, 12:, 2] = 0

KINDS: dict[str, tuple[str, Callable[[], tuple[Image.Image, np.ndarray]], float]] = {
    # suffix, image and what is to be seen, greatest difference
    "rgb": (".png", lambda: _as("RGB", COLOUR[0]), 0),
    "bmp": (".bmp", lambda: _as("RGB", COLOUR[0]), 0),
    "ppm": (".ppm", lambda: _as("RGB", COLOUR[0]), 0),
    "tiff": (".tif", lambda: _as("RGB", COLOUR[0]), 0),
    "webp": (".webp", lambda: _as("RGB", COLOUR[0]), 0),
    "palette": (".png", lambda: palette_image(COLOUR[0]), 0),
    "gif": (".gif", lambda: palette_image(COLOUR[0]), 0),
    "palette with a transparent colour": (".png", lambda: palette_image(COLOUR[0], 3), 0),
    "gif with a transparent colour": (".gif", lambda: palette_image(COLOUR[0], 3), 0),
    "clear": (".png", lambda: _rgba(0), 0),
    "half clear": (".png", lambda: _rgba(120), 1),
    "alpha in tiff": (".tif", lambda: _rgba(77), 1),
    "cmyk": (".tif", lambda: (Image.fromarray(CMYK, "CMYK"), CMYK_SEEN), 0),
    "cmyk jpeg": (".jpg", lambda: (Image.fromarray(CMYK, "CMYK"), CMYK_SEEN), 120),  # at edges: it is a JPEG
    "grey": (".png", lambda: _as("L", GREY[0]), 0),
    "one bit": (".png", lambda: (Image.fromarray(BLACK_OR_WHITE).convert("1"), BLACK_OR_WHITE), 0),
    "one bit tiff": (".tif", lambda: (Image.fromarray(BLACK_OR_WHITE).convert("1"), BLACK_OR_WHITE), 0),
    "grey and alpha": (
        ".png",
        lambda: (Image.fromarray(np.stack([GREY[0], BLACK_OR_WHITE], -1), "LA"),
                 np.where(BLACK_OR_WHITE == 255, GREY[0], 255)), 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_file_is_read_as_it_is_seen(tmp_path: Path, kind: str) -> None:
    suffix, make, tolerance = KINDS[kind]
    image, seen = make()
    lossless = (
        {"lossless": True} if suffix == ".webp" else {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    )
    save(tmp_path / "set", [image] * 3, suffix=suffix, **lossless)
    seen = np.moveaxis(seen, 2, 0) if seen.ndim == 3 else seen
    is_blank = kind == "clear"
    found = all_images(tmp_path / "set", tmp_path / "cache", allow_constant=is_blank)
    if is_blank:
        assert np.array_equal(found[0], seen[0])  # all white: grey
        return
    assert found.shape == (3, *seen.shape)
    difference = np.abs(found[0].astype(float) - seen)
    assert difference.max() <= tolerance
    assert np.median(difference) <= min(tolerance, 1)
    colour = all_images(tmp_path / "set", tmp_path / "cache", image={"channels": "rgb"})
    assert np.array_equal(colour[0], found[0] if seen.ndim == 3 else np.stack([found[0]] * 3))


def test_white_ink_in_colour_on_transparent_is_seen_on_black(tmp_path: Path) -> None:
    alpha = np.where(GREY > 200, 255, 0)[..., None].astype(np.uint8)
    save(tmp_path / "set", np.concatenate([np.full_like(COLOUR, 255), alpha], axis=-1))
    refused(tmp_path / "set", tmp_path / "cache", "every train image is blank", "data.background: black")
    red = np.concatenate([np.broadcast_to(np.array([255, 0, 0], np.uint8), COLOUR.shape), alpha], axis=-1)
    save(tmp_path / "red", red)
    found = all_images(tmp_path / "red", tmp_path / "cache", background="black")
    assert np.array_equal(found[:, 0], alpha[..., 0])
    assert not found[:, 1:].any()


@pytest.mark.parametrize(
    ("array", "suffix"),
    [
        (GREY[0].astype(np.uint16) * 257, ".png"), (GREY[0].astype(np.uint16), ".tif"), (GREY[0].astype(">u2"), ".tif"),
        (GREY[0].astype(np.int32), ".tif"), (GREY[0] / np.float32(255), ".tif"), (GREY[0].astype(np.int32), ".pgm"),
    ],
)  # fmt: skip
def test_grey_of_more_than_8_bits_is_refused(tmp_path: Path, array: np.ndarray, suffix: str) -> None:
    save(tmp_path / "set", [array] * 3, suffix=suffix)
    refused(tmp_path / "set", tmp_path / "cache", f"00{suffix}: not a readable image", "only 8-bit images")


def test_colours_of_16_bits_keep_the_upper_8(tmp_path: Path) -> None:
    fine = RNG.integers(0, 2**16, (3, 20, 24, 3), dtype=np.uint16)
    (tmp_path / "set" / "a").mkdir(parents=True)
    for number, image in enumerate(fine):
        (tmp_path / "set" / "a" / f"{number}.png").write_bytes(png_of_16_bits(image))
    assert np.array_equal(all_images(tmp_path / "set", tmp_path / "cache"), np.moveaxis(fine >> 8, 3, 1))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_colour_images_are_upright_as_their_exif_data_say(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]  # quarter turns to the left by which the stored image differs
    save(tmp_path / "set", [np.ascontiguousarray(np.rot90(image, turns)) for image in COLOUR], exif=exif)
    assert np.array_equal(all_images(tmp_path / "set", tmp_path / "cache"), np.moveaxis(COLOUR, 3, 1))


def test_what_is_no_raster_image_reaches_no_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for PostScript, whatever its file is called."""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    save(tmp_path / "set", GREY[:3])
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 20\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "set" / "a" / "01.png").write_bytes(script)
    refused(tmp_path / "set", tmp_path / "cache", "01.png: not a readable image", "mend or remove it")


def test_pipes_and_broken_links_among_images_are_named(tmp_path: Path) -> None:
    save(tmp_path / "set", GREY[:3])
    os.mkfifo(tmp_path / "set" / "a" / "notes")  # not read at all
    assert len(load(tmp_path / "set", tmp_path / "cache").train) == 2
    os.mkfifo(tmp_path / "set" / "a" / "03.png")
    refused(tmp_path / "set", tmp_path / "none", "03.png: no regular file, but a pipe")
    refused(tmp_path / "set" / "a" / "03.png", tmp_path / "none", "03.png: neither a file nor a folder")


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb", b"\xff"])
def test_folders_whose_names_cannot_be_shown_are_refused(tmp_path: Path, name: bytes) -> None:
    save(tmp_path / "set", GREY[:3])
    (tmp_path / "set" / "a").rename(os.fsdecode(os.fsencode(tmp_path / "set") + b"/" + name))
    refused(tmp_path / "set", tmp_path / "cache", repr(name), "UTF-8", "rename it")


def test_a_file_whose_name_is_not_utf_8_is_an_image(tmp_path: Path) -> None:
    save(tmp_path / "set", GREY[:3])
    (tmp_path / "set" / "a" / "00.png").rename(os.fsdecode(os.fsencode(tmp_path / "set" / "a") + b"/0\xe9.png"))
    assert len(all_images(tmp_path / "set", tmp_path / "cache")) == 3


def test_images_in_memory_are_named_in_messages(tmp_path: Path) -> None:
    save(tmp_path, GREY[:1])
    whole = EncodedImage("table.parquet, row 1", (tmp_path / "a" / "00.png").read_bytes())
    made = pictures_in_format([[[whole]]], ImageFormat(), "table.parquet")
    assert np.array_equal(made.images[0], GREY[:1])
    with pytest.raises(DataError, match=r"^table\.parquet, row 1: not a readable image"):
        pictures_in_format([[[whole._replace(content=whole.content[:60])]]], ImageFormat(), "table.parquet")


# --- checks in colour -------------------------------------------------------------------------------------------------


def test_blank_copied_and_faint_images_in_colour(tmp_path: Path) -> None:
    plain = np.zeros((12, 20, 24, 3), np.uint8)
    plain[..., 0] = 255  # red all over: no channel varies, though the channels differ
    np.savez(tmp_path / "plain.npz", x=plain, y=np.zeros(12, int))
    refused(tmp_path / "plain.npz", tmp_path / "cache", "every train image is blank (all pixels 255, 0, 0)")
    np.savez(tmp_path / "same.npz", x=np.repeat(COLOUR[:1], 24, axis=0), y=np.zeros(24, int))
    refused(tmp_path / "same.npz", tmp_path / "cache", "20 of 20 train images of class '0' are the same")
    np.savez(tmp_path / "faint.npz", x=COLOUR // 100, y=np.zeros(12, int))
    refused(tmp_path / "faint.npz", tmp_path / "cache", "the brightest pixel is 2 of 255")
    mixed = COLOUR.copy()
    mixed[0], mixed[2] = plain[0], COLOUR[1]
    np.savez(tmp_path / "mixed.npz", x=mixed, y=np.zeros(12, int))
    notes = load(tmp_path / "mixed.npz", tmp_path / "cache").notes
    assert notes == ("train: blank images: 1 (0: 1)", "train: copies of another image of their class: 1 (0: 1)")


def test_ink_is_for_grey_images(tmp_path: Path) -> None:
    drawings = np.where(GREY > 200, 255, 0).astype(np.uint8)
    in_red = np.stack([drawings, *[np.zeros_like(drawings)] * 2], axis=-1)
    np.savez(tmp_path / "red.npz", x=in_red, y=np.zeros(12, int))
    refused(tmp_path / "red.npz", tmp_path / "cache", "in colour", "data.image: {channels: grey}", ink="black_on_white")
    found = all_images(tmp_path / "red.npz", tmp_path / "cache", ink="black_on_white", image={"channels": "grey"})
    assert np.array_equal(found, np.where(drawings > 0, 255 - 76, 255))


# --- memory -----------------------------------------------------------------------------------------------------------


def test_images_are_held_once_beside_what_was_read() -> None:
    images = np.zeros((4000, 32, 32, 3), np.uint8)
    images[1:, ..., 0] = 9  # the first one is grey
    index = np.arange(4000)
    tracemalloc.start()
    try:
        made = arrays_in_format([[Chosen(images, index[:3500])], [Chosen(images, index[3500:])]], ImageFormat(), "x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(part.nbytes for part in made.images) == images.nbytes
    assert peak < 1.5 * images.nbytes
