"""Bars as images, and hand-built experts that respond to their pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from smoe_ray.analysis.encoding import pixel_features

ANGLES = np.arange(0, 180, 15)
SIDE = 28


class Bars(NamedTuple):
    """One straight bar per image, around the middle."""

    image_NHW: np.ndarray
    angle_N: np.ndarray
    """Degrees counter-clockwise from the horizontal."""
    length_N: np.ndarray
    """Pixels."""


def bars(repeats: int = 12, seed: int = 0) -> Bars:
    """Every angle `repeats` times, with lengths of 8 to 24 pixels."""
    rng = np.random.default_rng(seed)
    angle_N = np.repeat(ANGLES, repeats).astype(float)
    length_N = rng.uniform(8, 24, len(angle_N))
    up, right = SIDE / 2 - 0.5 - np.mgrid[:SIDE, :SIDE][0], np.mgrid[:SIDE, :SIDE][1] - (SIDE / 2 - 0.5)
    cosine, sine = np.cos(np.radians(angle_N)), np.sin(np.radians(angle_N))
    along = right * cosine[:, None, None] + up * sine[:, None, None]
    across = up * cosine[:, None, None] - right * sine[:, None, None]
    beyond = np.maximum(np.abs(along) - length_N[:, None, None] / 2, 0)
    ink = np.clip(2 - np.hypot(beyond, across), 0, 1)
    return Bars((255 - 255 * ink).astype(np.uint8), angle_N, length_N)


def responses(of: Bars) -> np.ndarray:
    """Of experts tuned to 45 degrees, to size, and to nothing, (N, 3); all but the last computed from the pixels."""
    features = pixel_features(of.image_NHW)
    value = dict(zip(features.names, features.value_BF.T, strict=True))
    energy = np.hypot(value["horizontal energy"], value["diagonal energy"])
    return np.stack([np.exp(12 * (value["diagonal energy"] / energy - 1)), value["size"], np.ones(len(energy))], axis=1)


def hidden_of_copies(images: int = 120, width: int = 24, seed: int = 0) -> np.ndarray:
    """Hidden values of an expert, of its rotated and scaled copy, and of two experts independent of all, (4, B, H)."""
    rng = np.random.default_rng(seed)
    one, third, fourth = rng.normal(size=(3, images, width))
    rotation, _ = np.linalg.qr(rng.normal(size=(width, width)))
    return np.stack([one, 3 * one @ rotation + 1, third, fourth])
