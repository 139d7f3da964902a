"""Images as data URLs and strips.

Shapes: N images of a strip, C channels, H W pixels. Images are (H, W) where they are grey, else (C, H, W), C = 3.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from smoe_ray.figures import pictures

Pixels = npt.NDArray[np.uint8]

_SIDE = 84
"""Screen pixels, at least, along the longer side of an image."""
_BORDER = 128
"""Grey level."""


def png(picture: Pixels) -> str:
    """A strip as a PNG data URL.

    It is embedded in the page, as Streamlit deletes a page's media files at the next rerun, possibly before the browser
    has fetched them.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def strip(image_NHW: npt.NDArray[Any]) -> Pixels:
    """Images (uint8, or floats in [0, 1]) side by side, each with a border: white images show no edge.

    They are enlarged by a whole number, so that each pixel is a square, and small ones more than large ones.

    Returns:
        grey (rows, columns) or RGB (rows, columns, 3).
    """
    shown = pictures.pixels(image_NHW)
    scale = max(1, round(_SIDE / max(shown.shape[1:3])))
    large = shown.repeat(scale, axis=1).repeat(scale, axis=2)
    edges = [(0, 0), (1, 1), (1, 1), (0, 0)][: large.ndim]
    return np.concatenate(np.pad(large, edges, constant_values=_BORDER), axis=1)
