"""Pictures as data URLs."""

from __future__ import annotations

import base64

from smoe_ray.figures import pictures


def png(picture: pictures.Pixels) -> str:
    """A picture as a PNG data URL.

    It is embedded in the page, as Streamlit deletes a page's media files at the next rerun, possibly before the browser
    has fetched them.
    """
    return f"data:image/png;base64,{base64.b64encode(pictures.png(picture)).decode()}"
