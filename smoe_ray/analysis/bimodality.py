"""Bimodality of the final losses of an arm: are they better described by two normal distributions than by one?

N losses, B samples, S starts of a fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.comparison import holm
from smoe_ray.analysis.curves import FloatArray
from smoe_ray.analysis.outcomes import last_evaluated
from smoe_ray.columns import count

LEAST_LOSSES = 10
"""Fewest runs that are tested: with ten, the power is 0.8 for modes six standard deviations apart and 0.3 for modes
four apart."""

_RESAMPLES = 999
_EM_STEPS = 100
_LEAST_VARIANCE = 1e-6
_SPLITS = (0.1, 0.3, 0.5, 0.7, 0.9)


class BimodalityTest(NamedTuple):
    """Whether the losses of one arm are better described by two normal distributions of equal variance than by one."""

    label: str
    n: int
    means: tuple[float, float]
    """Of the two components, ascending. This and all numbers below are NaN if the arm was not tested."""
    upper_share: float
    """Weight of the upper component."""
    sd: float
    """Common to both components."""
    delta_bic: float
    """BIC of one component minus BIC of two: positive if two describe the losses better."""
    p: float
    """Of the likelihood-ratio test, from the ratio's distribution in normal samples of the same size."""
    p_holm: float
    """Holm-corrected for the number of arms tested."""
    verdict: str
    """``two modes``, ``one mode suffices`` or ``cannot tell (...)``."""


def bimodality_tests(
    results: pd.DataFrame, alpha: float = 0.05, label_of: pd.Series[str] | None = None
) -> tuple[BimodalityTest, ...]:
    """Test whether the final test losses of each arm (hence of each E) are bimodal.

    The verdict is two modes if BIC prefers two components and the parametric-bootstrap likelihood-ratio test
    (McLachlan 1987), Holm-corrected (1979) over the arms, rejects a single one.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        alpha: family-wise error rate.
        label_of: label per trial that replaces its arm, as returned by `arms` or `coarse_arms`.

    Returns:
        One per arm, in the order of arms; arms with fewer than `LEAST_LOSSES` finished runs are not tested.

    Raises:
        ResultsError: no finished trial.
    """
    outcomes = last_evaluated(results)
    label_of = arms(outcomes) if label_of is None else label_of
    losses = outcomes.groupby(outcomes["trial_id"].map(label_of), observed=True)["test.reconstruction"]
    return bimodality_of({str(arm): loss.to_numpy(np.float64) for arm, loss in losses}, alpha)


def bimodality_of(losses: Mapping[str, FloatArray], alpha: float = 0.05) -> tuple[BimodalityTest, ...]:
    """`bimodality_tests` for losses by label."""
    tests = [_bimodality_test(label, loss_N) for label, loss_N in losses.items()]
    p_holm, _ = holm(np.array([test.p for test in tests]), alpha)
    corrected = (test._replace(p_holm=float(p)) for test, p in zip(tests, p_holm, strict=True))
    return tuple(
        test._replace(verdict="two modes") if test.p_holm <= alpha and test.delta_bic > 0 else test
        for test in corrected
    )


def _bimodality_test(label: str, loss_N: FloatArray) -> BimodalityTest:
    n, nan = len(loss_N), float("nan")
    untested = BimodalityTest(label, n, (nan, nan), nan, nan, nan, nan, nan, "cannot tell")
    if n < LEAST_LOSSES:
        return untested._replace(verdict=f"cannot tell ({count(n, 'run')}, {LEAST_LOSSES} needed)")
    mean, sd = loss_N.mean(), loss_N.std()
    if sd <= 1e-12 * abs(mean):
        return untested._replace(verdict="cannot tell (no spread between runs)")
    fit = _fit_two_components(((loss_N - mean) / sd)[None])
    ratio = float(fit.ratio_B[0])
    return BimodalityTest(
        label,
        n,
        (float(mean + sd * fit.low_B[0]), float(mean + sd * fit.high_B[0])),
        float(fit.upper_share_B[0]),
        float(sd * np.sqrt(fit.variance_B[0])),
        ratio - 2 * float(np.log(n)),  # two additional parameters: a mean and a weight
        float((1 + (_null_ratios(n) >= ratio).sum()) / (1 + _RESAMPLES)),
        nan,
        "one mode suffices",
    )


@lru_cache(maxsize=64)
def _null_ratios(n: int) -> FloatArray:
    """Likelihood ratios of normal samples. The statistic ignores location and scale: one set serves all arms."""
    z_BN = np.random.default_rng(0).normal(size=(_RESAMPLES, n))
    z_BN = (z_BN - z_BN.mean(axis=1, keepdims=True)) / z_BN.std(axis=1, keepdims=True)
    return _fit_two_components(z_BN).ratio_B


class _TwoComponents(NamedTuple):
    """Two-component normal mixtures with equal variances, one per sample. Arrays have shape (B,)."""

    ratio_B: FloatArray
    """2 ln (likelihood / likelihood of one normal distribution)."""
    low_B: FloatArray
    high_B: FloatArray
    upper_share_B: FloatArray
    variance_B: FloatArray


def _fit_two_components(z_BN: FloatArray) -> _TwoComponents:
    """Fit by expectation maximisation to samples of mean 0 and variance 1, batched, keeping the best of S starts.

    Variances are equal because the likelihood is unbounded otherwise. (scikit-learn's GaussianMixture finds the same
    fits one at a time, 0.02 s each: minutes for a bootstrap.)
    """
    from scipy.special import expit

    n = z_BN.shape[1]
    z_BN = np.sort(z_BN, axis=1)
    below_S = np.clip(np.round(np.array(_SPLITS) * n), 1, n - 1)
    upper_SBN = np.broadcast_to(
        (np.arange(n) >= below_S[:, None, None]).astype(np.float64), (len(_SPLITS), *z_BN.shape)
    )
    for _ in range(_EM_STEPS):
        upper_SBN = np.clip(upper_SBN, 1e-9, 1 - 1e-9)  # keeps both components' means defined
        share_SB = upper_SBN.mean(axis=2, keepdims=True)
        high_SB = (upper_SBN * z_BN).mean(axis=2, keepdims=True) / share_SB
        low_SB = ((1 - upper_SBN) * z_BN).mean(axis=2, keepdims=True) / (1 - share_SB)
        above_SBN, under_SBN = (z_BN - high_SB) ** 2, (z_BN - low_SB) ** 2
        variance_SB = (upper_SBN * above_SBN + (1 - upper_SBN) * under_SBN).mean(axis=2, keepdims=True)
        variance_SB = np.maximum(variance_SB, _LEAST_VARIANCE)
        joint = np.stack(
            [np.log(1 - share_SB) - under_SBN / (2 * variance_SB), np.log(share_SB) - above_SBN / (2 * variance_SB)]
        )
        upper_SBN = expit(joint[1] - joint[0])
    # One normal distribution of variance 1 has the log likelihood -n/2 (ln 2 pi + 1).
    ratio_SB = 2 * np.logaddexp(*joint).sum(axis=2) + n * (1 - np.log(variance_SB[..., 0]))
    best_B = ratio_SB.argmax(axis=0)
    each_B = np.arange(len(z_BN))
    return _TwoComponents(
        ratio_SB[best_B, each_B],
        *(part[best_B, each_B, 0] for part in (low_SB, high_SB, share_SB, variance_SB)),
    )
