"""What is lost without an expert, and when its images are decoded by another one.

Shapes: B images, E experts, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.encoding.permutation import class_means
from smoe_ray.analysis.expert_routing import require_aligned


class Ablation(NamedTuple):
    """Test loss (squared error per image) without each expert, its images rerouted to the next best by logit."""

    class_names: tuple[str, ...]
    loss: float
    """With all experts."""
    loss_C: FloatArray
    increase_E: FloatArray
    """Over all images: increase of the mean loss without expert e; 0 for dead experts, negative if the loss falls. NaN
    for a single expert."""
    increase_EC: FloatArray
    """The same over the images of class c; NaN for absent classes. Its mean over classes, weighted by their images, is
    `increase_E`."""
    rerouted_to_EE: IntArray
    """Images of expert e (row) that go to expert f (column) without it."""
    swap_EE: FloatArray
    """Mean over the images routed to e (row) of the error of expert f (column) minus that of e; diagonal 0, NaN in the
    rows of dead experts."""


def ablate_experts(
    logit_BE: npt.NDArray[Any],
    error_BE: npt.NDArray[Any],
    expert_B: IntArray,
    label_B: IntArray,
    class_names: Sequence[str],
) -> Ablation:
    """Remove each expert in turn; decode each image by the remaining expert with the highest logit.

    Args:
        logit_BE: gate logits.
        error_BE: squared error of each expert alone.
        expert_B: expert of each image, with all experts.
        label_B: class of each image.
        class_names: C names.

    Raises:
        ResultsError: the arrays have different lengths.
    """
    require_aligned("ablation", logit=logit_BE, error=error_BE, expert=expert_B, label=label_B)
    error_BE = np.asarray(error_BE, np.float64)
    images, experts = error_BE.shape
    row_B = np.arange(images)
    loss_B = error_BE[row_B, expert_B]
    is_chosen_BE = np.arange(experts) == expert_B[:, None]
    next_B = np.where(is_chosen_BE, -np.inf, logit_BE).argmax(axis=1)
    # Removing an image's own expert costs the next one's error; removing another changes nothing.
    increase_B = error_BE[row_B, next_B] - loss_B if experts > 1 else np.full(images, np.nan)
    increase_BE = np.where(is_chosen_BE, increase_B[:, None], 0.0)
    rerouted_to_EE = np.zeros((experts, experts), np.int64)
    if experts > 1:
        np.add.at(rerouted_to_EE, (expert_B, next_B), 1)
    classes = len(class_names)
    return Ablation(
        tuple(class_names),
        float(loss_B.mean()),
        class_means(loss_B[:, None], label_B, classes)[:, 0],
        increase_BE.mean(axis=0),
        class_means(increase_BE, label_B, classes).T,
        rerouted_to_EE,
        class_means(error_BE - loss_B[:, None], expert_B, experts),
    )
