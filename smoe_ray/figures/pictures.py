"""Arrays of images as matplotlib, Plotly and Pillow show them, and strips of them.

Shapes: N images, C channels (3), H W pixels. Images are (N, H, W) where they are grey, else (N, C, H, W): uint8, or
floats in [0, 1].
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_STRIP_SIDE = 84
"""Screen pixels, at least, along the longer side of an image in a strip."""
_BORDER = 128
"""Grey level."""
_SMALL = 28
"""Side, in pixels, up to which images are shown at the same size."""


def channels_last(image_NHW: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Grey images (N, H, W), colour images (N, H, W, C). Floats are clipped to [0, 1]; no image is normalised."""
    if np.issubdtype(image_NHW.dtype, np.floating):
        image_NHW = image_NHW.astype(np.float32).clip(0, 1)
    return image_NHW if image_NHW.ndim == 3 else np.moveaxis(image_NHW, 1, -1)


def pixels(image_NHW: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The same, as uint8."""
    shown = channels_last(image_NHW)
    return shown if shown.dtype == np.uint8 else np.rint(255 * shown).astype(np.uint8)


def size_of(image: npt.NDArray[Any], side: float) -> tuple[float, float]:
    """Width and height at which an image (..., H, W) is shown where a small square one is `side` wide and high.

    The longer side in pixels decides how much larger a large image is shown, by its root; the aspect is kept, and so is
    the area of a square.
    """
    height, width = image.shape[-2:]
    side *= max(1.0, math.sqrt(max(height, width) / _SMALL))
    return side * math.sqrt(width / height), side * math.sqrt(height / width)


def strip(image_NHW: npt.NDArray[Any]) -> Pixels:
    """Images (uint8, or floats in [0, 1]) side by side, each with a border: white images show no edge.

    They are enlarged by a whole number, so that each pixel is a square, and small ones more than large ones.

    Returns:
        grey (rows, columns) or RGB (rows, columns, 3).
    """
    shown = pixels(image_NHW)
    scale = max(1, round(_STRIP_SIDE / max(shown.shape[1:3])))
    large = shown.repeat(scale, axis=1).repeat(scale, axis=2)
    edges = [(0, 0), (1, 1), (1, 1), (0, 0)][: large.ndim]
    return np.concatenate(np.pad(large, edges, constant_values=_BORDER), axis=1)


def below_each_other(strips: Sequence[Pixels]) -> Pixels:
    """Strips in one picture, as wide as the widest; what the others lack is of the border's grey."""
    width = max(each.shape[1] for each in strips)
    edges = [[(0, 0), (0, width - each.shape[1]), (0, 0)][: each.ndim] for each in strips]
    return np.concatenate(
        [np.pad(each, edge, constant_values=_BORDER) for each, edge in zip(strips, edges, strict=True)]
    )


def png(picture: Pixels) -> bytes:
    """Content of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    return buffer.getvalue()
