"""Arrays of images as matplotlib, Plotly and Pillow show them.

Shapes: N images, C channels (3), H W pixels. Images are (N, H, W) where they are grey, else (N, C, H, W): uint8, or
floats in [0, 1].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

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
