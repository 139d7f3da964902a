"""Whether images can be meant as they are: pixel values that span 0..255, images that are not blank or all the same.

Shapes: N images of one class and split, H W pixels, C channels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from smoe_ray.errors import DataError

Images = npt.NDArray[np.uint8]

MIN_PIXEL_RANGE = 32
"""A class whose images differ by at most this from darkest to brightest pixel is refused: masks of 0 and 1 and digits
of 0..16 would be nearly black at 1/255 per step."""
LOW_PIXEL_RANGE = 127
"""Up to this range the user is told."""
MAX_BLANK_SHARE = 0.5
"""A class with a larger share of blank images is refused."""
MAX_EQUAL_SHARE = 0.9
"""A class is refused of whose images a larger share is one and the same."""
FEWEST_TO_COMPARE = 10
"""In smaller classes images may be equal by chance."""
NOTED_SHARE = 0.01
"""From this share of copies on the user is told."""
_BLANK_RANGE = 2  # JPEG leaves such noise in a plain area

DARK, LIGHT = 64, 191
"""Line drawings are mostly background: one whose median pixel lies between is no line drawing."""


class ClassImages(NamedTuple):
    """The images of one class and split, as the model will see them, and the range of each before resampling."""

    image: Images
    """(N, H, W) or (N, C, H, W)."""
    low_NC: Images
    high_NC: Images

    def contrast(self) -> npt.NDArray[np.int64]:
        """Range (N) of each image before resampling, in the channel where it is largest."""
        range_NC = self.high_NC.astype(np.int64) - self.low_NC
        return cast(npt.NDArray[np.int64], range_NC.max(axis=1, initial=0))


def as_they_are(image: Images) -> ClassImages:
    """Images (N, H, W) or (N, C, H, W) that were not resampled."""
    flat_NCX = image.reshape(len(image), 1 if image.ndim == 3 else image.shape[1], -1)
    return ClassImages(image, flat_NCX.min(axis=2, initial=255), flat_NCX.max(axis=2, initial=0))


def check_images(
    where: Mapping[str, str],
    split: str,
    classes: Mapping[str, ClassImages],
    allow_constant: bool,
    blank_hint: str = "",
) -> list[str]:
    """Refuse images that cannot be meant as they are, and say what is unusual.

    Args:
        where: file or folder of each class, for messages.
        split: ``train`` or ``test``.
        classes: images by class name.
        allow_constant: accept classes of blank images and copies.
        blank_hint: likely cause of blank images, for the message.

    Returns:
        one line per kind of finding.

    Raises:
        DataError: pixel values span too little of 0..255, or most images of a class are blank or copies.
    """
    low_range = [note for name, images in classes.items() for note in _range_note(where[name], split, name, images)]
    blank = {name: _count_blank(images) for name, images in classes.items()}
    equal = {name: Counter(map(image_digest, images.image)) for name, images in classes.items()}
    if not allow_constant:
        _refuse_blank(where, split, classes, blank, blank_hint)
        _refuse_equal(where, split, equal)
    copies = {name: counts.total() - len(counts) for name, counts in equal.items()}
    common = {name: count for name, count in copies.items() if count >= NOTED_SHARE * equal[name].total()}
    return [
        *low_range[:1],
        *_counted(f"{split}: blank images", blank),
        *_counted(f"{split}: copies of another image of their class", common),
    ]


def image_digest(image: Images) -> bytes:
    """Equal for equal images, and short: a class may have gigabytes."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _range_note(where: str, split: str, name: str, images: ClassImages) -> list[str]:
    varied = images.contrast() > 0
    if not varied.any():
        return []
    low, high = int(images.low_NC[varied].min()), int(images.high_NC[varied].max())
    found = f"pixel values of the {split} images of class '{name}' run from {low} to {high}, not from 0 to 255"
    if high - low <= MIN_PIXEL_RANGE:
        if low == 0:
            kind = "0/1 masks" if high == 1 else f"values of 0 to {high}"
            found += f": the brightest pixel is {high} of 255"
            raise DataError(f"{where}: {found}; {kind}? multiply by {255 // high} and save again")
        raise DataError(f"{where}: {found}, so they would be nearly uniform grey; rescale them to 0..255")
    return [f"{found}: are they meant to be that faint?"] if high - low <= LOW_PIXEL_RANGE else []


def _count_blank(images: ClassImages) -> int:
    return int(np.sum(as_they_are(images.image).contrast() <= _BLANK_RANGE))


def _refuse_blank(
    where: Mapping[str, str], split: str, classes: Mapping[str, ClassImages], blank: Mapping[str, int], hint: str
) -> None:
    refused = [name for name, count in blank.items() if count > MAX_BLANK_SHARE * len(classes[name].image)]
    if not refused:
        return
    name = refused[0]
    image = classes[name].image
    if np.mean(classes[name].contrast() > _BLANK_RANGE) > MAX_BLANK_SHARE:
        hint = "their lines are too thin to be seen at this size; draw them thicker or crop them"
    value = _median_pixel(image)
    if all(blank[each] == len(classes[each].image) for each in classes):
        found = f"every {split} image is blank (all pixels {value})"
    else:
        found = f"{blank[name]:,} of {len(image):,} {split} images of class '{name}' are blank (all pixels {value})"
    raise DataError(
        f"{where[name]}: {found}; {hint or 'check the files'}, or set data.allow_constant: true if they are meant to be"
    )


def _median_pixel(image: Images) -> str:
    """Of each channel."""
    if image.ndim == 3:
        return str(int(np.median(image)))
    return ", ".join(str(int(median)) for median in np.median(image, axis=(0, 2, 3)))


def _refuse_equal(where: Mapping[str, str], split: str, equal: Mapping[str, Counter[bytes]]) -> None:
    for name, counts in equal.items():
        total, most = counts.total(), max(counts.values(), default=0)
        if total >= FEWEST_TO_COMPARE and most > MAX_EQUAL_SHARE * total:
            raise DataError(
                f"{where[name]}: {most:,} of {total:,} {split} images of class '{name}' are the same; check the files, "
                "or set data.allow_constant: true if they are meant to be"
            )


def _counted(what: str, counts: Mapping[str, int]) -> list[str]:
    found = {name: count for name, count in counts.items() if count}
    if not found:
        return []
    return [f"{what}: {sum(found.values()):,} ({some(f'{name}: {count:,}' for name, count in found.items())})"]


def some(words: Iterable[str], shown: int = 5) -> str:
    """The first few of many words, and how many more there are."""
    every = list(words)
    more = len(every) - shown
    return ", ".join(every[:shown]) + (f" and {more:,} more" if more > 0 else "")
