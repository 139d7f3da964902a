"""How well the hidden values of each expert separate the classes, against permuted labels, and how alike experts are.

Shapes: B images, E experts, H hidden values, C classes, P permutations, N images of the balanced sample.

Chance is that of a ridge classifier (least squares on one-hot classes): its held-out scores are linear in the labels,
scores = S·Y with S computed once, so that a thousand permutations cost one matrix product. Logistic regression would
have to be fitted anew for each. Labels are permuted within the folds, which are stratified: every permutation then has
the class counts of the data in each fold, and the test is exact for exchangeable images.
"""

from __future__ import annotations

import math
from itertools import combinations
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

MOST_IMAGES = 1500
"""Of the balanced sample."""
LEAST_PER_CLASS = 2 * FOLDS
"""Images of a class below which it is left out of an expert's routed images."""
_RIDGE = 0.01
"""Penalty per training image, of standardised hidden values."""
_LOGISTIC_C = 0.1
_DRAWS_AT_ONCE = 100


class HiddenSeparability(NamedTuple):
    """Separability of the classes from the hidden values of one expert, on one balanced set of images."""

    images: int
    classes: int
    accuracy: float
    """Of multinomial logistic regression (L2, C = 0.1, standardised values) on held-out images of 5 folds."""
    ridge: PermutationTest
    """Accuracy of the ridge classifier on the same folds, and with permuted labels."""
    fisher: PermutationTest
    """tr(S_W⁻¹ S_B), within- and between-class covariance of standardised values, 0.01 on the diagonal of S_W. It
    grows with H / N: read it against its chance."""
    d_prime: float
    """Mean over pairs of classes of d' of the difference of their held-out ridge scores: the distance between the two
    classes' means in pooled standard deviations. 0 at chance, and negative by chance."""
    correct_N: npt.NDArray[np.bool_]
    """Whether the ridge classifier is right about each held-out image."""


class ExpertSeparability(NamedTuple):
    """Separability of the classes from each expert's hidden values."""

    everything: tuple[HiddenSeparability, ...]
    """By expert, on the same images, routed to it or not."""
    routed: tuple[HiddenSeparability, ...]
    """By expert, on the images routed to it, balanced over their classes of at least 10 images. Experts with fewer than
    two such classes: NaN. The sets differ, so compare each only with its own chance."""
    adjusted_p_E: FloatArray
    """p of the ridge accuracy on all images, corrected for the number of experts: against the highest of all experts in
    each permutation (Westfall and Young 1993)."""
    spread: PermutationTest
    """Standard deviation over experts (ddof = 1) of the ridge accuracy on all images. Null: experts are alike, so that
    whether the classifier is right about an image is exchanged among experts (as in Cochran's Q). A little liberal, as
    images of a fold share a classifier: of alike experts it rejects 5 to 7 % at 0.05, but up to 15 % where the classes
    cannot be separated at all."""


def expert_separability(
    hidden_EBH: npt.NDArray[Any],
    label_B: IntArray,
    expert_B: IntArray,
    *,
    permutations: int = PERMUTATIONS,
    most: int = MOST_IMAGES,
    seed: int = 0,
) -> ExpertSeparability:
    """Measure every expert on all images and on its own.

    Args:
        hidden_EBH: hidden values of every expert for every image; other dimensions are flattened.
        label_B: class of each image.
        expert_B: expert of each image.
        permutations: P, of labels.
        most: images of a balanced sample.
        seed: of samples, folds and permutations; all experts share them.

    Raises:
        ResultsError: the arrays have different lengths.
    """
    from threadpoolctl import threadpool_limits

    require_aligned("separability per expert", hidden=hidden_EBH[0], label=label_B, expert=expert_B)
    chosen_N = balanced_sample(label_B, most, seed)
    routed = []
    # Products of this size gain nothing from several threads where trials run side by side.
    with threadpool_limits(1):
        everything = tuple(
            _separability(hidden_BH[chosen_N], label_B[chosen_N], permutations, seed) for hidden_BH in hidden_EBH
        )
        for expert, hidden_BH in enumerate(hidden_EBH):
            own_N = _own_images(expert, label_B, expert_B, most, seed)
            routed.append(_separability(hidden_BH[own_N], label_B[own_N], permutations, seed))
    return ExpertSeparability(everything, tuple(routed), _adjusted(everything), _spread(everything, permutations, seed))


def hidden_separability(
    hidden_NH: npt.NDArray[Any], label_N: IntArray, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> HiddenSeparability:
    """Separability of the classes from one array of hidden values. NaN for fewer than two classes or `FOLDS` of each.

    Args:
        hidden_NH: one row per image; other dimensions are flattened.
        label_N: class of each image.
        permutations: P, of labels.
        seed: of folds and permutations.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return _separability(hidden_NH, label_N, permutations, seed)


def _separability(hidden_NH: npt.NDArray[Any], label_N: IntArray, permutations: int, seed: int) -> HiddenSeparability:
    classes, label_N, count_C = np.unique(label_N, return_inverse=True, return_counts=True)
    if len(classes) < 2 or count_C.min() < FOLDS:
        nothing = np.empty(0, np.bool_)
        return HiddenSeparability(len(label_N), len(classes), math.nan, NOT_DEFINED, NOT_DEFINED, math.nan, nothing)
    x_NH = _standardised(hidden_NH)
    fold_N = stratified_folds(label_N, FOLDS, seed)
    label_PN = label_N[np.concatenate([np.arange(len(label_N))[None], permutations_within(fold_N, permutations, seed)])]
    accuracy = _logistic_accuracy(x_NH, label_N, fold_N)
    smoother_NN = _held_out_smoother(x_NH, fold_N)
    score_NC = smoother_NN @ np.eye(len(classes), dtype=np.float32)[label_N]
    accuracy_P = _ridge_accuracies(smoother_NN, label_PN, len(classes))
    fisher_P = _fisher(x_NH, label_PN, count_C)
    return HiddenSeparability(
        len(label_N),
        len(classes),
        accuracy,
        PermutationTest(float(accuracy_P[0]), accuracy_P[1:]),
        PermutationTest(float(fisher_P[0]), fisher_P[1:]),
        _d_prime(score_NC, label_N),
        score_NC.argmax(axis=1) == label_N,
    )


def _own_images(expert: int, label_B: IntArray, expert_B: IntArray, most: int, seed: int) -> IntArray:
    own = np.flatnonzero(expert_B == expert)
    count_C = np.bincount(label_B[own], minlength=1)
    own = own[count_C[label_B[own]] >= LEAST_PER_CLASS]
    return own[balanced_sample(label_B[own], most, seed)]


def _standardised(hidden_NH: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Mean 0 and variance 1 over images; constant values become 0."""
    x_NH = np.asarray(hidden_NH, np.float32).reshape(len(hidden_NH), -1)
    x_NH = x_NH - x_NH.mean(axis=0)
    sd_H = x_NH.std(axis=0)
    standardised: npt.NDArray[np.float32] = x_NH / np.where(sd_H > 1e-6, sd_H, np.inf)
    return standardised


def _logistic_accuracy(x_NH: npt.NDArray[np.float32], label_N: IntArray, fold_N: IntArray) -> float:
    from sklearn.linear_model import LogisticRegression

    right = 0
    for fold in range(FOLDS):
        inside_N = fold_N == fold
        model = LogisticRegression(C=_LOGISTIC_C, max_iter=1000, tol=1e-3)
        # float64: in float32 the line search of lbfgs stalls.
        model.fit(x_NH[~inside_N].astype(np.float64), label_N[~inside_N])
        right += int(np.count_nonzero(model.predict(x_NH[inside_N]) == label_N[inside_N]))
    return right / len(label_N)


def _held_out_smoother(x_NH: npt.NDArray[np.float32], fold_N: IntArray) -> npt.NDArray[np.float32]:
    """S (N, N): S·Y are the scores of each image by the ridge regression of Y on the images of the other folds."""
    from scipy.linalg import cho_factor, cho_solve

    smoother_NN = np.zeros((len(x_NH), len(x_NH)), np.float32)
    for fold in np.unique(fold_N):
        test, train = np.flatnonzero(fold_N == fold), np.flatnonzero(fold_N != fold)
        mean_H = x_NH[train].mean(axis=0)
        x, held_out = x_NH[train] - mean_H, x_NH[test] - mean_H
        penalty = _RIDGE * len(train)
        if x.shape[1] <= len(train):
            gram = x.T @ x
            gram[np.diag_indices_from(gram)] += penalty
            block = held_out @ cho_solve(cho_factor(gram), x.T)
        else:  # the same by the matrix inversion lemma
            gram = x @ x.T
            gram[np.diag_indices_from(gram)] += penalty
            block = cho_solve(cho_factor(gram), x @ held_out.T).T
        # Rows of a centred x sum to 0: the mean of Y is added.
        smoother_NN[np.ix_(test, train)] = block + 1 / len(train)
    return smoother_NN


def _ridge_accuracies(smoother_NN: npt.NDArray[np.float32], label_PN: IntArray, classes: int) -> FloatArray:
    one_hot = np.eye(classes, dtype=np.float32)
    found = []
    for start in range(0, len(label_PN), _DRAWS_AT_ONCE):
        label_NP = label_PN[start : start + _DRAWS_AT_ONCE].T
        score_NPC = (smoother_NN @ one_hot[label_NP].reshape(len(label_NP), -1)).reshape(*label_NP.shape, classes)
        found.append((score_NPC.argmax(axis=2) == label_NP).mean(axis=0))
    return np.concatenate(found)


def _fisher(x_NH: npt.NDArray[np.float32], label_PN: IntArray, count_C: IntArray) -> FloatArray:
    """tr(S_W⁻¹ S_B) for each row of labels.

    With values whitened by the total covariance T = S_W + S_B, the singular values s of the class means, weighted by
    the root of their shares, give it: sum s² / (1 - s²).
    """
    from scipy.linalg import eigh

    total = (x_NH.T @ x_NH / len(x_NH)).astype(np.float64)
    total[np.diag_indices_from(total)] += _RIDGE
    value_H, vector_HH = eigh(total)
    white_NH = x_NH @ (vector_HH / np.sqrt(value_H)).astype(np.float32)
    one_hot = np.eye(len(count_C), dtype=np.float32)
    weight_C = (1 / np.sqrt(count_C * len(x_NH))).astype(np.float32)
    found = []
    for start in range(0, len(label_PN), _DRAWS_AT_ONCE):
        label_pN = label_PN[start : start + _DRAWS_AT_ONCE]
        sum_pCH = (one_hot[label_pN].transpose(0, 2, 1).reshape(-1, len(x_NH)) @ white_NH).reshape(
            len(label_pN), len(count_C), -1
        )
        mean_pCH = sum_pCH * weight_C[:, None]
        square_pC = np.linalg.eigvalsh(mean_pCH @ mean_pCH.transpose(0, 2, 1)).astype(np.float64).clip(0, 1 - 1e-6)
        found.append((square_pC / (1 - square_pC)).sum(axis=1))
    return np.concatenate(found)


def _d_prime(score_NC: npt.NDArray[Any], label_N: IntArray) -> float:
    found = []
    for one, other in combinations(range(score_NC.shape[1]), 2):
        difference_N = score_NC[:, one] - score_NC[:, other]
        first, second = difference_N[label_N == one], difference_N[label_N == other]
        pooled = math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
        found.append(float(first.mean() - second.mean()) / pooled if pooled > 0 else 0.0)
    return float(np.mean(found))


def _adjusted(everything: tuple[HiddenSeparability, ...]) -> FloatArray:
    highest_P = np.max([found.ridge.null_P for found in everything], axis=0)
    return np.array([PermutationTest(found.ridge.value, highest_P).p for found in everything])


def _spread(everything: tuple[HiddenSeparability, ...], permutations: int, seed: int) -> PermutationTest:
    correct_NE = np.stack([found.correct_N for found in everything], axis=1).astype(np.float32)
    if correct_NE.shape[1] < 2 or not len(correct_NE):
        return NOT_DEFINED
    rng = np.random.default_rng(seed)
    accuracy_PE = np.array([rng.permuted(correct_NE, axis=1).mean(axis=0) for _ in range(permutations)], np.float64)
    return PermutationTest(float(correct_NE.mean(axis=0).std(ddof=1)), accuracy_PE.std(axis=1, ddof=1))
