"""Embeddings and a model with known answers, for the tests of galleries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]


def painted(image_HW: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Images (..., H, W) cut or repeated to `shape`: (H, W), or (3, H, W) with red as it was, green half, blue none."""
    *channels, height, width = shape
    sized = np.take(np.take(image_HW, np.arange(height) % 28, axis=-2), np.arange(width) % 28, axis=-1)
    return np.stack([sized, sized // 2 if sized.dtype == np.uint8 else sized / 2, 0 * sized], -3) if channels else sized


def embeddings(
    images_of: Sequence[int], num_classes: int = 3, seed: int = 0, paper: int = 0, shape: tuple[int, ...] = (28, 28)
) -> Arrays:
    """Embeddings of a trial whose expert e takes `images_of[e]` images, in mixed order, each with its own confidence.

    Latent vectors (Z = 2) lie at (e, -e); pictures hold one grey bar on black, or on white where `paper` is 255,
    and are `painted` to another `shape`.
    """
    rng = np.random.default_rng(seed)
    num_experts, count = len(images_of), sum(images_of)
    expert_B = rng.permutation(np.repeat(np.arange(num_experts), images_of))
    confidence_B = rng.permutation(np.linspace(0.51, 0.99, count)) if num_experts > 1 else np.ones(count)
    gate_BE = np.repeat((1 - confidence_B)[:, None] / max(1, num_experts - 1), num_experts, axis=1)
    gate_BE[np.arange(count), expert_B] = confidence_B
    image_BHW = np.full((count, 28, 28), paper, dtype=np.uint8)
    for image, row in zip(image_BHW, rng.integers(2, 24, count), strict=True):
        image[row : row + 3, 4:24] = 200 if paper == 0 else 50
    image_BHW = painted(image_BHW, shape)
    return {
        "mu": np.stack([expert_B, -expert_B], axis=1).astype(np.float32),
        "label": rng.integers(0, num_classes, count),
        "expert": expert_B,
        "gate": gate_BE.astype(np.float32),
        "image": image_BHW,
        "reconstruction": (0.9 * image_BHW / 255).astype(np.float16),
    }


class PlantedModel:
    """Its gate prefers the expert whose number is nearest to z[0]; expert e draws row e (mod 28), z[0] / E bright."""

    def __init__(self, num_experts: int, shape: tuple[int, ...] = (28, 28)) -> None:
        self.num_experts = num_experts
        self.shape = shape

    def gate(self, z_BZ: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        weight_BE = np.exp(-np.square(z_BZ[:, :1] - np.arange(self.num_experts)))
        return (weight_BE / weight_BE.sum(axis=1, keepdims=True)).astype(np.float32)

    def decode_all(self, z_BZ: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        image_BEHW = np.zeros((len(z_BZ), self.num_experts, 28, 28), dtype=np.float32)
        for expert in range(self.num_experts):
            image_BEHW[:, expert, expert % 28] = z_BZ[:, :1] / self.num_experts
        return painted(image_BEHW, self.shape)
