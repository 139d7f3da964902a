"""Datasets in memory: uint8 images, labels and, for synthetic sketches, the style and parameters of each drawing.

Shapes: B images, C channels, H W pixels, P continuous parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from smoe_ray.spec import IMAGE_SIDE as IMAGE_SIDE
from smoe_ray.spec import ImageShape


def shape_in_words(image_shape: ImageShape) -> str:
    """E.g. ``32x32 RGB``: width, height, colours."""
    channels, height, width = image_shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"


@dataclass(frozen=True)
class Dataset:
    """One split. Arrays may be memory-mapped and read-only."""

    image_BHW: npt.NDArray[np.uint8]
    """(B, H, W) where the images are grey, else (B, C, H, W) with C = 3."""
    label_B: npt.NDArray[np.int64]
    style_B: npt.NDArray[np.int64] | None = None
    """Index into `Splits.style_names`; None where the source has no styles."""
    parameter_BP: npt.NDArray[np.float32] | None = None
    """Continuous parameters of each drawing, columns as `Splits.parameter_names`; NaN where not applicable."""

    def __len__(self) -> int:
        return len(self.label_B)

    def labels(self, kind: Literal["class", "style"]) -> npt.NDArray[np.int64]:
        """`label_B` or `style_B`; the images must have styles then."""
        if kind == "class":
            return self.label_B
        assert self.style_B is not None
        return self.style_B

    @property
    def image_shape(self) -> ImageShape:
        """(C, H, W) of each image; arrays of shape (B, H, W) have one channel."""
        *channels, height, width = self.image_BHW.shape[1:]
        return (channels[0] if channels else 1, height, width)


@dataclass(frozen=True)
class Splits:
    """A training set and the fixed test set, with the names that their labels and styles index."""

    train: Dataset
    test: Dataset
    class_names: tuple[str, ...]
    fingerprint: str
    """SHA-256 (hex) of the whole source at fraction 1, before any subset is taken."""
    style_names: tuple[str, ...] = ()
    """``<class>/<style>``, e.g. ``eye/lashes``."""
    parameter_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """One line each: what the user should know about these data."""
