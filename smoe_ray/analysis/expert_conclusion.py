"""Does a study determine the best number of experts? If not: why, and which runs to add."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.curves import FloatArray
from smoe_ray.analysis.expert_forecast import TIED_WITHIN, FittedSurface
from smoe_ray.analysis.surface_fit import (
    LEAST_CELLS,
    LEAST_COUNTS,
    LEAST_LEVELS,
    Cells,
    levels_of,
)

_LEAST_REPLICATES = 5
"""Fewest degrees of freedom for an estimate of the noise."""
_FARTHEST = 4.0
"""Largest factor by which the surface is extrapolated beyond the studied amounts."""
_WIDEST = 4.0
"""Ratio of an interval's ends above which it is too wide for a conclusion."""
_MISFIT = 1.5
"""RMSE of the fit, in multiples of the noise floor, above which the form does not fit the runs."""
_MOST_ADDED = 6


class MissingRuns(NamedTuple):
    """Runs to add to a study: every expert count at every amount."""

    experts: tuple[int, ...]
    """Configured ones, whichever the study counts: nobody can order active experts."""
    amounts: tuple[int, ...]
    runs: int
    """Runs (seeds) per cell."""


class Conclusion(NamedTuple):
    """Whether the study determines the best number of experts."""

    kind: Literal["answer", "edge", "cannot tell"]
    """*edge*: the best count is the smallest or largest studied, so no optimum was observed."""
    reason: str = ""
    """Why there is no answer, or which edge; empty if there is an answer."""
    missing: MissingRuns | None = None
    """What to add to the study; None if there is an answer."""


ANSWER = Conclusion("answer")


def too_small(cells: Cells, counted: str, configured: Sequence[int], amount: float) -> Conclusion | None:
    """The conclusion if the cells are too few to fit a surface, else None.

    Args:
        cells: of the runs, by the experts that are counted.
        counted: ``active`` or ``configured``.
        configured: numbers of experts that the runs were configured with, ascending.
        amount: the requested amount.
    """
    counts, level_L = np.unique(cells.experts_C).tolist(), levels_of(cells.amount_C)
    new_counts: list[int] = []
    new_amounts: list[float] = []
    reasons = []
    if len(counts) < LEAST_COUNTS:
        doublings = {2**power for power in range(max(configured).bit_length() + LEAST_COUNTS - 1)}
        new_counts = sorted(doublings - set(configured))
        reasons.append(f"{LEAST_COUNTS} counts of {counted} experts (it has {len(counts)})")
    if len(level_L) < LEAST_LEVELS:
        halvings = max(level_L[-1], amount) / 2.0 ** np.arange(LEAST_LEVELS + 1)
        known = np.abs(np.log(halvings / level_L[:, None])).min(axis=0) < np.log(1.5)
        new_amounts = halvings[~known][: LEAST_LEVELS - len(level_L)].tolist()
        reasons.append(f"{LEAST_LEVELS} amounts of training (it has {len(level_L)})")
    if not reasons and len(cells.n_C) < LEAST_CELLS:
        reasons.append(f"{LEAST_CELLS} cells (it has {len(cells.n_C)})")
    if not reasons:
        return None
    # Only the new values, unless both axes lack some: then new and old values must be crossed.
    experts = new_counts if new_counts and not new_amounts else [*configured, *new_counts]
    amounts = new_amounts if new_amounts and not new_counts else [*level_L, *new_amounts]
    return _cannot_tell(f"a fit needs {' and '.join(reasons)}", experts, amounts)


def conclude(runs: pd.DataFrame, surface: FittedSurface, amount: float) -> Conclusion:
    """Whether the fitted surface determines the best count at `amount`.

    Args:
        runs: the fitted runs, from `check_runs`; if they have a column seed, runs of a single seed are inconclusive.
        surface: the fit and its forecast at `amount`.
        amount: training images or steps, as in `runs`.
    """
    fit, forecast, level_L = surface.fit, surface.forecast, surface.level_L
    counts = runs["configured"].tolist()
    least, most = int(forecast.count_K[0]), int(forecast.count_K[-1])
    low, high = forecast.interval
    ordered_least, ordered_most = min(counts), max(counts)
    near = _around(level_L, amount)

    if "seed" in runs.columns and runs["seed"].nunique() == 1:
        return _cannot_tell("all its runs have the same seed, so the noise is unknown", counts, level_L, runs=2)
    if fit.noise.degrees < _LEAST_REPLICATES:
        return _cannot_tell(
            "too few of its cells have two runs or more, so the noise is unknown", counts, level_L, runs=2
        )
    if not level_L[0] / _FARTHEST <= amount <= level_L[-1] * _FARTHEST:
        reason = f"that is more than a factor of {_FARTHEST:g} beyond its {level_L[0]:,.0f} to {level_L[-1]:,.0f}"
        return _cannot_tell(reason, counts, near)
    unexplained = float(np.sqrt(max(0.0, fit.rmse**2 - fit.noise.sd**2)))
    if fit.rmse > _MISFIT * fit.noise.sd and unexplained > TIED_WITHIN:
        reason = f"the fitted form has an RMSE of {fit.rmse:.2g} at a noise floor of {fit.noise.sd:.2g}"
        return _cannot_tell(reason, counts, near)
    if forecast.tied_K.all():
        return _cannot_tell(
            f"{least} to {most} are all tied within {TIED_WITHIN:g}", (2 * ordered_most, 4 * ordered_most), near
        )
    if high > _WIDEST * low or (low, high) == (least, most):
        inside = np.geomspace(*configured_for(runs, (low, high)), 4).round().astype(int)
        return _cannot_tell(f"its interval is too wide, {low} to {high} (95 %)", inside, near)
    if forecast.best == most:
        added = _cannot_tell("the largest studied count", (round(1.5 * ordered_most), 2 * ordered_most), near)
        return added._replace(kind="edge")
    if forecast.best == least > 1:
        added = _cannot_tell("the smallest studied count", (1, max(1, ordered_least // 2)), near)
        return added._replace(kind="edge")
    return ANSWER


def configured_for(runs: pd.DataFrame, interval: tuple[int, int]) -> tuple[int, int]:
    """Smallest and largest configured count of the runs whose counted experts lie in `interval`, or lie next to it."""
    low, high = interval
    inside = runs.loc[runs["experts"].between(low, high), "configured"]
    if inside.empty:
        distance = np.log(runs["experts"] / np.sqrt(low * high)).abs()
        inside = runs.loc[distance == distance.min(), "configured"]
    return int(inside.min()), int(inside.max())


def _cannot_tell(reason: str, experts: Iterable[int], amounts: Iterable[float], runs: int = 3) -> Conclusion:
    return Conclusion("cannot tell", reason, MissingRuns(_few(experts), _few(amounts), runs))


def _around(level_L: FloatArray, amount: float) -> tuple[float, ...]:
    """The studied amounts next to `amount`, or `amount` itself if it is outside their range."""
    if not level_L[0] <= amount <= level_L[-1]:
        return (amount,)
    return float(level_L[level_L <= amount][-1]), float(level_L[level_L >= amount][0])


def _few(values: Iterable[float]) -> tuple[int, ...]:
    """At most six of the values, ascending, evenly spaced by rank."""
    ascending = sorted({round(value) for value in values})
    chosen = np.linspace(0, len(ascending) - 1, min(len(ascending), _MOST_ADDED)).round().astype(int)
    return tuple(ascending[place] for place in chosen.tolist())
