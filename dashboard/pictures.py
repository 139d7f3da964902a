"""Pictures of images as data URLs and strips.

Shapes: N images of a strip, H W pixels (28 x 28).
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_SCALE = 3
"""Pixels of the screen that a pixel of a strip takes, a side."""
_HAIRLINE = 128


def png(image_HW: npt.NDArray[Any]) -> str:
    """A picture (uint8, or floats in [0, 1]) as a data URL.

    A page carries it itself: files that Streamlit keeps for a page go when it is drawn anew, maybe before a browser
    has fetched them.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(_grey(image_HW)).save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def strip(image_NHW: npt.NDArray[Any]) -> Pixels:
    """Pictures (uint8, or floats in [0, 1]) side by side, enlarged, each in a hairline: white paper has no edge."""
    large = _grey(image_NHW).repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)
    return np.concatenate(np.pad(large, ((0, 0), (1, 1), (1, 1)), constant_values=_HAIRLINE), axis=1)


def _grey(image: npt.NDArray[Any]) -> Pixels:
    return image if image.dtype == np.uint8 else np.rint(255 * image.astype(np.float32)).astype(np.uint8)
