"""Image files that a browser sends, untrusted input, as images like those that a trial was trained on."""

from __future__ import annotations

import numpy as np

from smoe_ray.data.image_folder import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from smoe_ray.data.image_format import EncodedImage, picture_of_shape
from smoe_ray.results import TrialRecord
from smoe_ray.spec import ImageData, ImageFormat, ImageShape, drawing_ink

from .strokes import Image

_MIDDLE = 128


def shape(record: TrialRecord) -> ImageShape:
    """(C, H, W) of the images of a finished trial."""
    assert record.data is not None, "a finished trial knows its data"
    return record.data.image_shape


def as_trained_on(content: bytes, record: TrialRecord) -> Image:
    """An image file as the trial's data have their images: same size, channels and ink, resampled as they were.

    Args:
        content: of the file.
        record: of a finished trial.

    Raises:
        DataError: it is no image, or too large.
    """
    data = record.spec.data
    image, background = (data.image, data.background) if isinstance(data, ImageData) else (ImageFormat(), "white")
    picture = EncodedImage("the uploaded file", content)
    image_HW = picture_of_shape(picture, shape(record), image, background)
    ink = drawing_ink(data)
    # As the readers do: a drawing is mostly background.
    if ink is not None and (np.median(image_HW) < _MIDDLE) != (ink == "white_on_black"):
        return 255 - image_HW
    return image_HW
