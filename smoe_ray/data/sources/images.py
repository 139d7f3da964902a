"""Data source `images`: MNIST-format IDX files, an ``.npz`` with x and y, or folders of image files.

Shapes: N images of a file or class, H W pixels.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from smoe_ray.data.advice import about_file, about_folder
from smoe_ray.data.array_files import FourFiles, OneNpz, find_four_files
from smoe_ray.data.checks import check_images
from smoe_ray.data.dataset import Dataset
from smoe_ray.data.files import Progress, fetch_uri, is_uri
from smoe_ray.data.grey import GreyConverter
from smoe_ray.data.image_folder import ClassFolders, NoImagesError, find_class_folders
from smoe_ray.data.source import Content, DataRequirement, ReadContext
from smoe_ray.errors import DataError
from smoe_ray.spec import DrawingColours, ImageData

_TEST_SHARE = 6  # without a separate test set, one image in six is held out, as in MNIST

Images = npt.NDArray[np.uint8]
Some = TypeVar("Some", Images, tuple[Path, ...])
Found = FourFiles | OneNpz | ClassFolders


def requirements(spec: ImageData) -> tuple[DataRequirement, ...]:
    """The file or folder that `spec.root` names."""
    if is_uri(spec.root):
        return (DataRequirement("images", spec.root, "remote"),)
    root = Path(spec.root).expanduser()
    if root.is_file():
        return (DataRequirement("images", str(root), "present", root.stat().st_size),)
    return (DataRequirement("images", str(root), "present" if root.is_dir() else "absent"),)


def find(spec: ImageData, context: ReadContext) -> Found:
    """The files at `spec.root`, fetched if it is a URI.

    Raises:
        DataError: there are none of a layout that can be read, or they cannot be fetched.
    """
    root = fetch_uri(spec.root, context.progress) if is_uri(spec.root) else Path(spec.root).expanduser()
    if root is None or not root.exists():
        raise DataError(f"{spec.root}: no such file or folder; set data.root")
    if root.is_file():
        if spec.layout not in ("auto", "npz"):
            raise DataError(f"{root}: data.layout '{spec.layout}' needs a folder")
        reason = about_file(root)
        if reason is not None:
            raise DataError(reason)
        return OneNpz(root)
    if spec.layout != "folder":
        four = find_four_files(root)
        if four is not None:
            return four
    if spec.layout == "npz":
        raise DataError(f"{root}: data.layout 'npz' needs an .npz file")
    if spec.layout == "idx":
        raise DataError(about_folder(root))
    try:
        return find_class_folders(root)
    except NoImagesError as error:
        raise DataError(about_folder(error.folder)) from None


def key(_spec: ImageData, found: Found, context: ReadContext) -> list[str]:
    """Path below the root (or role) and content hash of each file."""
    named = found.files()
    files = [file for _, file in named]
    if isinstance(found, ClassFolders):
        digests = context.content_hashes(files)
    else:
        digests = [context.content_hash(file) for file in files]
    return [f"{name} {digest}" for (name, _), digest in zip(named, digests, strict=True)]


def read(spec: ImageData, found: Found, context: ReadContext) -> Content:
    """All images of `spec` as 28x28 grey.

    Other sizes are resampled (LANCZOS), and `spec.background` is put behind what is transparent.

    Raises:
        DataError: a file is damaged or of the wrong kind, a class is absent or has fewer images than required, or
            images cannot be meant as they are.
    """
    converter = GreyConverter(spec.background)
    if isinstance(found, ClassFolders):
        names, train_files, test_files = _choose(found.train, found.test, spec)
        step = _Steps(sum(map(len, (*train_files, *test_files))), context.progress)
        train = [converter.files(files, step) for files in train_files]
        test = [converter.files(files, step) for files in test_files]
        notes = found.notes
    else:
        arrays = found.read()
        in_test = None if arrays.test is None else arrays.test.by_class()
        names, train_arrays, test_arrays = _choose(arrays.train.by_class(), in_test, spec)
        transposed = spec.transpose or found.is_transposed
        train, test = (
            [converter.array(_transpose(part) if transposed else part) for part in parts]
            for parts in (train_arrays, test_arrays)
        )
        notes = arrays.notes
    found_notes = []
    for split, parts in (("train", train), ("test", test)):
        hint = "white ink on a transparent background? set data.background: black" if converter.transparent else ""
        classes = dict(zip(names, parts, strict=True))
        found_notes += check_images(dict.fromkeys(names, spec.root), split, classes, spec.allow_constant, hint)
    images = [[part.image_NHW for part in parts] for parts in (train, test)]
    if spec.ink is not None:
        images = _in_ink(spec.root, names, images, spec.ink)
    return Content(
        _dataset(images[0]), _dataset(images[1]), tuple(names), notes=(*notes, *converter.notes(), *found_notes)
    )


def _dataset(parts: Sequence[Images]) -> Dataset:
    return Dataset(
        np.concatenate(parts), np.repeat(np.arange(len(parts), dtype=np.int64), [len(part) for part in parts])
    )


def _transpose(image: Images) -> Images:
    return np.ascontiguousarray(image.swapaxes(1, 2))


class _Steps:
    """Reports every 500th image."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress

    def __call__(self) -> None:
        self._done += 1
        if self._progress and (self._done % 500 == 0 or self._done == self._total):
            self._progress("reading images", self._done, self._total)


def _choose(
    train: Mapping[str, Some], test: Mapping[str, Some] | None, spec: ImageData
) -> tuple[tuple[str, ...], list[Some], list[Some]]:
    """Class names, and the images of each class for training and testing: the first n that the spec requires.

    Without a separate test set, the last images of each class are the test set.
    """
    known = list(dict.fromkeys([*train, *(test or ())]))
    names = spec.classes or tuple(known)
    train_parts, test_parts = [], []
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"there are: {', '.join(known[:20])}"
            raise DataError(f"{spec.root}: no class '{name}'; {hint}")
        for_training: Any = train.get(name, ())
        if test is None:
            kept_back = spec.test_per_class or max(1, math.floor(len(for_training) / _TEST_SHARE + 0.5))
            border = max(0, len(for_training) - kept_back)
            for_training, for_test = for_training[:border], for_training[border:]
        else:
            for_test = test.get(name, ())
        train_parts.append(_first(for_training, spec.train_per_class, "train", name, spec))
        test_parts.append(_first(for_test, spec.test_per_class, "test", name, spec))
    return names, train_parts, test_parts


def _first(images: Any, wanted: int | None, split: str, name: str, spec: ImageData) -> Any:
    if len(images) < (wanted or 1):
        raise DataError(
            f"{spec.root}: class '{name}' has {len(images):,} {split} images, {wanted or 1:,} are needed; "
            f"lower data.{split}_per_class or leave the class out of data.classes"
        )
    return images[:wanted]


# --- ink --------------------------------------------------------------------------------------------------------------

_DARK, _LIGHT = 64, 191
"""Line drawings are mostly background: one whose median pixel lies between is no line drawing."""


def _in_ink(
    where: str, names: Sequence[str], images: Sequence[Sequence[Images]], ink: DrawingColours
) -> list[list[Images]]:
    """Images of each split and class, inverted where the files hold the other ink."""
    backgrounds = {name: float(np.median(image_NHW)) for name, image_NHW in zip(names, images[0], strict=True)}
    for name, background in backgrounds.items():
        if _DARK < background < _LIGHT:
            raise DataError(
                f"{where}: data.ink is for line drawings; those of class '{name}' are neither dark on light nor light "
                f"on dark (median pixel {background:.0f}); leave data.ink out"
            )
    light = {name for name, background in backgrounds.items() if background >= _LIGHT}
    if 0 < len(light) < len(names):
        dark = next(name for name in names if name not in light)
        raise DataError(
            f"{where}: class '{next(iter(light))}' is dark on light, '{dark}' light on dark; invert one of them, or "
            "leave data.ink out"
        )
    held: DrawingColours = "black_on_white" if light else "white_on_black"
    return [[part if ink == held else 255 - part for part in parts] for parts in images]
