"""A few small images that a model can learn, as `Splits`."""

from __future__ import annotations

import numpy as np
import pytest

from smoe_ray.data import Dataset, Splits


def bars(count: int, seed: int) -> Dataset:
    """Class 0 draws a horizontal bar, 1 a vertical one, 2 both, somewhere; a little noise."""
    rng = np.random.default_rng(seed)
    label_B = np.arange(count) % 3
    image_BHW = rng.integers(0, 20, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(image_BHW, label_B, strict=True):
        row, column = rng.integers(4, 22, 2)
        if label != 1:
            image[row : row + 3] = 230
        if label != 0:
            image[:, column : column + 3] = 230
    return Dataset(image_BHW, label_B)


def stripes(count: int, seed: int) -> Dataset:
    """3x16x24 pixels, horizontal stripes of two pixels: class 0 red, 1 blue, 2 both in turns; a little noise."""
    rng = np.random.default_rng(seed)
    label_B = np.arange(count) % 3
    image_BCHW = rng.integers(0, 40, (count, 3, 16, 24), dtype=np.uint8)
    for image, label in zip(image_BCHW, label_B, strict=True):
        rows = np.arange(16) % 4 < 2
        image[0, rows if label != 1 else 0] += 200
        image[2, ~rows if label != 0 else 0] += 200
    return Dataset(image_BCHW, label_B)


@pytest.fixture(scope="session")
def colour_splits() -> Splits:
    """As `splits`, in colour and wider than high."""
    return Splits(stripes(50, seed=0), stripes(21, seed=1), ("red", "blue", "both"), "1" * 64)


@pytest.fixture(scope="session")
def splits() -> Splits:
    """50 images to train on (an odd number for batches of 16) and 21 to test on."""
    return Splits(bars(50, seed=0), bars(21, seed=1), ("horizontal", "vertical", "cross"), "0" * 64)
