"""Data source `quickdraw`: Google's Quick, Draw! files, as vector drawings (sketch-rnn, ndjson) or 28x28 bitmaps.

Shapes: B drawings, X pixels of a bitmap (784), H W pixels.
"""

from __future__ import annotations

import difflib
import re
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from smoe_ray.data.checks import as_they_are, check_images
from smoe_ray.data.dataset import IMAGE_SIDE, Dataset
from smoe_ray.data.files import Map, Progress, cache_folder, fetch_uri, is_uri, one_line
from smoe_ray.data.ndjson import read_ndjson
from smoe_ray.data.quickdraw import WHITE, Image, another_copy, rasterise, read_drawings
from smoe_ray.data.source import Content, DataRequirement, ReadContext
from smoe_ray.errors import DataError
from smoe_ray.spec import DrawingColours, QuickDrawData

SUFFIXES = {"sketchrnn": ".npz", "bitmap": ".npy", "ndjson": ".ndjson"}


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
    read_class, held = _READERS[spec.layout]
    where = {name: str(file) for name, file in zip(spec.classes, files, strict=True)}
    train, test = {}, {}
    for name, file in zip(spec.classes, files, strict=True):
        step = partial(context.progress, f"reading {name}") if context.progress else None
        train[name], test[name] = read_class(file, spec, context.jobs, step)
    notes = [
        note
        for split, images in (("train", train), ("test", test))
        for note in check_images(
            where, split, {name: as_they_are(image) for name, image in images.items()}, spec.allow_constant
        )
    ]
    sets = [
        _dataset([image if spec.ink == held else WHITE - image for image in part.values()]) for part in (train, test)
    ]
    return Content(sets[0], sets[1], spec.classes, notes=tuple(notes))


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
    return DataRequirement(name, str(place), "absent", can_download=True)


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
    if not is_uri(place):
        near = _near_miss(Path(place).expanduser(), spec.layout)
        if near is not None:
            raise DataError(f"{place}: no such file; {near}")
    if spec.root is None or not is_uri(spec.root):
        to = f" --to {shlex.quote(spec.root)}" if spec.root else ""
        remedy += f", or run: smoe-ray data fetch {shlex.quote(name)} --layout {spec.layout}{to}"
    raise DataError(f"{place}: no such file; {remedy}")


_PREFIXES = ("full_numpy_bitmap_", "full_simplified_", "full_raw_", "full_binary_", "sketchrnn_", "quickdraw_")
"""What Google's console and other programs put before the name of a category when it is downloaded."""


def _near_miss(wanted: Path, layout: str) -> str | None:
    """What to do about a file that is nearly the one that is wanted; None where there is none."""
    if not wanted.parent.is_dir():
        return None
    other = {suffix: name for name, suffix in SUFFIXES.items() if name != layout}
    names = sorted(entry.name for entry in wanted.parent.iterdir() if entry.is_file())
    alike = [name for name in names if _category_in(name) == _category_in(wanted.name)]
    for name in alike:
        if Path(name).suffix.lower() == wanted.suffix:
            return f"there is {name}: rename it to {wanted.name}"
    for name in alike:
        if Path(name).suffix.lower() in other:
            return f"there is {name}: set data.layout: {other[Path(name).suffix.lower()]}"
    if alike:
        return f"there is {alike[0]}, which is not read: get {wanted.name}, or the same file of the other layout"
    stems = [Path(name).stem for name in names if name.endswith(wanted.suffix)]
    close = difflib.get_close_matches(wanted.stem, stems, n=1)
    return f"did you mean '{close[0]}'?" if close else None


def _category_in(file_name: str) -> str:
    """The category in the name of a downloaded file, for instance ``full_numpy_bitmap_The%20Eiffel_Tower (1).npy``."""
    name = unquote(file_name).lower()
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = re.sub(r"( \(\d+\))?(\.full)?(\.(npz|npy|ndjson|bin|json|part))+$", "", name)
    return re.sub(r"[ _+-]+", " ", name).strip()


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
    image_BHW = pixels_BX.reshape(-1, IMAGE_SIDE, IMAGE_SIDE)
    return image_BHW[:n], image_BHW[len(image_BHW) - m :]


def _map_bitmap(file: Path) -> npt.NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers as Python 2 wrote them
            array = np.lib.format.open_memmap(file, mode="r")  # never unpickles
    except Exception as error:  # damaged headers raise nearly anything
        raise DataError(f"{file}: not a readable .npy file ({one_line(error)}); {another_copy(file)}") from None
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != IMAGE_SIDE**2:
        raise DataError(
            f"{file}: holds {array.dtype} of shape {array.shape}; a bitmap file holds uint8 of shape (drawings, 784), "
            "with values from 0 to 255"
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
    return image_BHW[: len(parts[0])], image_BHW[len(parts[0]) :]


def _read_ndjson(
    file: Path, spec: QuickDrawData, jobs: int | Map, step: Callable[[int, int], None] | None
) -> tuple[Image, Image]:
    """Training and test images; the test set is the end of the file, so that `train_per_class` does not change it."""
    train, test = read_ndjson(file, spec.train_per_class, spec.test_per_class, spec.recognized_only)
    image_BHW = rasterise([*train, *test], jobs, step)
    return image_BHW[: len(train)], image_BHW[len(train) :]


_READERS: Mapping[str, tuple[Callable[..., tuple[Image, Image]], DrawingColours]] = {
    "sketchrnn": (_read_sketchrnn, "black_on_white"),
    "bitmap": (_read_bitmap, "white_on_black"),
    "ndjson": (_read_ndjson, "black_on_white"),
}
"""Layout: what reads a file, and the ink of the images that it returns."""
