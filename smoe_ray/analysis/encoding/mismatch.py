"""Does the gate send images where they are decoded best, and experts the classes that they are best at?

Shapes: B images, E experts, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.encoding.permutation import class_means
from smoe_ray.analysis.encoding.selectivity import ClassSelectivity, class_selectivity
from smoe_ray.analysis.expert_routing import contingency, require_aligned


class RoutingMismatch(NamedTuple):
    """Routing against tuning in one trial."""

    divergence_E: FloatArray
    """Jensen-Shannon divergence, bits (0 to 1), of P(c|e) of the routed images and `tuning_EC`; NaN for dead
    experts."""
    class_given_expert_EC: FloatArray
    tuning_EC: FloatArray
    """Softmax over classes of the class means of expert e's advantage A_e = min_{j != e} r_j - r_e, standardised over
    all images: which classes e decodes better than the other experts do. 0 for absent classes."""
    regret: float
    """Mean of r_chosen - min_e r_e, squared error per image: what perfect routing would save."""
    regret_E: FloatArray
    """The same over the images routed to each expert; NaN for dead experts."""
    misrouted: float
    """Share of the images that another expert decodes with a lower error."""


class ClassPreference(NamedTuple):
    """Which classes each expert of a trial is given, and which it is good at."""

    selectivity: ClassSelectivity
    mismatch: RoutingMismatch


def class_preference(
    gate_BE: npt.NDArray[Any],
    error_BE: npt.NDArray[Any],
    expert_B: IntArray,
    label_B: IntArray,
    class_names: Sequence[str],
) -> ClassPreference:
    """`class_selectivity` and `routing_mismatch` of one trial. Raises ResultsError as they do."""
    return ClassPreference(
        class_selectivity(gate_BE, expert_B, label_B, class_names),
        routing_mismatch(error_BE, expert_B, label_B, len(class_names)),
    )


def routing_mismatch(
    error_BE: npt.NDArray[Any], expert_B: IntArray, label_B: IntArray, num_classes: int
) -> RoutingMismatch:
    """Compare routing with the errors of all experts.

    Args:
        error_BE: squared error of each expert alone.
        expert_B: expert of each image.
        label_B: class of each image.
        num_classes: C.

    Raises:
        ResultsError: the arrays have different lengths, or contain an id out of range.
    """
    require_aligned("routing mismatch", error=error_BE, expert=expert_B, label=label_B)
    error_BE = np.asarray(error_BE, np.float64)
    experts = error_BE.shape[1]
    count_EC = contingency(expert_B, label_B, experts, num_classes)
    count_E = count_EC.sum(axis=1)
    class_given_expert_EC = np.divide(
        count_EC, count_E[:, None], out=np.full(count_EC.shape, np.nan), where=count_E[:, None] > 0
    )
    tuning_EC = _class_tuning(advantage(error_BE), label_B, num_classes)
    regret_B = error_BE[np.arange(len(error_BE)), expert_B] - error_BE.min(axis=1)
    regret_sum_E = np.bincount(expert_B, regret_B, minlength=experts)
    return RoutingMismatch(
        _jensen_shannon(class_given_expert_EC, tuning_EC),
        class_given_expert_EC,
        tuning_EC,
        float(regret_B.mean()) if len(regret_B) else math.nan,
        np.divide(regret_sum_E, count_E, out=np.full(experts, np.nan), where=count_E > 0),
        float((regret_B > 0).mean()) if len(regret_B) else math.nan,
    )


def advantage(error_BE: npt.NDArray[Any]) -> FloatArray:
    """A_e = min_{j != e} r_j - r_e of each image; positive for its best expert only. 0 for a single expert."""
    error_BE = np.asarray(error_BE, np.float64)
    if error_BE.shape[1] < 2:
        return np.zeros(error_BE.shape)
    lowest_B2 = np.partition(error_BE, 1, axis=1)[:, :2]
    is_best_BE = error_BE == lowest_B2[:, :1]
    best_other_BE = np.where(is_best_BE, lowest_B2[:, 1:], lowest_B2[:, :1])
    advantage_BE: FloatArray = best_other_BE - error_BE
    return advantage_BE


def _class_tuning(response_BE: FloatArray, label_B: IntArray, num_classes: int) -> FloatArray:
    sd_E = response_BE.std(axis=0)
    standardised_BE = (response_BE - response_BE.mean(axis=0)) / np.where(sd_E > 0, sd_E, np.inf)
    mean_EC = class_means(standardised_BE, label_B, num_classes).T
    weight_EC = np.nan_to_num(np.exp(mean_EC))
    tuning_EC: FloatArray = weight_EC / weight_EC.sum(axis=1, keepdims=True)
    return tuning_EC


def _jensen_shannon(p_EC: FloatArray, q_EC: FloatArray) -> FloatArray:
    """In bits; NaN where p is."""
    from scipy.special import rel_entr

    middle_EC = (p_EC + q_EC) / 2
    divergence_E: FloatArray = (rel_entr(p_EC, middle_EC) + rel_entr(q_EC, middle_EC)).sum(axis=1) / math.log(4)
    return divergence_E
