"""Which classes an expert's images have, and how sparse the gate is over classes.

Shapes: B images, E experts, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.encoding.permutation import class_means
from smoe_ray.analysis.expert_routing import Routing, require_aligned, routing


class ClassSelectivity(NamedTuple):
    """Routing preferences of the experts of one trial."""

    routing: Routing
    """P(c|e), P(e|c) and selectivity S_e = 1 - H(P(c|e)) / ln C of the images routed to each expert."""
    gate_EC: FloatArray
    """Mean gate probability over all images of a class; NaN for absent classes."""
    sparseness_E: FloatArray
    """Lifetime sparseness of each row of `gate_EC`: see `lifetime_sparseness`."""
    gate_sparseness: float
    """1 - (exp(mean H(p)) - 1) / (E - 1), H(p) the entropy of an image's gate probabilities: 1 where each image has
    one expert, 0 where all take part equally."""


def class_selectivity(
    gate_BE: npt.NDArray[Any], expert_B: IntArray, label_B: IntArray, class_names: Sequence[str]
) -> ClassSelectivity:
    """Preferences of each expert among classes.

    Args:
        gate_BE: gate probabilities.
        expert_B: expert of each image.
        label_B: class of each image, an index into `class_names`.
        class_names: C names.

    Raises:
        ResultsError: the arrays have different lengths, or a class has no name.
    """
    from scipy.special import entr

    require_aligned("class selectivity", gate=gate_BE, expert=expert_B, label=label_B)
    images, experts = gate_BE.shape
    gate_EC = class_means(gate_BE, label_B, len(class_names)).T
    entropy = float(entr(np.asarray(gate_BE, np.float64)).sum(axis=1).mean()) if images else np.nan
    sparseness = 1 - (np.exp(entropy) - 1) / (experts - 1) if experts > 1 else np.nan
    return ClassSelectivity(
        routing(expert_B, label_B, experts, class_names),
        gate_EC,
        lifetime_sparseness(gate_EC),
        float(sparseness),
    )


def lifetime_sparseness(response_XN: npt.NDArray[Any]) -> FloatArray:
    """Sparseness of each row over N stimuli or classes (Vinje and Gallant 2000, Science 287:1273). Shape (X,).

    (1 - (sum r / N)² / (sum r² / N)) / (1 - 1/N): 0 for equal responses, 1 for a response to one stimulus only. NaN
    columns are left out; NaN for rows without a response, and for fewer than two stimuli.

    Args:
        response_XN: responses, not negative.
    """
    response_XN = np.asarray(response_XN, np.float64)
    response_XN = response_XN[:, ~np.isnan(response_XN).any(axis=0)]
    stimuli = response_XN.shape[1]
    square_X = np.square(response_XN).mean(axis=1) if stimuli else np.zeros(len(response_XN))
    if stimuli < 2:
        return np.full(len(response_XN), np.nan)
    even_X = np.divide(
        response_XN.mean(axis=1) ** 2, square_X, out=np.full(len(response_XN), np.nan), where=square_X > 0
    )
    sparseness_X: FloatArray = np.clip((1 - even_X) / (1 - 1 / stimuli), 0, 1)
    return sparseness_X
