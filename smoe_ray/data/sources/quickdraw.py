"""Data source `quickdraw`: Google's Quick, Draw! files, as vector drawings (sketch-rnn layout) or 28x28 bitmaps.

Shapes: B drawings, X pixels of a bitmap (784), H W pixels.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smoe_ray.data.dataset import IMAGE_SIDE, Dataset
from smoe_ray.data.files import Map, Progress, cache_folder, fetch_uri, is_uri, one_line
from smoe_ray.data.quickdraw import WHITE, Image, rasterise, read_drawings
from smoe_ray.data.source import Content, DataRequirement, ReadContext
from smoe_ray.errors import DataError
from smoe_ray.spec import QuickDrawData

SUFFIXES = {"sketchrnn": ".npz", "bitmap": ".npy"}


def requirements(spec: QuickDrawData) -> tuple[DataRequirement, ...]:
    """One file per class."""
    return tuple(_requirement(spec, name) for name in spec.classes)


def find(spec: QuickDrawData, context: ReadContext) -> tuple[Path, ...]:
    """A local file for each class of `spec`, in label order, downloaded if it is absent and the spec allows it.

    Raises:
        DataError: a file is absent, or cannot be fetched.
    """
    return tuple(_find_file(spec, name, context.progress) for name in spec.classes)


def key(_spec: QuickDrawData, files: Sequence[Path], context: ReadContext) -> list[str]:
    """The content hash of each file."""
    return [context.content_hash(file) for file in files]


def read(spec: QuickDrawData, files: Sequence[Path], context: ReadContext) -> Content:
    """All classes of `spec` (one file per class, in label order), in the ink that the spec says.

    Raises:
        DataError: a file is damaged, is not what its layout says, or holds fewer drawings than the spec requires.
    """
    read_class = _read_sketchrnn if spec.layout == "sketchrnn" else _read_bitmap
    train_images, test_images = [], []
    for name, file in zip(spec.classes, files, strict=True):
        step = partial(context.progress, f"reading {name}") if context.progress else None
        train, test = read_class(file, spec, context.jobs, step)
        train_images.append(train)
        test_images.append(test)
    return Content(_dataset(train_images), _dataset(test_images), spec.classes)


def _dataset(image_BHW_of_class: Sequence[Image]) -> Dataset:
    counts = [len(image_BHW) for image_BHW in image_BHW_of_class]
    return Dataset(np.concatenate(image_BHW_of_class), np.repeat(np.arange(len(counts), dtype=np.int64), counts))


# --- finding the files ------------------------------------------------------------------------------------------------


def download_folder() -> Path:
    """Where downloaded files are kept; also searched when `data.root` is null."""
    return cache_folder() / "quickdraw"


def _requirement(spec: QuickDrawData, name: str) -> DataRequirement:
    file_name = f"{name}{SUFFIXES[spec.layout]}"
    if spec.root is not None and is_uri(spec.root):
        return DataRequirement(name, f"{spec.root.rstrip('/')}/{file_name}", "remote")
    place = (Path(spec.root).expanduser() if spec.root else download_folder()) / file_name
    downloaded = download_folder() / file_name
    for file in (place, downloaded) if spec.download else (place,):
        if file.is_file():
            return DataRequirement(name, str(file), "present", file.stat().st_size)
    if spec.download:
        return DataRequirement(name, str(downloaded), "download")
    return DataRequirement(name, str(place), "absent")


def _find_file(spec: QuickDrawData, name: str, progress: Progress | None) -> Path:
    place = f"{(spec.root or str(download_folder())).rstrip('/')}/{name}{SUFFIXES[spec.layout]}"
    found = fetch_uri(place, progress) if is_uri(place) else Path(place).expanduser()
    if found is not None and found.is_file():
        return found
    if spec.download:
        from smoe_ray.data.download import fetch

        # Never into `root`: it belongs to the user, and may be read-only.
        return fetch([name], spec.layout, download_folder(), progress=progress)[0]
    remedy = "set data.download: true"
    if spec.root is None or not is_uri(spec.root):
        to = f" --to {shlex.quote(spec.root)}" if spec.root else ""
        remedy += f", or run: smoe-ray data fetch {shlex.quote(name)} --layout {spec.layout}{to}"
    raise DataError(f"{place}: no such file; {remedy}")


# --- reading them -----------------------------------------------------------------------------------------------------


def _read_bitmap(
    file: Path, spec: QuickDrawData, _jobs: int | Map, _step: Callable[[int, int], None] | None
) -> tuple[Image, Image]:
    """Training and test images; the test set is the end of the file, so that `train_per_class` does not change it."""
    pixels_BX = _map_bitmap(file)
    n, m = spec.train_per_class, spec.test_per_class
    if n + m > len(pixels_BX):
        raise DataError(
            f"{file}: holds {len(pixels_BX):,} drawings, {n:,} + {m:,} are needed; "
            "lower data.train_per_class or data.test_per_class"
        )
    invert = spec.ink == "black_on_white"  # Google's bitmaps are white on black

    def images(part_BX: Image) -> Image:
        return (WHITE - part_BX if invert else part_BX).reshape(-1, IMAGE_SIDE, IMAGE_SIDE)

    return images(pixels_BX[:n]), images(pixels_BX[len(pixels_BX) - m :])


def _map_bitmap(file: Path) -> npt.NDArray[np.uint8]:
    try:
        array = np.lib.format.open_memmap(file, mode="r")  # never unpickles
    except Exception as error:  # damaged headers raise nearly anything
        raise DataError(f"{file}: not a readable .npy file ({one_line(error)}); fetch it again") from None
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != IMAGE_SIDE**2:
        raise DataError(
            f"{file}: holds {array.dtype} of shape {array.shape}; a bitmap file holds uint8 of shape (drawings, 784)"
        )
    return array


def _read_sketchrnn(
    file: Path, spec: QuickDrawData, jobs: int | Map, step: Callable[[int, int], None] | None
) -> tuple[Image, Image]:
    parts = []
    for member, wanted, key in (
        ("train", spec.train_per_class, "data.train_per_class"),
        ("test", spec.test_per_class, "data.test_per_class"),
    ):
        drawings = read_drawings(file, member)
        if len(drawings) < wanted:
            raise DataError(
                f"{file}: '{member}' holds {len(drawings):,} drawings, {wanted:,} are needed; "
                f"set {key}: {len(drawings)} or fewer"
            )
        parts.append(drawings[:wanted])
    image_BHW = rasterise([*parts[0], *parts[1]], jobs, step)
    if spec.ink == "white_on_black":
        image_BHW = WHITE - image_BHW
    return image_BHW[: len(parts[0])], image_BHW[len(parts[0]) :]
