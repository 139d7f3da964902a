"""Pictures of any size and colour as small grey images, and what must be said about them.

Shapes: N images, H W pixels, C channels.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from smoe_ray.data.checks import ClassImages, as_they_are, some
from smoe_ray.data.dataset import IMAGE_SIDE
from smoe_ray.data.files import one_line
from smoe_ray.errors import DataError

Images = npt.NDArray[np.uint8]

MAX_PIXELS = 50_000_000
"""A larger picture is refused. Reducing one takes 5 (RGB) to 12 (RGBA) bytes and 11 to 27 ns per pixel (measured)."""

logging.getLogger("PIL").addHandler(logging.NullHandler())  # a damaged file ends in our own line, not in Pillow's


class GreyConverter:
    """Turns pictures into 28x28 grey: upright as their EXIF data say, transparency over a background, then LANCZOS.

    Remembers which pictures were transparent or had several frames.
    """

    def __init__(self, background: Literal["white", "black"]) -> None:
        self._background = background
        self._several_frames: list[str] = []
        self.transparent = 0
        """Number of pictures with transparent pixels so far."""

    def notes(self) -> list[str]:
        """What the user should know about the pictures converted so far."""
        if not self._several_frames:
            return []
        return [f"only the first frame is used of files with several ({some(self._several_frames)})"]

    def array(self, image_NHWC: Images) -> ClassImages:
        """Images of one class: (N, H, W), or (N, H, W, C) with C = 1, 3 or 4."""
        from PIL import Image

        if image_NHWC.ndim == 4 and image_NHWC.shape[3] == 1:
            image_NHWC = image_NHWC[..., 0]
        if image_NHWC.shape[1:] == (IMAGE_SIDE, IMAGE_SIDE):
            return as_they_are(image_NHWC)
        return _stack([self._convert(Image.fromarray(np.ascontiguousarray(image))) for image in image_NHWC])

    def files(self, files: tuple[Path, ...], step: Any) -> ClassImages:
        """Image files of one class; `step` is called after each.

        Raises:
            DataError: a file is damaged or not an 8-bit image.
        """
        converted = []
        for file in files:
            converted.append(self._file(file))
            step()
        return _stack(converted)

    def _file(self, file: Path) -> tuple[Images, int, int]:
        from PIL import Image, ImageOps

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's remarks on odd but readable files
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                if file.suffix.lower() == ".png":
                    with Image.open(file) as image:
                        image.verify()  # the checksums, which decoding alone does not compare to the end
                with Image.open(file) as image:
                    if image.width * image.height > MAX_PIXELS:
                        raise ValueError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read")
                    if getattr(image, "is_animated", False):
                        self._several_frames.append(file.name)
                    return self._convert(ImageOps.exif_transpose(image))
        except Exception as error:  # every format has exceptions of its own
            raise DataError(f"{file}: not a readable image ({one_line(error)}); mend or remove it") from None

    def _convert(self, image: Any) -> tuple[Images, int, int]:
        """A PIL image as (28, 28) grey, and its darkest and brightest pixel before it was resampled."""
        from PIL import Image

        if image.mode.startswith(("I", "F")):
            raise ValueError(f"pixels of mode {image.mode}; only 8-bit images are read: convert it to 8-bit grey")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema()[0] < 255:
                self.transparent += 1
            image = Image.alpha_composite(Image.new("RGBA", image.size, self._background), image)
        image = image.convert("L")
        low, high = image.getextrema()
        if image.size != (IMAGE_SIDE, IMAGE_SIDE):
            image = image.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.LANCZOS)
        return np.asarray(image), low, high


def _stack(converted: list[tuple[Images, int, int]]) -> ClassImages:
    images, low, high = zip(*converted, strict=True)
    return ClassImages(np.stack(images), np.array(low, np.uint8), np.array(high, np.uint8))
