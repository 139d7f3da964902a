"""Features measured from the pixels of images, and what they explain of an expert's response beyond the class.

Shapes: B images, C channels, H W pixels, F features, E experts, Q classes, P permutations.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.encoding.permutation import (
    NOT_DEFINED,
    PERMUTATIONS,
    PermutationTest,
    balanced_sample,
    permutations_within,
    stratified_folds,
)
from smoe_ray.analysis.expert_routing import require_aligned
from smoe_ray.analysis.latent_separability import FOLDS
from smoe_ray.errors import ResultsError

MOST_IMAGES = 1500
"""Of the sample on which explained variance is tested."""
_LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Of red, green and blue (ITU-R BT.601)."""
_SMOOTH = np.array([3, 10, 3]) / 16
_IMAGES_AT_ONCE = 2000
_DRAWS_AT_ONCE = 100


class PixelFeatures(NamedTuple):
    """Features of images; those that do not vary over the images are left out."""

    names: tuple[str, ...]
    value_BF: FloatArray


def pixel_features(image_BHW: npt.NDArray[Any]) -> PixelFeatures:
    """Features of each image, from its luminance L in [0, 1] unless said otherwise.

    - *horizontal energy*, *diagonal energy*: cos 2θ and sin 2θ of edges at angle θ, weighted by squared gradient, -1 to
      1: horizontal against vertical edges, and those at 45° (counter-clockwise) against those at 135°
    - *edge energy*: mean squared gradient
    - *spatial frequency*: mean frequency of the power spectrum without its mean, cycles per image
    - *contrast*: standard deviation of L
    - *ink*: mean of |L - background|, the background being the median of the outermost pixels
    - *size*: longer side of the box around |L - background| > half of its maximum, as a share of the image's side
    - *mirror symmetry*, *flip symmetry*: correlation of the image with itself mirrored left to right, and upside down
    - *saturation*, *red-green*, *blue-yellow*: mean of (max - min) of the channels, of R - G, and of B - (R + G) / 2;
      of colour images only

    Args:
        image_BHW: (B, H, W) or (B, 3, H, W), uint8 (0 to 255) or floating point (0 to 1).

    Raises:
        ResultsError: the images have another shape.
    """
    if image_BHW.ndim not in (3, 4) or (image_BHW.ndim == 4 and image_BHW.shape[1] != 3):
        raise ResultsError(f"pixel features: images of shape {image_BHW.shape}; pass (B, H, W) or (B, 3, H, W)")
    chunks = [
        _features(image_BHW[start : start + _IMAGES_AT_ONCE]) for start in range(0, len(image_BHW), _IMAGES_AT_ONCE)
    ]
    if not chunks:
        raise ResultsError("pixel features: there is no image")
    value_BF = np.concatenate([np.stack(list(chunk.values()), axis=1) for chunk in chunks])
    varies_F = np.ptp(value_BF, axis=0) > 1e-9
    names = [name for name, varies in zip(chunks[0], varies_F, strict=True) if varies]
    return PixelFeatures(tuple(names), value_BF[:, varies_F])


class BeyondClass(NamedTuple):
    """Variance of each expert's response that pixel features explain beyond the class, on held-out images."""

    images: int
    class_r2_E: FloatArray
    """R² of the response by the class alone."""
    full_r2_E: FloatArray
    """R² by class and features."""
    gain: tuple[PermutationTest, ...]
    """By expert, full_r2 - class_r2, and with the response permuted among images of the same class and fold."""
    mean_gain: PermutationTest
    """Mean over the experts whose response varies; permutations are common to all experts."""


def beyond_class(
    response_BE: npt.NDArray[Any],
    feature_BF: FloatArray,
    label_B: IntArray,
    *,
    permutations: int = PERMUTATIONS,
    most: int = MOST_IMAGES,
    seed: int = 0,
) -> BeyondClass:
    """R²(class + features) - R²(class) by least squares, predictions for 5 held-out folds, on a balanced sample.

    Permuting within class and fold keeps the class means of every fold, and so R²(class); the design stays the same for
    all permutations, which cost one matrix product.

    Raises:
        ResultsError: the arrays have different lengths, or a class has fewer than `FOLDS` images.
    """
    require_aligned("features beyond class", response=response_BE, feature=feature_BF, label=label_B)
    chosen_N = balanced_sample(label_B, most, seed)
    label_N = np.unique(label_B[chosen_N], return_inverse=True)[1]
    if not len(label_N) or np.bincount(label_N).min() < FOLDS:
        raise ResultsError(f"features beyond class: a class has fewer than {FOLDS} images; evaluate on more")
    fold_N = stratified_folds(label_N, FOLDS, seed)
    response_NE = np.asarray(response_BE[chosen_N], np.float64)
    response_NE = response_NE - response_NE.mean(axis=0)
    one_hot_NQ = np.eye(label_N.max() + 1)[label_N]
    feature_NF = feature_BF[chosen_N]
    feature_NF = (feature_NF - feature_NF.mean(axis=0)) / np.maximum(feature_NF.std(axis=0), 1e-9)
    total_E = np.square(response_NE).sum(axis=0)
    by_both = _held_out_fits(np.hstack([one_hot_NQ, feature_NF]), fold_N)
    class_r2_E = _r2(_held_out_fits(one_hot_NQ, fold_N), response_NE, total_E)
    full_r2_E = _r2(by_both, response_NE, total_E)
    order_PN = permutations_within(fold_N * (label_N.max() + 1) + label_N, permutations, seed)
    gain_PE = _r2_of_permuted(by_both, response_NE, total_E, order_PN) - class_r2_E
    gain = tuple(
        PermutationTest(float(full_r2_E[e] - class_r2_E[e]), gain_PE[:, e]) if total_E[e] > 0 else NOT_DEFINED
        for e in range(len(total_E))
    )
    defined = [each for each in gain if not math.isnan(each.value)]
    mean_gain = (
        PermutationTest(float(np.mean([e.value for e in defined])), np.mean([e.null_P for e in defined], axis=0))
        if defined
        else NOT_DEFINED
    )
    return BeyondClass(len(chosen_N), class_r2_E, full_r2_E, gain, mean_gain)


def feature_profile(response_BE: npt.NDArray[Any], feature_BF: FloatArray, label_B: IntArray) -> FloatArray:
    """Correlation of each response with each feature among images of the same class, (E, F); 0 where one is constant.

    Class means are subtracted from both.
    """
    require_aligned("feature profile", response=response_BE, feature=feature_BF, label=label_B)
    response_BE, feature_BF = _within(response_BE, label_B), _within(feature_BF, label_B)
    scale_EF = np.sqrt(np.outer(np.square(response_BE).sum(axis=0), np.square(feature_BF).sum(axis=0)))
    profile_EF: FloatArray = np.divide(
        response_BE.T @ feature_BF, scale_EF, out=np.zeros(scale_EF.shape), where=scale_EF > 1e-12
    )
    return profile_EF


def _within(value_BX: npt.NDArray[Any], label_B: IntArray) -> FloatArray:
    label, inverse_B = np.unique(label_B, return_inverse=True)
    one_hot = np.eye(len(label))[inverse_B]
    value_BX = np.asarray(value_BX, np.float64)
    centred_BX: FloatArray = value_BX - one_hot @ ((one_hot.T @ value_BX) / one_hot.sum(axis=0)[:, None])
    return centred_BX


class _Fit(NamedTuple):
    """Least squares on all folds but one: predictions for `test` are design · (solution · responses of `train`)."""

    test: IntArray
    train: IntArray
    design: FloatArray
    solution: FloatArray


def _held_out_fits(design_ND: FloatArray, fold_N: IntArray) -> list[_Fit]:
    fits = []
    for fold in range(FOLDS):
        test, train = np.flatnonzero(fold_N == fold), np.flatnonzero(fold_N != fold)
        solution = np.asarray(np.linalg.pinv(design_ND[train], rcond=1e-6), np.float64)
        fits.append(_Fit(test, train, design_ND[test], solution))
    return fits


def _r2(fits: list[_Fit], response_NX: FloatArray, total_X: FloatArray) -> FloatArray:
    error_X = np.zeros(len(total_X))
    for fit in fits:
        predicted = fit.design @ (fit.solution @ response_NX[fit.train])
        error_X += np.square(response_NX[fit.test] - predicted).sum(axis=0)
    r2_X: FloatArray = 1 - np.divide(error_X, total_X, out=np.full(len(total_X), np.nan), where=total_X > 0)
    return r2_X


def _r2_of_permuted(fits: list[_Fit], response_NE: FloatArray, total_E: FloatArray, order_PN: IntArray) -> FloatArray:
    """(P, E)."""
    found = []
    for start in range(0, len(order_PN), _DRAWS_AT_ONCE):
        order_NP = order_PN[start : start + _DRAWS_AT_ONCE].T
        permuted = response_NE[order_NP].reshape(len(response_NE), -1)
        r2 = _r2(fits, permuted, np.tile(total_E, order_NP.shape[1]))
        found.append(r2.reshape(order_NP.shape[1], -1))
    return np.concatenate(found)


def _features(image_BHW: npt.NDArray[Any]) -> dict[str, FloatArray]:
    x = image_BHW / 255.0 if image_BHW.dtype == np.uint8 else np.asarray(image_BHW, np.float64)
    colour: dict[str, FloatArray] = {}
    if x.ndim == 4:
        red, green, blue = x[:, 0], x[:, 1], x[:, 2]
        colour = {
            "saturation": np.ptp(x, axis=1).mean(axis=(1, 2)),
            "red-green": (red - green).mean(axis=(1, 2)),
            "blue-yellow": (blue - (red + green) / 2).mean(axis=(1, 2)),
        }
        x = np.tensordot(x, _LUMINANCE, axes=(1, 0))
    ink_BHW = np.abs(x - np.median(_border(x), axis=1)[:, None, None])
    return {
        **_edges(x),
        "spatial frequency": _spatial_frequency(x),
        "contrast": x.std(axis=(1, 2)),
        "ink": ink_BHW.mean(axis=(1, 2)),
        "size": _size(ink_BHW),
        "mirror symmetry": _symmetry(x, axis=2),
        "flip symmetry": _symmetry(x, axis=1),
        **colour,
    }


def _border(x_BHW: FloatArray) -> FloatArray:
    return np.concatenate([x_BHW[:, 0], x_BHW[:, -1], x_BHW[:, 1:-1, 0], x_BHW[:, 1:-1, -1]], axis=1)


def _edges(x_BHW: FloatArray) -> dict[str, FloatArray]:
    from scipy.ndimage import correlate1d

    # Scharr's kernels: of the 3x3 ones those whose angles are least biased by the pixel grid.
    down, right = (
        correlate1d(correlate1d(x_BHW, [-0.5, 0, 0.5], axis, mode="nearest"), _SMOOTH, 3 - axis, mode="nearest")
        for axis in (1, 2)
    )
    # An edge is at right angles to the gradient; y points up, rows down. For gradients at φ, edges at φ + 90°:
    # cos 2θ = -cos 2φ, sin 2θ = -sin 2φ.
    energy = (down**2 + right**2).sum(axis=(1, 2))
    scale = np.where(energy > 1e-12, energy, np.inf)
    return {
        "horizontal energy": (down**2 - right**2).sum(axis=(1, 2)) / scale,
        "diagonal energy": (2 * right * down).sum(axis=(1, 2)) / scale,
        "edge energy": energy / x_BHW[0].size,
    }


def _spatial_frequency(x_BHW: FloatArray) -> FloatArray:
    height, width = x_BHW.shape[1:]
    spectrum = np.abs(np.fft.rfft2(x_BHW - x_BHW.mean(axis=(1, 2), keepdims=True))) ** 2
    # The half spectrum has each frequency once, except those on its first (and, for even widths, last) column.
    spectrum[:, :, 1 : (width + 1) // 2] *= 2
    radius = np.hypot(np.fft.fftfreq(height, 1 / height)[:, None], np.fft.rfftfreq(width, 1 / width))
    power_B = spectrum.sum(axis=(1, 2))
    mean_B: FloatArray = (spectrum * radius).sum(axis=(1, 2)) / np.where(power_B > 1e-12, power_B, np.inf)
    return mean_B


def _size(ink_BHW: FloatArray) -> FloatArray:
    highest_B = ink_BHW.max(axis=(1, 2), keepdims=True)
    inked_BHW = (ink_BHW > highest_B / 2) & (highest_B > 0)
    sides = []
    for axis in (2, 1):
        inked = inked_BHW.any(axis=axis)
        length = inked.shape[1]
        extent = length - inked.argmax(axis=1) - inked[:, ::-1].argmax(axis=1)
        sides.append(np.where(inked.any(axis=1), extent / length, 0.0))
    return np.maximum(*sides)


def _symmetry(x_BHW: FloatArray, axis: int) -> FloatArray:
    centred = x_BHW - x_BHW.mean(axis=(1, 2), keepdims=True)
    variance = np.square(centred).sum(axis=(1, 2))
    product = (centred * np.flip(centred, axis=axis)).sum(axis=(1, 2))
    symmetry_B: FloatArray = product / np.where(variance > 1e-12, variance, np.inf)
    return symmetry_B
