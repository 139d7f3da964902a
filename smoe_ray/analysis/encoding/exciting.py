"""Are the most exciting inputs of an expert specific to it?

Shapes: E experts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray
from smoe_ray.errors import ResultsError


class Specificity(NamedTuple):
    """Of the inputs that excite each expert most; from M_ef, the response of expert f to the best input of expert e."""

    specificity: float
    """Mean over experts of M_ee - max_{f != e} M_ef, in the unit of the response; NaN for a single expert."""
    margin_E: FloatArray
    """M_ee - max_{f != e} M_ef."""
    diagonal: float
    """Diagonal dominance: share of experts whose input excites them more than any other, M_ee > max_{f != e} M_ef."""


def input_specificity(cross_EE: npt.NDArray[Any]) -> Specificity:
    """Specificity and diagonal dominance of a cross matrix (rows: inputs, columns: responding experts).

    Raises:
        ResultsError: the matrix is not square.
    """
    if cross_EE.ndim != 2 or cross_EE.shape[0] != cross_EE.shape[1]:
        raise ResultsError(f"specificity of exciting inputs: a matrix of shape {cross_EE.shape}; pass an (E, E) one")
    cross_EE = np.asarray(cross_EE, np.float64)
    if len(cross_EE) < 2:
        return Specificity(np.nan, np.full(len(cross_EE), np.nan), np.nan)
    others_EE = np.where(np.eye(len(cross_EE), dtype=bool), -np.inf, cross_EE)
    margin_E = np.diag(cross_EE) - others_EE.max(axis=1)
    return Specificity(float(margin_E.mean()), margin_E, float((margin_E > 0).mean()))
