"""Permutation tests: a statistic, its values under permuted data, and the p value. Permutations within groups.

Shapes: B images, P permutations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.intervals import MeanInterval, mean_interval

PERMUTATIONS = 1000
"""Of each test, unless told otherwise; the lowest p value is then 1/1001."""


class PermutationTest(NamedTuple):
    """A statistic of which high values count, and the same with permuted data. NaN and empty: it is not defined."""

    value: float
    null_P: FloatArray

    @property
    def p(self) -> float:
        """One-sided: (1 + number of permutations that reach the value) / (1 + P) (Phipson and Smyth 2010)."""
        if math.isnan(self.value) or not len(self.null_P):
            return math.nan
        # Rounding must not make a permutation that changes nothing miss the value.
        reached = self.null_P >= self.value - 1e-9 * max(1.0, abs(self.value))
        return float((1 + np.count_nonzero(reached)) / (1 + len(self.null_P)))

    @property
    def chance(self) -> float:
        """Mean over permutations."""
        return float(self.null_P.mean()) if len(self.null_P) else math.nan

    @property
    def high(self) -> float:
        """95th percentile of the permutations."""
        return float(np.quantile(self.null_P, 0.95)) if len(self.null_P) else math.nan


NOT_DEFINED = PermutationTest(math.nan, np.empty(0))


class SeedStatistic(NamedTuple):
    """A statistic over seeds: mean and 95 % interval over seeds; chance and p of the mean over permutations."""

    interval: MeanInterval
    chance: float
    p: float


def over_seeds(tests: Sequence[PermutationTest]) -> SeedStatistic:
    """Mean over the seeds in which the statistic is defined, against the mean of their permutations, draw by draw."""
    defined = [test for test in tests if not math.isnan(test.value)]
    interval = mean_interval(test.value for test in defined)
    if not defined or not all(len(test.null_P) for test in defined):
        return SeedStatistic(interval, math.nan, math.nan)
    draws = min(len(test.null_P) for test in defined)
    mean = PermutationTest(interval.mean, np.mean([test.null_P[:draws] for test in defined], axis=0))
    return SeedStatistic(interval, mean.chance, mean.p)


def permutations_within(group_B: IntArray, permutations: int, seed: int) -> IntArray:
    """Random orders of the images that move each only to places of its own group, (P, B)."""
    by_group = np.argsort(group_B, kind="stable")
    # Sorting group + random key within [0, 1) shuffles inside each group.
    key_PB = np.random.default_rng(seed).random((permutations, len(group_B))) + group_B[by_group]
    order_PB = np.empty(key_PB.shape, np.int64)
    order_PB[:, by_group] = by_group[np.argsort(key_PB, axis=1)]
    return order_PB


def stratified_folds(label_B: IntArray, folds: int, seed: int) -> IntArray:
    """Fold of each image, 0 to `folds` - 1; the images of each label are spread evenly over the folds."""
    rng = np.random.default_rng(seed)
    fold_B = np.empty(len(label_B), np.int64)
    for number, label in enumerate(np.unique(label_B)):
        members = rng.permutation(np.flatnonzero(label_B == label))
        fold_B[members] = (np.arange(len(members)) + number) % folds  # else the first folds take every remainder
    return fold_B


def balanced_sample(label_B: IntArray, most: int, seed: int) -> IntArray:
    """Indices, ascending, of as many images of each class that is present, `most` in all; at random."""
    label, count = np.unique(label_B, return_counts=True)
    if not len(label):
        return np.empty(0, np.int64)
    each = max(1, min(int(count.min()), most // len(label)))
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(label_B == one))[:each] for one in label]
    return np.sort(np.concatenate(chosen))


def class_means(value_BX: npt.NDArray[Any], label_B: IntArray, classes: int) -> FloatArray:
    """Mean of the rows of each class, (C, X); NaN for classes without images."""
    count_C = np.bincount(label_B, minlength=classes)
    sum_CX = np.stack(
        [np.bincount(label_B, value_B, classes) for value_B in np.asarray(value_BX, np.float64).T], axis=1
    )
    mean_CX: FloatArray = np.divide(
        sum_CX, count_C[:, None], out=np.full(sum_CX.shape, np.nan), where=count_C[:, None] > 0
    )
    return mean_CX
