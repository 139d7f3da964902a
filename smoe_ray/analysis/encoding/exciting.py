"""The most exciting inputs of each expert: which they are, and whether they are specific to it.

Shapes: T targets, E experts, S starts, K best test images, B images, I an image: (H, W), or (C, H, W) in colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
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


class ExcitingInputs(NamedTuple):
    """What excites each expert most, for one target; experts with test images first, each group by number."""

    target: str
    expert_E: IntArray
    alive_E: npt.NDArray[np.bool_]
    """Whether the expert has test images."""
    image_EI: npt.NDArray[np.float32]
    """Found on pixels, in [0, 1]; of the starts the one with the highest value."""
    decoded_EI: npt.NDArray[np.float32]
    """What the expert makes of the latent vector that excites it most."""
    test_KEI: npt.NDArray[np.uint8]
    """Test images, the best of each expert first."""
    beaten: float
    """Share of the experts with test images whose image found on pixels has a higher value than their best test
    image; NaN without such experts."""
    specificity: Specificity


def exciting_inputs(
    arrays: Mapping[str, npt.NDArray[Any]],
    targets: Sequence[str],
    image_BI: npt.NDArray[np.uint8],
    *,
    test_images: int = 3,
) -> tuple[ExcitingInputs, ...]:
    """The most exciting inputs of a probe, by target.

    Args:
        arrays: of a probe: expert (B,), exciting_image (T, E, S, I), exciting_value (T, E, S), exciting_decoded
            (T, E, I), data_image and data_value (T, E, K), cross (T, E, E).
        targets: T names.
        image_BI: the test images.
        test_images: number of test images per expert, of K.
    """
    experts = arrays["cross"].shape[1]
    is_alive_E = np.bincount(arrays["expert"], minlength=experts) > 0
    order_E = np.argsort(~is_alive_E, kind="stable")
    found = []
    for t, target in enumerate(targets):
        value_ES = arrays["exciting_value"][t]
        best_EI = arrays["exciting_image"][t][np.arange(experts), value_ES.argmax(axis=1)]
        is_beaten_E = value_ES.max(axis=1) > arrays["data_value"][t].max(axis=1)
        found.append(
            ExcitingInputs(
                target,
                order_E,
                is_alive_E[order_E],
                best_EI[order_E].astype(np.float32),
                arrays["exciting_decoded"][t][order_E].astype(np.float32),
                image_BI[arrays["data_image"][t][order_E, :test_images].T],
                float(is_beaten_E[is_alive_E].mean()) if is_alive_E.any() else np.nan,
                input_specificity(arrays["cross"][t]),
            )
        )
    return tuple(found)
