"""Tuning curves: the mean response of each expert against one controlled parameter of the stimuli.

Shapes: N stimuli, E experts, K values of the parameter, B images, P permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.encoding.permutation import (
    NOT_DEFINED,
    PERMUTATIONS,
    PermutationTest,
    class_means,
    permutations_within,
)
from smoe_ray.analysis.encoding.selectivity import lifetime_sparseness
from smoe_ray.analysis.expert_routing import require_aligned
from smoe_ray.errors import ResultsError

MOST_VALUES = 16
"""Points of a curve; of more distinct values, as many bins with equal numbers of stimuli."""
ORIENTATION_PERIOD = 180.0
"""Degrees after which an orientation repeats."""
_FLAT = 1e-20
"""Sum of squares that rounding alone gives."""


class TuningCurve(NamedTuple):
    """Response of one expert against one parameter."""

    mean_K: FloatArray
    sd_K: FloatArray
    """Sample standard deviation (ddof = 1) over the stimuli of a value; NaN for a single one."""
    preferred: float
    """Of a circular parameter half the angle of sum T e^{2iθ}, in its unit; otherwise the value of the highest mean."""
    orientation_index: float
    """|sum T e^{2iθ}| / sum T over the K means, 0 to 1; NaN unless the parameter is circular."""
    width: float
    """Of the peak, in the unit of the parameter, at half the height between the lowest and the highest mean, by linear
    interpolation; a peak at an end has one flank. NaN for a flat curve."""
    breadth: float
    """1 - lifetime sparseness of the K means: 1 for equal responses to all values, 0 for a response to one only."""
    modulation: PermutationTest
    """Share of the variance over stimuli of a block that the value explains (eta²), and with values permuted within
    blocks."""


class TuningCurves(NamedTuple):
    """Every expert against one parameter."""

    parameter: str
    value_K: FloatArray
    count_K: IntArray
    """Stimuli of each value."""
    period: float | None
    """After which the parameter repeats; None: it does not."""
    curves: tuple[TuningCurve, ...]
    """By expert."""


class ExpertTuning(NamedTuple):
    """Every expert against every parameter of the stimuli, by what the gate sends it and by what it decodes well."""

    routing: tuple[TuningCurves, ...]
    """By parameter, of the gate probability."""
    decoding: tuple[TuningCurves, ...]
    """By parameter, of the `relative_precision`."""


def expert_tuning(
    names: Sequence[str],
    parameter_N: IntArray,
    value_N: npt.NDArray[Any],
    repeat_N: IntArray,
    gate_NE: npt.NDArray[Any],
    error_NE: npt.NDArray[Any],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> ExpertTuning:
    """Tuning to stimuli of which each varies one parameter.

    Args:
        names: of the parameters; *orientation* is circular, in degrees.
        parameter_N: the parameter that a stimulus varies, an index into `names`.
        value_N: its value.
        repeat_N: stimuli of one parameter and repeat are equal in all but this value.
        gate_NE: gate probabilities of the stimuli.
        error_NE: squared error of each expert alone.
        permutations: P, of the values.
        seed: of the permutations.

    Raises:
        ResultsError: the arrays have different lengths, or a parameter has fewer than two values.
    """
    require_aligned("tuning", parameter=parameter_N, value=value_N, repeat=repeat_N, gate=gate_NE, error=error_NE)

    def curves(response_NE: npt.NDArray[Any]) -> tuple[TuningCurves, ...]:
        return tuple(
            tuning_curves(
                name,
                value_N[parameter_N == number],
                response_NE[parameter_N == number],
                block_N=repeat_N[parameter_N == number],
                period=ORIENTATION_PERIOD if name == "orientation" else None,
                permutations=permutations,
                seed=seed,
            )
            for number, name in enumerate(names)
        )

    return ExpertTuning(curves(gate_NE), curves(relative_precision(error_NE)))


def tuning_curves(
    parameter: str,
    value_N: npt.NDArray[Any],
    response_NE: npt.NDArray[Any],
    *,
    block_N: IntArray | None = None,
    period: float | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> TuningCurves:
    """Mean response of each expert by value of the parameter.

    Args:
        parameter: its name.
        value_N: value of each stimulus.
        response_NE: responses, not negative: gate probabilities, or `relative_precision` of the errors.
        block_N: stimuli of one block differ in the value alone, so that only these are compared; None: all do.
        period: of a circular parameter, in its unit (`ORIENTATION_PERIOD`).
        permutations: P, of the values over the stimuli.
        seed: of the permutations.

    Raises:
        ResultsError: the arrays have different lengths, fewer than two values are present, or a response is negative.
    """
    block_N = np.zeros(len(value_N), np.int64) if block_N is None else block_N
    require_aligned(f"tuning to {parameter}", value=value_N, response=response_NE, block=block_N)
    response_NE = np.asarray(response_NE, np.float64)
    value_N = np.asarray(value_N, np.float64)
    if period is not None:
        value_N = value_N % period
    if len(np.unique(value_N)) < 2:
        raise ResultsError(f"tuning to {parameter}: the stimuli have a single value of it; vary it")
    if not (response_NE >= 0).all():
        raise ResultsError(
            f"tuning to {parameter}: responses are negative or NaN; pass gate probabilities or relative_precision"
        )
    value_K, bin_N = _bins(value_N)
    count_K = np.bincount(bin_N)
    explained = _explained(bin_N, block_N, response_NE, permutations, seed)
    curves = tuple(
        _curve(value_K, bin_N, count_K, response_N, period, modulation)
        for response_N, modulation in zip(response_NE.T, explained, strict=True)
    )
    return TuningCurves(parameter, value_K, count_K, period, curves)


def relative_precision(error_BE: npt.NDArray[Any]) -> FloatArray:
    """(1 / r_e) / sum_j (1 / r_j): how well expert e alone decodes an image, next to the others. Rows sum to 1."""
    precision_BE = 1 / np.maximum(np.asarray(error_BE, np.float64), 1e-12)
    share_BE: FloatArray = precision_BE / precision_BE.sum(axis=1, keepdims=True)
    return share_BE


def orientation_index(angle_K: npt.NDArray[Any], response_KE: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """|sum T e^{2iθ}| / sum T and the preferred orientation, degrees from 0 to below 180, each (E,).

    Both NaN for experts without a response.

    Args:
        angle_K: degrees, evenly spaced over the half circle.
        response_KE: mean responses, not negative.
    """
    resultant_E = np.exp(2j * np.radians(angle_K)) @ response_KE
    sum_E = response_KE.sum(axis=0)
    index_E = np.divide(np.abs(resultant_E), sum_E, out=np.full(len(sum_E), np.nan), where=sum_E > 0)
    preferred_E = np.where(sum_E > 0, np.degrees(np.angle(resultant_E)) / 2 % ORIENTATION_PERIOD, np.nan)
    return index_E, preferred_E


def _bins(value_N: FloatArray) -> tuple[FloatArray, IntArray]:
    """Values of the points and the point of each stimulus: distinct values, or means of equally filled bins."""
    distinct, bin_N = np.unique(value_N, return_inverse=True)
    if len(distinct) <= MOST_VALUES:
        return distinct, bin_N
    edges = np.unique(np.quantile(value_N, np.linspace(0, 1, MOST_VALUES + 1)[1:-1]))
    _, bin_N = np.unique(np.searchsorted(edges, value_N, side="right"), return_inverse=True)
    return np.bincount(bin_N, value_N) / np.bincount(bin_N), bin_N


def _curve(
    value_K: FloatArray,
    bin_N: IntArray,
    count_K: IntArray,
    response_N: FloatArray,
    period: float | None,
    modulation: PermutationTest,
) -> TuningCurve:
    mean_K = np.bincount(bin_N, response_N) / count_K
    square_K = np.bincount(bin_N, np.square(response_N - mean_K[bin_N]))
    sd_K = np.sqrt(np.divide(square_K, count_K - 1, out=np.full(len(count_K), np.nan), where=count_K > 1))
    index, preferred = np.nan, float(value_K[mean_K.argmax()])
    if period is not None:
        (index,), (angle,) = orientation_index(value_K / period * ORIENTATION_PERIOD, mean_K[:, None])
        preferred = float(angle / ORIENTATION_PERIOD * period)
    (sparseness,) = lifetime_sparseness(mean_K[None])
    width = _width(value_K, mean_K, period)
    return TuningCurve(mean_K, sd_K, preferred, float(index), width, float(1 - sparseness), modulation)


def _width(value_K: FloatArray, mean_K: FloatArray, period: float | None) -> float:
    peak, half = int(mean_K.argmax()), (mean_K.min() + mean_K.max()) / 2
    if mean_K.max() - mean_K.min() <= 1e-12 * abs(mean_K.max()):
        return float("nan")
    if period is not None:  # three turns, the peak in the middle one
        value_K = np.concatenate([value_K - period, value_K, value_K + period])
        peak, mean_K = peak + len(mean_K), np.tile(mean_K, 3)
    return _flank(value_K[peak:], mean_K[peak:], half) + _flank(value_K[peak::-1], mean_K[peak::-1], half)


def _flank(value_K: FloatArray, mean_K: FloatArray, half: float) -> float:
    """Distance from the peak, the first point, to where the curve falls to `half`; to the last point if it does not."""
    below = np.flatnonzero(mean_K < half)
    if not len(below):
        return float(abs(value_K[-1] - value_K[0]))
    after = int(below[0])
    share = (mean_K[after - 1] - half) / (mean_K[after - 1] - mean_K[after])
    return float(abs(value_K[after - 1] + share * (value_K[after] - value_K[after - 1]) - value_K[0]))


def _explained(
    bin_N: IntArray, block_N: IntArray, response_NE: FloatArray, permutations: int, seed: int
) -> list[PermutationTest]:
    """Eta² of each expert."""
    block_N = np.unique(block_N, return_inverse=True)[1]
    centred_NE = response_NE - class_means(response_NE, block_N, block_N.max() + 1)[block_N]
    total_E = np.square(centred_NE).sum(axis=0)
    member_KN = np.eye(bin_N.max() + 1)[bin_N].T
    count_K1 = member_KN.sum(axis=1, keepdims=True)

    def explained(order_N: IntArray) -> FloatArray:
        between_E = (np.square(member_KN @ centred_NE[order_N]) / count_K1).sum(axis=0)
        share_E: FloatArray = np.divide(between_E, total_E, out=np.zeros(len(total_E)), where=total_E > _FLAT)
        return share_E

    value_E = explained(np.arange(len(bin_N)))
    null_PE = np.array([explained(order_N) for order_N in permutations_within(block_N, permutations, seed)])
    return [
        PermutationTest(float(value), null_PE[:, expert]) if total > _FLAT else NOT_DEFINED
        for expert, (value, total) in enumerate(zip(value_E, total_E, strict=True))
    ]
