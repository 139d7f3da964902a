"""Mean over runs with its confidence interval."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from smoe_ray.columns import format_cell


class MeanInterval(NamedTuple):
    """Mean over `n` runs with its 95 % interval by Student's t. NaN: no run (mean), fewer than two (the ends)."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        mean, low, high = (format_cell("ami", value) for value in self[:3])
        return f"{mean} ({low} to {high})" if self.n > 1 else mean


def mean_interval(values: Iterable[float]) -> MeanInterval:
    """Of the values that are not NaN."""
    from scipy.special import stdtrit

    run_N = np.array([value for value in values if not np.isnan(value)])
    n = len(run_N)
    if n < 2:
        return MeanInterval(float(run_N[0]) if n else np.nan, np.nan, np.nan, n)
    half = float(stdtrit(n - 1, 0.975) * run_N.std(ddof=1) / np.sqrt(n))
    mean = float(run_N.mean())
    return MeanInterval(mean, mean - half, mean + half, n)
