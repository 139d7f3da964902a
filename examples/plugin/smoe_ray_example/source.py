"""Rings of three sizes, one class per size."""

import numpy as np

from smoe_ray.data import Content, Dataset, ReadContext
from smoe_ray.spec import DataSpecBase


class Rings:
    """Draws its images; a source that reads files has methods `requirements`, `find` and `key`, too."""

    class Spec(DataSpecBase):
        """Parameters: these, and those that all sources have."""

        classes: tuple[str, ...] = ("small", "medium", "large")
        train_per_class: int = 200
        test_per_class: int = 50
        width: float = 2.0  # pixels

    def read(self, spec: Spec, _found: None, _context: ReadContext) -> Content:
        """All images at fraction 1, training images sorted by label."""
        return Content(rings(spec, spec.train_per_class, 0), rings(spec, spec.test_per_class, 1), spec.classes)


def rings(spec: Rings.Spec, count: int, seed: int) -> Dataset:
    """`count` dark rings of each class on white."""
    label_B = np.arange(len(spec.classes)).repeat(count)
    x_B, y_B = np.random.default_rng(seed).uniform(-2, 2, (2, len(label_B), 1, 1))
    radius_BHW = np.hypot(np.arange(28) - 13.5 - x_B, np.arange(28)[:, None] - 13.5 - y_B)
    return Dataset((np.abs(radius_BHW - 4 - 3 * label_B[:, None, None]) > spec.width / 2) * np.uint8(255), label_B)
