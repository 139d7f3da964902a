"""Recommended number of experts for an amount of data or of optimizer steps: one sentence with its interval."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.curves import Curve, log_limits, n_range
from smoe_ray.analysis.datasets import dataset_names
from smoe_ray.analysis.expert_conclusion import Conclusion, MissingRuns, conclude, too_small
from smoe_ray.analysis.expert_forecast import TIED_WITHIN, FittedSurface, fit_and_forecast
from smoe_ray.analysis.experts import unsupervised_outcomes
from smoe_ray.analysis.outcomes import loss_unit, require, test_gating
from smoe_ray.analysis.scaling import EFFORT_COLUMN, EFFORT_NAME, Counted, Effort, ignored_paths
from smoe_ray.analysis.surface_fit import Cells, NoiseFloor, SurfaceFit, cells_of, check_runs
from smoe_ray.columns import count
from smoe_ray.errors import ResultsError

_LEAST_RATIO = 4.0
_SHARES_OF_A_RUN = (1.0, 0.5, 0.25)
"""A run at a half and a quarter of its steps is equivalent to a shorter run: the learning rate is constant."""


class Recommendation(NamedTuple):
    """The recommendation of one arm of a study at one amount."""

    label: str
    effort: Effort
    counted: Counted
    amount: float
    conclusion: Conclusion
    cells: Cells
    measured: tuple[Curve, ...]
    """Loss against experts at the studied amounts next to `amount`, which are the labels."""
    num_runs: int
    surface: FittedSurface | None
    """None if the study has too few cells for the surface."""

    @property
    def headline(self) -> str:
        """The answer in a few words."""
        if self.surface is None or self.conclusion.kind == "cannot tell":
            return "cannot tell"
        found = self.surface.forecast
        if self.conclusion.kind == "edge":
            return f"no optimum seen, best studied: {found.best}"
        return f"{_experts(str(found.best), self.counted)} (95 % {_span(found.interval)})"

    @property
    def sentence(self) -> str:
        """The answer with its interval, or why there is none and what to add; starts in lower case."""
        at = f"at {self.amount:,.0f} {EFFORT_NAME[self.effort]}"
        reason, lacking = self.conclusion.reason, self._lacking()
        if self.surface is None or self.conclusion.kind == "cannot tell":
            return f"{at} the study cannot tell the best number of {self.counted} experts: {reason}{lacking}."
        found = self.surface.forecast
        best = f"{_experts(str(found.best), self.counted)} (95 % {_span(found.interval)}"
        if self.conclusion.kind == "edge":
            return f"{at} the study cannot tell where the optimum is: best are {best}), {reason}{lacking}."
        tied = "no other is" if found.tied_K.sum() == 1 else f"{_span(found.tied)} are"
        stance = "agrees" if found.agrees else "disagrees"
        return (
            f"{at}{self._beyond()}: {best}; {tied} tied within {TIED_WITHIN:g}), by a fit to "
            f"{count(self.num_runs, 'run')}; a Gaussian process {stance}: "
            f"{found.gaussian_process.best} ({_span(found.gaussian_process.interval)})."
        )

    @property
    def table(self) -> pd.DataFrame:
        """The counts that are tied or in the interval, one row each; empty if no surface could be fitted.

        Columns: experts; loss, low, high, above_best (error per image; 95 %); tied; chance (of being best,
        share of bootstrap replicates); gaussian_process (its loss); runs (at the studied amounts next to `amount`).
        """
        if self.surface is None:
            return pd.DataFrame()
        found = self.surface.forecast
        runs_K = [sum(int(curve.n[curve.x == count].sum()) for curve in self.measured) for count in found.count_K]
        frame = pd.DataFrame(
            {
                "experts": found.count_K,
                "loss": found.loss_K,
                "low": found.low_K,
                "high": found.high_K,
                "above_best": found.loss_K - found.loss_K.min(),
                "tied": found.tied_K,
                "chance": found.chance_K,
                "gaussian_process": found.gaussian_process.loss_K,
                "runs": runs_K,
            }
        )
        return frame[frame["tied"] | frame["experts"].between(*found.interval)].reset_index(drop=True)

    @property
    def evidence(self) -> tuple[str, ...]:
        """Quality of the fit, one line each: against the noise floor, and on held-out amounts."""
        if self.surface is None:
            return ()
        fit = self.surface.fit
        return (
            f"fit: R² {fit.r_squared:.3f} of {len(self.cells.n_C)} cell means; RMSE {fit.rmse:.2f}, "
            f"{_noise(fit.noise)} ({fit.noise.degrees} degrees of freedom)",
            *(
                f"held out {held.amount:,.0f} {EFFORT_NAME[self.effort]}: RMSE {held.rmse:.2f}, {_noise(held.noise)} "
                f"(n = {held.n})"
                for held in fit.held_out
            ),
        )

    def _beyond(self) -> str:
        least, most = self.cells.amount_C[0], self.cells.amount_C[-1]
        if least <= self.amount <= most:
            return ""
        return f" (extrapolated: the study has {least:,.0f} to {most:,.0f})"

    def _lacking(self) -> str:
        if self.conclusion.missing is None:
            return ""
        return f"; add {_missing_runs(self.conclusion.missing, self.counted, self.effort)}"


class Recommendations(NamedTuple):
    """One recommendation per arm of the study, all of a dataset at the same amount."""

    gating: str
    unit: str
    """Of the losses: see `loss_unit`."""
    arms: tuple[Recommendation, ...]
    amount_limits: tuple[float, float]
    experts_limits: tuple[float, float]
    n_range: tuple[int, int]
    """Smallest and largest number of runs in a cell."""
    measured_n_range: tuple[int, int]
    """The same for the cells next to the requested amount."""
    several_datasets: bool = False
    """Whether the arms are of several datasets, whose losses have no common scale."""

    @property
    def sentence(self) -> str:
        """One sentence per arm and line, preceded by the label if there are several arms."""
        if len(self.arms) > 1:
            return "\n".join(f"{arm.label}: {arm.sentence}" for arm in self.arms)
        (only,) = self.arms
        return only.sentence[0].upper() + only.sentence[1:]

    def fitted(self) -> Recommendations:
        """Only the arms that have a fitted surface.

        Raises:
            ResultsError: no arm has one; the message says what the first arm lacks.
        """
        arms = tuple(arm for arm in self.arms if arm.surface is not None)
        if not arms:
            raise ResultsError(f"loss surface: {self.sentence.splitlines()[0]}")
        return self._replace(arms=arms)


def recommend(
    results: pd.DataFrame,
    samples: float | None = None,
    steps: float | None = None,
    experts: Counted = "active",
    replicates: int = 400,
    seed: int = 0,
) -> Recommendations:
    """The best number of experts at an amount of data or of optimizer steps, per arm of a study.

    With `samples` every finished trial counts at its last evaluated epoch; with `steps` also at a half and a quarter of
    its steps, unless the objective is annealed (half of an annealed run is not equivalent to a shorter run).

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        samples: training images; default, if `steps` is None too: the largest amount of the study, of each dataset.
        steps: optimizer steps.
        experts: count the experts that stayed active, as the paper does, or those configured.
        replicates: number of bootstrap replicates.
        seed: of starts, bootstrap and posterior draws; the same seed gives the same answer.

    Raises:
        ResultsError: both amounts are given or one is below 1; there is no finished trial, or all are supervised.
    """
    if samples is not None and steps is not None:
        raise ResultsError("recommend: samples and steps are mutually exclusive; pass one of them")
    effort: Effort = "images" if steps is None else "steps"
    runs_of = study_runs(results, effort, experts)
    asked = steps if samples is None else samples
    most_of = _most_of_dataset(results, runs_of)
    found = [
        recommend_from_runs(runs, most_of[label] if asked is None else asked, effort, experts, label, replicates, seed)
        for label, runs in runs_of.items()
    ]
    amounts = [np.array([arm.amount for arm in found]), *(arm.cells.amount_C for arm in found)]
    return Recommendations(
        test_gating(results),
        loss_unit(results),
        tuple(found),
        log_limits(np.concatenate(amounts), _LEAST_RATIO),
        log_limits(np.concatenate([arm.cells.experts_C for arm in found]), _LEAST_RATIO),
        n_range(arm.cells.n_C for arm in found),
        n_range(curve.n for arm in found for curve in arm.measured),
        dataset_names(results).nunique() > 1,
    )


def _most_of_dataset(results: pd.DataFrame, runs_of: dict[str, pd.DataFrame]) -> dict[str, float]:
    """By arm, the largest amount of its dataset; datasets have different numbers of images."""
    name_of = dataset_names(results)
    names = {label: name_of[runs["run"].iloc[0]] for label, runs in runs_of.items()}
    most = {label: float(runs["amount"].max()) for label, runs in runs_of.items()}
    return {label: max(most[other] for other in names if names[other] == name) for label, name in names.items()}


def study_runs(
    results: pd.DataFrame, effort: Effort = "images", experts: Counted = "active"
) -> dict[str, pd.DataFrame]:
    """The runs behind a recommendation, by arm: columns amount, experts, loss, run and seed.

    Raises:
        ResultsError: there is no finished trial, or all are supervised.
    """
    column, count = EFFORT_COLUMN[effort], f"experts.{experts}"
    require(results, (column, count, "seed"))
    outcomes = unsupervised_outcomes(results, "recommend")
    label_of = arms(outcomes, ignored_paths(effort))
    rows = outcomes if effort == "images" else _along_the_runs(results, outcomes)
    runs = rows[[column, count, "test.reconstruction", "trial_id", "seed"]]
    runs = runs.set_axis(["amount", "experts", "loss", "run", "seed"], axis=1)
    return {str(arm): of_arm for arm, of_arm in runs.groupby(runs["run"].map(label_of), observed=True)}


def _along_the_runs(results: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """The evaluated rows nearest to each share of a run's steps; only the last one if the objective is annealed."""
    steps_of = outcomes.set_index("trial_id")["cost.steps"]
    rows = results[results["trial_id"].isin(steps_of.index) & results["test.reconstruction"].notna()]
    rows = rows.reset_index(drop=True)
    share = rows["cost.steps"] / rows["trial_id"].map(steps_of)
    distances = (np.log(share / wanted).abs().groupby(rows["trial_id"]) for wanted in _SHARES_OF_A_RUN)
    rows = rows.loc[sorted({row for distance in distances for row in distance.idxmin()})]
    if "config.objective.variance_start" not in rows.columns:
        return rows
    start, end = rows["config.objective.variance_start"], rows["config.objective.variance_end"]
    annealed = start.notna() & (start != end)
    return rows[~annealed | (share[rows.index] == 1)]


def recommend_from_runs(
    runs: pd.DataFrame,
    amount: float,
    effort: Effort = "images",
    counted: Counted = "active",
    label: str = "all runs",
    replicates: int = 400,
    seed: int = 0,
    fit: SurfaceFit | None = None,
) -> Recommendation:
    """The best number of experts at `amount`, from a frame of runs.

    Args:
        runs: columns amount (training images or steps), experts, loss (error per image), run (rows of one run
            share its name); if there is a column seed, runs of a single seed are inconclusive.
        amount: requested amount, in the unit of the column.
        effort: unit of the amounts.
        counted: which experts are counted.
        label: name of the arm.
        replicates: number of bootstrap replicates.
        seed: of starts, bootstrap and posterior draws.
        fit: result of `fit_surface` for the same runs, replicates and seed, if known.

    Raises:
        ResultsError: `amount` is below 1, a column is absent or a value is invalid.
    """
    if not 1 <= amount < float("inf"):
        raise ResultsError(f"recommend: {amount:g} {EFFORT_NAME[effort]}; pass a finite amount of at least 1")
    runs = check_runs(runs)
    cells = cells_of(runs)
    conclusion, surface = too_small(cells, amount), None
    if conclusion is None:
        surface = fit_and_forecast(runs, amount, replicates, seed, fit)
        conclusion = conclude(runs, surface, amount)
    return Recommendation(
        label, effort, counted, amount, conclusion, cells, cells.beside(amount), runs["run"].nunique(), surface
    )


def _span(low_high: tuple[int, int]) -> str:
    low, high = low_high
    return f"{low} to {high}"


def _experts(counts: str, counted: Counted) -> str:
    return f"{counts} {counted} expert" + ("" if counts == "1" else "s")


def _noise(noise: NoiseFloor) -> str:
    return f"noise floor {noise.sd:.2f}" if noise.degrees else "noise floor unknown"


def _missing_runs(missing: MissingRuns, counted: Counted, effort: Effort) -> str:
    each = " each" if len(missing.experts) * len(missing.amounts) > 1 else ""
    experts = _experts(_listed(map(str, missing.experts)), counted)
    amounts = f"{_listed(f'{amount:,}' for amount in missing.amounts)} {EFFORT_NAME[effort]}"
    return f"{count(missing.runs, 'run')}{each} of {experts} at {amounts}"


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
