"""Arrays of images as matplotlib, Plotly and Pillow show them.

Shapes: N images, C channels (3), H W pixels. Images are (N, H, W) where they are grey, else (N, C, H, W): uint8, or
floats in [0, 1].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_PLAIN_SIDE = 28
"""Images up to this many pixels across are shown at the same size."""


def channels_last(image_NHW: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Grey images (N, H, W), colour images (N, H, W, C). Floats are clipped to [0, 1]; no image is normalised."""
    if np.issubdtype(image_NHW.dtype, np.floating):
        image_NHW = image_NHW.astype(np.float32).clip(0, 1)
    return image_NHW if image_NHW.ndim == 3 else np.moveaxis(image_NHW, 1, -1)


def pixels(image_NHW: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The same, as uint8."""
    shown = channels_last(image_NHW)
    return shown if shown.dtype == np.uint8 else np.rint(255 * shown).astype(np.uint8)


def growth(image: npt.NDArray[Any]) -> float:
    """How much larger than a small image this one (..., H, W) is shown: by the root of its longer side, at least 1."""
    return max(1.0, math.sqrt(max(image.shape[-2:]) / _PLAIN_SIDE))
