"""Is one arm better than another? Differences with confidence interval, effect size, corrected p value and verdict.

N runs of an arm, M runs of its reference. A *cell* is one combination of the settings that the two arms share.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.curves import FloatArray
from smoe_ray.analysis.datasets import dataset_names, dataset_paths
from smoe_ray.analysis.experts import NUM_EXPERTS, is_supervised
from smoe_ray.analysis.outcomes import (
    READ_OUT,
    comparable_metric,
    last_evaluated,
    loss_unit,
    of_families_with,
    require,
    test_gating,
)
from smoe_ray.columns import LOSS_COLUMNS
from smoe_ray.errors import ResultsError

CELL_PATHS = (NUM_EXPERTS, "data.fraction", "data.train_per_class")
"""Default spec paths that separate cells, not arms: the two axes of a scaling study."""

LEAST_RUNS = 3
"""Fewest pairs, or runs per arm, that are tested: two leave one degree of freedom, with which only a difference of
nine standard errors would be significant."""

LEAST_RUNS_FOR_BOOTSTRAP = 20
"""Fewest pairs, or runs per arm, for which the bootstrap replaces Student's t. In 3,000 simulated nulls at level 0.05
its type I error is 0.084 for skewed (log-normal) samples of 20, against 0.102 for t, and never above that of t;
resampling three to ten runs only repeats the few values there are."""

_RESAMPLES = 9_999
_NO_SPREAD = 1e-12


class CellOutcomes(NamedTuple):
    """Outcomes of an arm and its reference in one cell."""

    label: str
    arm: str
    reference: str
    arm_N: FloatArray
    reference_M: FloatArray
    paired: bool
    """Whether the two arrays are matched element by element (same seeds, so N = M)."""
    left_out: int = 0
    """Finished runs of this cell that are in neither array."""


class Difference(NamedTuple):
    """Mean of an arm minus mean of its reference. Values that cannot be computed are NaN."""

    label: str
    """Of the cell."""
    arm: str
    reference: str
    paired: bool
    n_arm: int
    n_reference: int
    """Equal to `n_arm`, the number of pairs, if paired."""
    left_out: int
    """Runs without a partner of the same seed, or without a value."""
    mean_arm: float
    mean_reference: float
    estimate: float
    low: float
    high: float
    level: float
    """Confidence level of the interval, set by the cell's step in Holm's procedure; 0.95 for one cell."""
    interval: Literal["t", "bootstrap", "none"]
    effect: float
    """Hedges' g: the difference in pooled standard deviations or, if paired, in s.d. of the pairwise differences."""
    p: float
    p_holm: float
    verdict: str
    """``lower`` or ``higher``; else ``equivalent (within the margin)`` if that was tested and found, or ``not
    distinguishable``; ``cannot tell (why)`` where nothing was tested."""
    p_equivalent: float | None = None
    """Of two one-sided tests that the difference is within the margin, Holm-corrected; None where not tested."""

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes zero, which is the same as p_holm <= alpha."""
        return bool(self.low > 0 or self.high < 0)


class ArmComparison(NamedTuple):
    """Arms of a study compared with a reference arm, cell by cell."""

    metric: str
    gating: str
    unit: str
    """Of the metric, if it is the test loss or the PSNR; else empty."""
    reference: str
    arms: tuple[str, ...]
    """Compared with the reference, in the order of colours."""
    alpha: float
    """Family-wise error rate: bounds the probability of any false verdict among all differences."""
    differences: tuple[Difference, ...]
    """In the order of arms, then cells."""
    one_sided: tuple[str, ...]
    """Omitted cells, as ``arm: cell``, in which only one of the two arms has runs."""
    unfinished: int
    """Trials omitted because they have not finished."""
    x_limits: tuple[float, float]
    """Contain zero and every finite end of an interval."""

    @property
    def measure(self) -> str:
        """The metric in words."""
        return measure_of(self.metric)


def row_names(differences: Sequence[Difference]) -> list[str]:
    """Arm and cell of each difference, without what all of them share."""
    if len({difference.label for difference in differences}) == 1:
        return [difference.arm for difference in differences]
    if len({difference.arm for difference in differences}) == 1:
        return [difference.label for difference in differences]
    return [f"{difference.arm}; {difference.label}" for difference in differences]


def measure_of(metric: str) -> str:
    """A metric in words."""
    return {"test.reconstruction": "test loss", "test.psnr": "PSNR", READ_OUT: "linear read-out"}.get(metric, metric)


class ComparableArms(NamedTuple):
    """The arms of finished trials, and a metric in which each cell's runs can be compared."""

    outcomes: pd.DataFrame
    """The last evaluated row of each trial, with its label in column ``arm``."""
    labels: list[str]
    metric: str
    cells: tuple[str, ...]
    """Spec paths that separate cells."""

    @property
    def unit(self) -> str:
        """Of the metric, if it is one that arms are compared by unasked; else empty."""
        units = {
            "test.reconstruction": loss_unit(self.outcomes),
            "test.psnr": "dB, higher is better",
            READ_OUT: "share of the test images, higher is better",
        }
        return units.get(self.metric, "")

    @property
    def margin(self) -> float | None:
        """Within which the study calls test losses equivalent; None where it names no margin, or for another metric."""
        margin: float | None = self.outcomes.attrs.get("equivalence_margin")
        return margin if self.metric == "test.reconstruction" else None

    def pair(self, arm: str, reference: str) -> Iterator[CellOutcomes]:
        """Every cell that either of two arms has; an arm without runs in it has an empty array."""
        of = self.outcomes["arm"]
        return _cells(self.outcomes[of == arm], self.outcomes[of == reference], self.metric, self.cells)


def comparable_arms(
    results: pd.DataFrame, metric: str | None = None, cells: Collection[str] = CELL_PATHS
) -> ComparableArms:
    """Label the finished trials, all but the settings that separate cells.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        metric: column of `results`; None: that of `comparable_metric`.
        cells: dotted spec paths that separate cells instead of arms; several datasets always do.

    Raises:
        ResultsError: no finished trial, or a loss as the metric whose unit differs between trials.
    """
    outcomes = last_evaluated(results, None)
    # Each dataset is a cell of its own, so only losses of the same dataset meet.
    met = [of_one for _, of_one in outcomes.groupby(outcomes["trial_id"].map(dataset_names(outcomes)))]
    comparable = max((comparable_metric(one) for one in met), key=("test.reconstruction", READ_OUT, "test.psnr").index)
    metric = metric or comparable
    require(results, ("trial_id", "seed", metric))
    outcomes = of_families_with(outcomes, metric)
    if metric in LOSS_COLUMNS and comparable == "test.psnr":
        raise ResultsError(f"{metric} has no common unit: {loss_unit(outcomes)}; compare {comparable}")
    cells = (*cells, *dataset_paths(outcomes))
    label_of = arms(outcomes, cells)
    outcomes = outcomes.assign(arm=outcomes["trial_id"].map(label_of).astype(str))
    outcomes.attrs = dict(results.attrs)
    return ComparableArms(outcomes, list(label_of.cat.categories), metric, cells)


def compare_arms(
    results: pd.DataFrame,
    arm: str | None = None,
    reference: str | None = None,
    *,
    metric: str | None = None,
    cells: Collection[str] = CELL_PATHS,
    alpha: float = 0.05,
) -> ArmComparison:
    """Compare arms on `metric` at the last evaluated epoch of finished trials.

    In each cell runs are paired by seed if both arms have at least three seeds in common, each once; otherwise all runs
    are compared by Welch's t. Supervised trials have as many experts as classes, so they serve as one baseline for
    every expert count. Statistics as in `compare_cells`; the family is all cells of all arms of this call.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        arm: label as `arms` returns it with `cells` ignored; None: every arm except the reference.
        reference: another such label; None: the supervised arm or, if there is none, the first.
        metric: column of `results`; None: the test loss or, where its unit differs between trials, the PSNR.
        cells: dotted spec paths that separate cells instead of arms; several datasets always do.
        alpha: family-wise error rate.

    Raises:
        ResultsError: no finished trial, only one arm, an unknown label, no cell in common, or a loss as the metric
            whose unit differs between trials.
    """
    found_arms = comparable_arms(results, metric, cells)
    outcomes, labels, metric = found_arms.outcomes, found_arms.labels, found_arms.metric
    if len(labels) == 1:
        raise ResultsError(
            f"all finished trials belong to one arm ('{labels[0]}'){_no_arms(cells)}; add a second arm: another "
            "study, or an axis of this one, e.g. objective.name: [blend, likelihood]"
        )
    _check_labels(arm, reference, labels)
    reference = reference or _default_reference(outcomes, [label for label in labels if label != arm])
    compared = [label for label in labels if label != reference] if arm is None else [arm]
    found: list[CellOutcomes] = []
    one_sided: list[str] = []
    for label in compared:
        for cell in found_arms.pair(label, reference):
            if len(cell.arm_N) and len(cell.reference_M):
                found.append(cell)
            else:
                one_sided.append(f"{label if len(cell.arm_N) else reference}: {cell.label}")
    if not found:
        raise ResultsError(
            f"'{reference}' has no cell in common with {' or '.join(map(repr, compared))} "
            f"({', '.join(dict.fromkeys(one_sided))}); run both arms at the same {', '.join(cells)}"
        )
    differences = compare_cells(found, alpha, found_arms.margin)
    return ArmComparison(
        metric,
        test_gating(outcomes),
        found_arms.unit,
        reference,
        tuple(compared),
        alpha,
        differences,
        tuple(dict.fromkeys(one_sided)),
        results["trial_id"].nunique() - len(outcomes),
        difference_limits(differences),
    )


def _no_arms(cells: Collection[str]) -> str:
    return f", as different values of {', '.join(cells)} make no arms" if cells else ""


def _check_labels(arm: str | None, reference: str | None, labels: Sequence[str]) -> None:
    for label in (arm, reference):
        if label is not None and label not in labels:
            near = difflib.get_close_matches(label, labels, n=1, cutoff=0.3)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ResultsError(f"no arm '{label}'; the arms are {', '.join(map(repr, labels))}{hint}")
    if arm is not None and arm == reference:
        raise ResultsError(f"'{arm}' against itself; choose two of {', '.join(map(repr, labels))}")


def _default_reference(outcomes: pd.DataFrame, labels: Sequence[str]) -> str:
    supervised = set(outcomes.loc[is_supervised(outcomes), "arm"])
    return next((label for label in labels if label in supervised), labels[0])


def _cells(arm: pd.DataFrame, reference: pd.DataFrame, metric: str, paths: Collection[str]) -> Iterator[CellOutcomes]:
    """Every cell that either arm has; an arm without runs in it has an empty array."""
    names = str(arm["arm"].iloc[0]), str(reference["arm"].iloc[0])
    if NUM_EXPERTS in paths:
        if is_supervised(reference).all():
            reference = _at_every_expert_count(reference, arm)
        elif is_supervised(arm).all():
            arm = _at_every_expert_count(arm, reference)
    both = pd.concat([arm, reference])
    others = [column for column in both.columns.str.removeprefix("config.") if column not in paths]
    cell_of = arms(both, ignore=others)
    for cell in cell_of.cat.categories:
        sides = (side[side["trial_id"].map(cell_of) == cell] for side in (arm, reference))
        yield cell_by_seed(str(cell), *names, *(side.set_index("seed")[metric] for side in sides))


def _at_every_expert_count(baseline: pd.DataFrame, swept: pd.DataFrame) -> pd.DataFrame:
    """Copies of supervised runs, one per expert count of `swept`."""
    column = f"config.{NUM_EXPERTS}"
    if column not in swept or is_supervised(swept).all():
        return baseline
    copies = (
        baseline.assign(**{column: count, "trial_id": baseline["trial_id"] + f" at {count}"})
        for count in swept[column].unique()
    )
    return pd.concat(list(copies))


def cell_by_seed(
    label: str, arm: str, reference: str, arm_N: pd.Series[Any], reference_M: pd.Series[Any]
) -> CellOutcomes:
    """Runs of a cell, indexed by seed: paired if the seeds allow it."""
    runs = len(arm_N) + len(reference_M)
    arm_N, reference_M = arm_N.dropna(), reference_M.dropna()
    seeds = arm_N.index.intersection(reference_M.index).sort_values()
    paired = arm_N.index.is_unique and reference_M.index.is_unique and len(seeds) >= LEAST_RUNS
    if paired:
        arm_N, reference_M = arm_N[seeds], reference_M[seeds]
    left_out = runs - len(arm_N) - len(reference_M)
    return CellOutcomes(
        label, arm, reference, arm_N.to_numpy(np.float64), reference_M.to_numpy(np.float64), paired, left_out
    )


def compare_cells(
    cells: Sequence[CellOutcomes], alpha: float = 0.05, margin: float | None = None
) -> tuple[Difference, ...]:
    """Test every cell; the probability of any false difference is at most `alpha`, as is that of any false equivalence.

    *Statistic*: difference of means over its standard error, paired or Welch's. *Null distribution*: Student's t with
    n - 1 degrees of freedom if paired, min(N, M) - 1 otherwise, which is conservative at any ratio of variances (Mickey
    and Brown 1966): with Welch's own degrees of freedom and 3 against 10 runs, the type I error is 0.014 at the level
    0.0025 that a family of 20 requires. From `LEAST_RUNS_FOR_BOOTSTRAP` runs on, the symmetric studentised bootstrap
    (Hall 1988): 9,999 resamples, drawn per arm. Percentile and BCa bootstraps are too liberal at such sizes: their type
    I error at level 0.05 is 0.07 for normal samples of both 20 and 40 runs.

    *Correction*: Holm 1979 over the cells that can be tested. Each interval has the level of its cell's step,
    1 - alpha / (cells - steps passed), at least 1 - alpha: it excludes zero exactly if Holm rejects.

    *Effect*: Hedges' g with the exact small-sample factor (Hedges 1981); if paired, of the differences.

    *Equivalence*: with a margin, two one-sided t tests (Schuirmann 1987) that the difference is above -margin and below
    margin; p is the larger of the two, corrected by Holm over the same cells. What is distinguishable is not called
    equivalent, however small it is. "Not distinguishable" never means equivalent.

    A cell with fewer than `LEAST_RUNS` pairs (or runs per arm), or whose runs do not vary at all, is not tested: its
    verdict is ``cannot tell``.
    """
    problem_of = [_untestable(cell) for cell in cells]
    family = problem_of.count(None)
    tests = [
        _test(cell, alpha / family) if problem is None else None
        for cell, problem in zip(cells, problem_of, strict=True)
    ]
    p_holm, step_alpha = holm(np.array([np.nan if test is None else test.p for test in tests]), alpha)
    within = [np.nan if test is None or margin is None else test.p_within(margin) for test in tests]
    p_equivalent, _ = holm(np.array(within), alpha)
    found = (
        _difference(cell, test, problem, float(corrected), float(step))
        for cell, test, problem, corrected, step in zip(cells, tests, problem_of, p_holm, step_alpha, strict=True)
    )
    pairs = zip(found, p_equivalent, strict=True)
    return tuple(_with_equivalence(difference, float(p), alpha, margin) for difference, p in pairs)


def _with_equivalence(difference: Difference, p: float, alpha: float, margin: float | None) -> Difference:
    if np.isnan(p):
        return difference
    equivalent = p <= alpha and not difference.distinguishable
    verdict = f"equivalent (within ±{margin:g})" if equivalent else difference.verdict
    return difference._replace(p_equivalent=p, verdict=verdict)


def holm(p: FloatArray, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Correct p values for multiple testing (Holm 1979); NaNs are not part of the family.

    Returns:
        Corrected p values, and the level at which the procedure tests each (after it stops: that of the last step).
        (statsmodels returns only the former, and runs the garbage collector at every call: 0.1 s.)
    """
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]  # NaNs come last
    steps = np.arange(len(order), 0, -1)
    p_holm, step_alpha = np.full_like(p, np.nan), np.full_like(p, np.nan)
    p_holm[order] = np.minimum(1, np.maximum.accumulate(p[order] * steps))
    rejected = (p_holm <= alpha).sum()
    step_alpha[order] = alpha / np.maximum(steps, len(order) - rejected)
    return p_holm, step_alpha


def difference_limits(differences: Sequence[Difference]) -> tuple[float, float]:
    """Axis limits that contain zero, every estimate and every finite end of an interval, with a margin."""
    ends = np.array([0.0] + [end for d in differences for end in (d.estimate, d.low, d.high)])
    ends = ends[np.isfinite(ends)]
    low, high = float(ends.min()), float(ends.max())
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


class _Test(NamedTuple):
    """A studentised difference and the null distribution of its absolute value."""

    estimate: float
    error: float
    """Standard error of the estimate."""
    dof: int
    resampled_B: FloatArray | None
    """|difference| / standard error of bootstrap samples, ascending; None: Student's t."""

    @property
    def p(self) -> float:
        """Two-sided p value."""
        from scipy.special import stdtr

        ratio = abs(self.estimate) / self.error
        if self.resampled_B is None:
            return float(2 * stdtr(self.dof, -ratio))
        as_large = len(self.resampled_B) - np.searchsorted(self.resampled_B, ratio)
        return float((1 + as_large) / (1 + len(self.resampled_B)))

    def p_within(self, margin: float) -> float:
        """p value of two one-sided t tests that the difference is within (-margin, margin)."""
        from scipy.special import stdtr

        return float(stdtr(self.dof, (abs(self.estimate) - margin) / self.error))

    def half_width(self, alpha: float) -> float:
        """Of the interval that excludes zero exactly if p <= alpha."""
        from scipy.special import stdtrit

        if self.resampled_B is None:
            return float(self.error * stdtrit(self.dof, 1 - alpha / 2))
        # How many of the largest values may lie outside, counted as in p.
        beyond = int(alpha * (1 + len(self.resampled_B)) + 1e-9)
        return float(self.error * self.resampled_B[-beyond])


def _untestable(cell: CellOutcomes) -> str | None:
    """Why a cell cannot be tested; None if it can."""
    n, m = len(cell.arm_N), len(cell.reference_M)
    if min(n, m) < LEAST_RUNS:
        return f"n = {n}" if n == m else f"n = {n} and {m}"
    _, error = _studentise(cell.arm_N, cell.reference_M, cell.paired)
    if error <= _NO_SPREAD * np.abs(np.concatenate([cell.arm_N, cell.reference_M])).max():
        return f"no spread between {'pairs' if cell.paired else 'runs'}"
    return None


def _studentise(arm_N: FloatArray, reference_M: FloatArray, paired: bool) -> tuple[FloatArray, FloatArray]:
    """Difference of means over the last axis, and its standard error."""
    estimate = arm_N.mean(-1) - reference_M.mean(-1)
    samples = [arm_N - reference_M] if paired else [arm_N, reference_M]
    return estimate, np.sqrt(sum(sample.var(-1, ddof=1) / sample.shape[-1] for sample in samples))


def _test(cell: CellOutcomes, least_alpha: float) -> _Test:
    arm_N, reference_M, paired = cell.arm_N, cell.reference_M, cell.paired
    estimate, error = _studentise(arm_N, reference_M, paired)
    runs = min(len(arm_N), len(reference_M))
    resampled_B = None
    # The bootstrap's smallest p value is 1 / resamples; use t if the family needs a smaller one.
    if runs >= LEAST_RUNS_FOR_BOOTSTRAP and least_alpha * (1 + _RESAMPLES) >= 1:
        rng = np.random.default_rng(0)
        drawn_BN = rng.integers(0, len(arm_N), (_RESAMPLES, len(arm_N)))
        drawn_BM = drawn_BN if paired else rng.integers(0, len(reference_M), (_RESAMPLES, len(reference_M)))
        estimate_B, error_B = _studentise(arm_N[drawn_BN], reference_M[drawn_BM], paired)
        # Few distinct values (e.g. expert counts) yield resamples without spread: use t then, too.
        if (error_B > _NO_SPREAD * abs(error)).all():
            resampled_B = np.sort(np.abs(estimate_B - estimate) / error_B)
    return _Test(float(estimate), float(error), runs - 1, resampled_B)


def _difference(cell: CellOutcomes, test: _Test | None, problem: str | None, p_holm: float, alpha: float) -> Difference:
    n, m = len(cell.arm_N), len(cell.reference_M)
    mean_arm = float(cell.arm_N.mean()) if n else np.nan
    mean_reference = float(cell.reference_M.mean()) if m else np.nan
    estimate = mean_arm - mean_reference
    half = np.nan if test is None else test.half_width(alpha)
    difference = Difference(
        cell.label,
        cell.arm,
        cell.reference,
        cell.paired,
        n,
        m,
        cell.left_out,
        mean_arm,
        mean_reference,
        estimate,
        estimate - half,
        estimate + half,
        1 - alpha,
        "none" if test is None else "t" if test.resampled_B is None else "bootstrap",
        np.nan if test is None else _hedges_g(cell),
        np.nan if test is None else test.p,
        p_holm,
        f"cannot tell ({problem})" if problem else "not distinguishable",
    )
    if difference.distinguishable:
        return difference._replace(verdict="lower" if estimate < 0 else "higher")
    return difference


def _hedges_g(cell: CellOutcomes) -> float:
    """Standardised difference with the exact small-sample bias correction (Hedges 1981)."""
    from scipy.special import gammaln

    n, m = len(cell.arm_N), len(cell.reference_M)
    if cell.paired:
        dof, variance = n - 1, (cell.arm_N - cell.reference_M).var(ddof=1)
    else:
        dof = n + m - 2
        variance = ((n - 1) * cell.arm_N.var(ddof=1) + (m - 1) * cell.reference_M.var(ddof=1)) / dof
    factor = np.exp(gammaln(dof / 2) - gammaln((dof - 1) / 2)) / np.sqrt(dof / 2)
    return float(factor * (cell.arm_N.mean() - cell.reference_M.mean()) / np.sqrt(variance))
