"""Images as data URLs and strips.

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
"""Screen pixels per image pixel, along each side."""
_BORDER = 128
"""Grey level."""


def png(image_HW: npt.NDArray[Any]) -> str:
    """An image (uint8, or floats in [0, 1]) as a PNG data URL.

    It is embedded in the page, as Streamlit deletes a page's media files at the next rerun, possibly before the browser
    has fetched them.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(_grey(image_HW)).save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def strip(image_NHW: npt.NDArray[Any]) -> Pixels:
    """Images (uint8, or floats in [0, 1]) side by side, enlarged, each with a border: white images show no edge."""
    large = _grey(image_NHW).repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)
    return np.concatenate(np.pad(large, ((0, 0), (1, 1), (1, 1)), constant_values=_BORDER), axis=1)


def _grey(image: npt.NDArray[Any]) -> Pixels:
    return image if image.dtype == np.uint8 else np.rint(255 * image.astype(np.float32)).astype(np.uint8)
