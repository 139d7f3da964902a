"""From labelled images, in arrays or in files, to the content of a source: choose, bring to one format, check.

What every reader of real images ends with: `content_of_arrays` or `content_of_pictures`.

Shapes: N images, H W pixels.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from smoe_ray.data.array_files import ArraySet
from smoe_ray.data.checks import ClassImages, check_images
from smoe_ray.data.dataset import Dataset
from smoe_ray.data.files import Progress
from smoe_ray.data.image_format import Background, Chosen, Formatted, Picture, arrays_in_format, pictures_in_format
from smoe_ray.data.source import Content
from smoe_ray.errors import DataError
from smoe_ray.spec import DataSpecBase, DrawingColours, ImageFormat

_TEST_SHARE = 6  # without a separate test set, one image in six is held out, as in MNIST

Some = TypeVar("Some", npt.NDArray[np.int64], Sequence[Picture])


class Treatment(NamedTuple):
    """What is done with images that were read, and how the source is called in messages."""

    where: str
    """File or folder."""
    image: ImageFormat = ImageFormat()
    background: Background = "white"
    """What is put behind transparent pixels."""
    ink: DrawingColours | None = None
    """What line drawings are turned into; None: they stay as they are."""
    allow_constant: bool = False
    """Whether classes of blank images or copies are accepted."""


def content_of_arrays(arrays: ArraySet, spec: DataSpecBase, treatment: Treatment) -> Content:
    """The classes and images of `arrays` that `spec` chooses, treated.

    Raises:
        DataError: a class is absent or has fewer images than required, the images have several sizes, or they cannot be
            meant as they are.
    """
    in_test = None if arrays.test is None else arrays.by_class(arrays.test)
    names, train, test = _choose(arrays.by_class(arrays.train), in_test, spec, treatment.where)
    images = (arrays.train.image, (arrays.test or arrays.train).image)
    chosen = [[Chosen(image, index_N) for index_N in parts] for image, parts in zip(images, (train, test), strict=True)]
    made = arrays_in_format(chosen, treatment.image, treatment.where, treatment.background)
    return _content(names, made, treatment, arrays.notes)


def content_of_pictures(
    train: Mapping[str, Sequence[Picture]],
    test: Mapping[str, Sequence[Picture]] | None,
    spec: DataSpecBase,
    treatment: Treatment,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
    place: Callable[[Any], int] | None = None,
) -> Content:
    """As `content_of_arrays`, of the image files of each class.

    Args:
        train: the pictures of each class.
        test: likewise; None: the last ones of each class are held out.
        spec: which of them are used.
        treatment: what is done with them.
        notes: what was found before.
        progress: called with (what, done, total).
        place: where a picture lies among all others; they are read in this order. None: class by class.

    Raises:
        DataError: also where a file is damaged or of the wrong kind.
    """
    names, *chosen = _choose(train, test, spec, treatment.where)
    step = _Steps(sum(len(part) for parts in chosen for part in parts), progress)
    if place is None:
        made = pictures_in_format(chosen, treatment.image, treatment.where, treatment.background, step)
    else:
        made = _in_order_of_place(chosen, place, treatment, step)
    return _content(names, made, treatment, notes)


def _in_order_of_place(
    splits: Sequence[Sequence[Sequence[Picture]]],
    place: Callable[[Picture], int],
    treatment: Treatment,
    step: Callable[[], None],
) -> Formatted:
    """As `pictures_in_format`, whose result is put in order of the classes after it was read in order of place."""
    pictures = [[picture for part in parts for picture in part] for parts in splits]
    orders = [np.argsort([place(picture) for picture in split], kind="stable") for split in pictures]
    in_order = [[[split[index] for index in order.tolist()]] for split, order in zip(pictures, orders, strict=True)]
    made = pictures_in_format(in_order, treatment.image, treatment.where, treatment.background, step)
    images, classes = [], []
    for parts, order, [whole] in zip(splits, orders, made.classes, strict=True):
        by_class = ClassImages(*(field[np.argsort(order)] for field in whole))
        borders = np.cumsum([0, *map(len, parts)]).tolist()
        images.append(by_class.image)
        classes.append([ClassImages(*(field[a:b] for field in by_class)) for a, b in pairwise(borders)])
    return made._replace(images=images, classes=classes)


def _content(names: Sequence[str], made: Formatted, treatment: Treatment, notes: Sequence[str]) -> Content:
    hint = "white ink on a transparent background? set data.background: black" if made.transparent else ""
    where = dict.fromkeys(names, treatment.where)
    found = [
        note
        for split, parts in zip(("train", "test"), made.classes, strict=True)
        for note in check_images(where, split, dict(zip(names, parts, strict=True)), treatment.allow_constant, hint)
    ]
    if treatment.ink is not None:
        _in_ink(treatment.where, names, made, treatment.ink)
    train, test = map(_dataset, made.images, made.classes)
    return Content(train, test, tuple(names), notes=(*notes, *made.notes, *found))


def _dataset(images: npt.NDArray[np.uint8], parts: Sequence[ClassImages]) -> Dataset:
    counts = [len(part.image) for part in parts]
    return Dataset(images, np.repeat(np.arange(len(parts), dtype=np.int64), counts))


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
    train: Mapping[str, Some], test: Mapping[str, Some] | None, spec: DataSpecBase, where: str
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
            raise DataError(f"{where}: no class '{name}'; {hint}")
        for_training: Any = train.get(name, ())
        if test is None:
            kept_back = spec.test_per_class or max(1, math.floor(len(for_training) / _TEST_SHARE + 0.5))
            border = max(0, len(for_training) - kept_back)
            for_training, for_test = for_training[:border], for_training[border:]
        else:
            for_test = test.get(name, ())
        train_parts.append(_first(for_training, spec.train_per_class, "train", name, where))
        test_parts.append(_first(for_test, spec.test_per_class, "test", name, where))
    return names, train_parts, test_parts


def _first(images: Any, wanted: int | None, split: str, name: str, where: str) -> Any:
    if len(images) < (wanted or 1):
        raise DataError(
            f"{where}: class '{name}' has {len(images):,} {split} images, {wanted or 1:,} are needed; "
            f"lower data.{split}_per_class or leave the class out of data.classes"
        )
    return images[:wanted]


# --- ink --------------------------------------------------------------------------------------------------------------

_DARK, _LIGHT = 64, 191
"""Line drawings are mostly background: one whose median pixel lies between is no line drawing."""


def _in_ink(where: str, names: Sequence[str], made: Formatted, ink: DrawingColours) -> None:
    """Invert the images of each split where the files hold the other ink."""
    if made.images[0].ndim == 4:
        raise DataError(
            f"{where}: data.ink is for grey line drawings, and these images are in colour; leave it out, or make them "
            "grey: data.image: {channels: grey}"
        )
    backgrounds = {name: float(np.median(part.image)) for name, part in zip(names, made.classes[0], strict=True)}
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
    if ink != held:
        for image_NHW in made.images:
            np.subtract(255, image_NHW, out=image_NHW)
