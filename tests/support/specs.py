"""Small trials that train in a tenth of a second per epoch, ready-made."""

from __future__ import annotations

from typing import Any

from smoe_ray.spec import TrialSpec, trial_with

THREE_CLASSES = {
    "data.classes": ["eye", "cat", "pencil"],
    "data.train_per_class": 17,  # 51 images, an odd number for batches of 16
    "data.test_per_class": 7,
}
TINY = {
    "model.encoder": "lite",
    "model.num_experts": 3,
    "model.latent_dim": 6,
    "model.gate_hidden": [8],
    "training.batch_size": 16,
    "training.budget": "3 epochs",
}


def tiny(**changes: Any) -> TrialSpec:
    """The trial `TINY` on `THREE_CLASSES`; keywords are paths of the spec with ``__`` for the dot."""
    paths = {key.replace("__", "."): value for key, value in changes.items()}
    return trial_with(TrialSpec(), THREE_CLASSES | TINY | paths)
