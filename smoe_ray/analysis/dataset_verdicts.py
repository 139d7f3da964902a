"""Does more than one expert pay off on each dataset? The same grid on several data, judged on each alone.

Losses of different data are neither averaged nor compared; only the shape of each curve over experts is.
K expert counts, S draws from the posterior.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.comparison import CellOutcomes, Difference, cell_by_seed, compare_cells
from smoe_ray.analysis.curves import Curve, FloatArray, n_range, summarise
from smoe_ray.analysis.datasets import DATASET, dataset_names, dataset_paths
from smoe_ray.analysis.experts import NUM_EXPERTS, unsupervised_outcomes
from smoe_ray.analysis.outcomes import error_names, require, test_gating
from smoe_ray.analysis.recommendation import Recommendation, recommend_from_runs
from smoe_ray.analysis.scaling import DATA_PATHS
from smoe_ray.columns import count, format_cell, listed
from smoe_ray.errors import ResultsError

FEW_RUNS = 5
"""Fewer seeds than this per count, and a sentence says so."""

_DRAWS = 10_000
_INTERVAL = (0.025, 0.975)
_IMAGES = "data.train_images"


class BestCount(NamedTuple):
    """The studied expert count with the lowest mean loss."""

    experts: int
    interval: tuple[int, int] | None
    """95 % interval; None if no count has two runs, so that the noise is unknown."""
    chance_K: FloatArray
    """Posterior probability that a count is the best; NaN where `interval` is None."""


class Verdict(NamedTuple):
    """Experts on one dataset, in one arm, at its largest amount of data."""

    dataset: str
    arm: str
    loss: Curve
    """Test loss against configured experts."""
    active: Curve | None
    """Active against configured experts; None if it was not measured."""
    best: BestCount
    difference: Difference | None
    """The count above one with the lowest mean against one expert; None without runs of one expert, or of more."""
    recommendation: Recommendation | None
    """By a surface fitted to all amounts of data; None if the amounts are unknown."""

    @property
    def change(self) -> float:
        """The difference as a share of the loss of one expert; NaN if there is none."""
        return self.difference.estimate / self.difference.mean_reference if self.difference else np.nan

    @property
    def in_words(self) -> str:
        """The verdict on more than one expert in a few words, for a title."""
        found = self.difference
        if found is None:
            return "no runs to compare with E=1"
        if found.distinguishable:
            return f"{found.arm} {found.verdict} than {found.reference}, {format_cell('change', self.change)}"
        if found.interval == "none":
            told, _, why = found.verdict.partition(" (")
            return f"{told} {found.arm} from {found.reference} ({why}"
        return f"{found.arm} {found.verdict} from {found.reference}"

    @property
    def sentence(self) -> str:
        """The verdict with its numbers."""
        best = (
            f"{count(self.best.experts, 'expert')} {'has' if self.best.experts == 1 else 'have'} the lowest mean loss"
        )
        if self.best.interval is not None:
            best += " (95 % {} to {})".format(*self.best.interval)
        told = f"{self.dataset}, {self.arm}: {best}; {self.in_words}"
        if self.difference is not None:
            found = self.difference
            losses = [format_cell("mean_arm", mean) for mean in (found.mean_arm, found.mean_reference)]
            told += f": {losses[0]} against {losses[1]}"
            if found.interval != "none":
                ends = [format_cell("estimate", end) for end in (found.low, found.high)]
                told += f", difference {format_cell('estimate', found.estimate)}"
                told += f" ({100 * found.level:.3g} % interval {ends[0]} to {ends[1]})"
            told += f", {_runs(found)}"
        if self.active is not None and self.best.experts > 1:
            at = list(self.active.x).index(self.best.experts)
            told += f"; of {self.best.experts} experts {self.active.mean[at]:.3g} stay active"
        return f"{told}."


class DatasetVerdict(NamedTuple):
    """Verdicts of a grid on several datasets, in the order of datasets, then arms."""

    gating: str
    unit: str | None
    """Of the losses, if they are not this project's."""
    error: str
    """What the losses are, per image, without the number of values that it sums, in which datasets differ."""
    datasets: tuple[str, ...]
    arms: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    alpha: float
    """Probability of any false verdict within a dataset, at most."""
    n_range: tuple[int, int]

    @property
    def caution(self) -> str | None:
        """What the number of runs allows to see, if there are few."""
        if self.n_range[0] >= FEW_RUNS:
            return None
        runs = f"{self.n_range[0]} to {self.n_range[1]}" if self.n_range[0] < self.n_range[1] else str(self.n_range[0])
        return (
            f"With {runs} {'run' if runs == '1' else 'runs'} per count only large differences can be told from noise: "
            "'not distinguishable' is not 'equal'"
        )

    @property
    def table(self) -> pd.DataFrame:
        """One row per dataset and arm; docs/metrics.md describes the columns."""
        return pd.DataFrame([_row(verdict) for verdict in self.verdicts])


def dataset_verdict(results: pd.DataFrame, alpha: float = 0.05, unit: str | None = None) -> DatasetVerdict:
    """Judge on each dataset, and in each arm, whether more than one expert lowers the test loss.

    Of a dataset with several amounts of data, the runs at the largest count; the recommendation takes all. Every count
    is compared with one expert, paired by seed where it can be (`compare_cells`), and the family of Holm's correction
    is all counts and arms of a dataset: so the lowest of several counts may be singled out afterwards.

    *Best count*: posterior of the cell means under a flat prior, with one variance for all counts of an arm (Gelman et
    al. 2013, section 3.2): 10,000 draws, each with its lowest count.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        alpha: family-wise error rate within a dataset.
        unit: of the losses, where they are not this project's.

    Raises:
        ResultsError: there is no finished trial, all are supervised, or all have the same dataset.
    """
    require(results, ("seed", "experts.configured"))
    outcomes = unsupervised_outcomes(results, "dataset verdict")
    paths = dataset_paths(outcomes)
    if not paths:
        [name] = set(dataset_names(outcomes))
        raise ResultsError(
            f"dataset verdict: all finished trials are on one dataset ('{name}'); give the study several 'datasets' as "
            "in studies/datasets.yaml"
        )
    label_of = arms(outcomes, ignore=(NUM_EXPERTS, *DATA_PATHS, *paths))
    outcomes = outcomes.assign(
        arm=outcomes["trial_id"].map(label_of), **{DATASET: outcomes["trial_id"].map(dataset_names(outcomes))}
    )
    found = [verdict for _, of_dataset in outcomes.groupby(DATASET) for verdict in _of_dataset(of_dataset, alpha)]
    return DatasetVerdict(
        test_gating(outcomes),
        unit,
        unit or f"{listed(error_names(outcomes), 'or')} per image",
        tuple(dict.fromkeys(verdict.dataset for verdict in found)),
        tuple(label_of.cat.categories),
        tuple(found),
        alpha,
        n_range(verdict.loss.n for verdict in found),
    )


def _of_dataset(outcomes: pd.DataFrame, alpha: float) -> list[Verdict]:
    runs_of = {str(arm): runs for arm, runs in outcomes.groupby("arm", observed=True)}
    most = {arm: _at_most_data(runs, outcomes) for arm, runs in runs_of.items()}
    runs_of = {arm: runs for arm, runs in runs_of.items() if len(most[arm])}
    cells_of = {arm: _against_one(most[arm]) for arm in runs_of}
    differences = iter(compare_cells([cell for cells in cells_of.values() for cell in cells], alpha))
    verdicts = []
    for arm, runs in runs_of.items():
        compared = [next(differences) for _ in cells_of[arm]]
        loss = summarise(most[arm], arm, "experts.configured", "test.reconstruction")
        measured = "experts.active" in runs and runs["experts.active"].notna().all()
        verdicts.append(
            Verdict(
                str(runs[DATASET].iloc[0]),
                arm,
                loss,
                summarise(most[arm], arm, "experts.configured", "experts.active") if measured else None,
                best_count(loss),
                min(compared, key=lambda difference: difference.mean_arm, default=None),
                _recommendation(runs, outcomes, arm),
            )
        )
    return verdicts


def _at_most_data(runs: pd.DataFrame, of_dataset: pd.DataFrame) -> pd.DataFrame:
    return runs[runs[_IMAGES] == of_dataset[_IMAGES].max()] if _IMAGES in runs else runs


def _against_one(runs: pd.DataFrame) -> list[CellOutcomes]:
    """Every count above one against one expert; empty without runs of one expert."""
    loss_of = {
        int(experts): runs[runs["experts.configured"] == experts].set_index("seed")["test.reconstruction"]
        for experts in sorted(runs["experts.configured"].unique())
    }
    one = loss_of.pop(1, None)
    if one is None:
        return []
    return [cell_by_seed(f"E={k} against E=1", f"E={k}", "E=1", loss, one) for k, loss in loss_of.items()]


def best_count(loss: Curve, seed: int = 0) -> BestCount:
    """The count of lowest mean on a curve of loss against experts, with its 95 % interval; see `dataset_verdict`."""
    lowest = int(loss.x[loss.mean.argmin()])
    degrees_K = loss.n - 1
    degrees = int(degrees_K.sum())
    if not degrees:
        return BestCount(lowest, None, np.full(len(loss.x), np.nan))
    variance = float((degrees_K * np.nan_to_num(loss.sd) ** 2).sum()) / degrees
    rng = np.random.default_rng(seed)
    sd_S = np.sqrt(variance * degrees / rng.chisquare(degrees, _DRAWS))
    drawn_SK = loss.mean + sd_S[:, None] * rng.standard_normal((_DRAWS, len(loss.x))) / np.sqrt(loss.n)
    best_S = drawn_SK.argmin(axis=1)
    low, high = np.quantile(loss.x[best_S], _INTERVAL, method="inverted_cdf")
    return BestCount(lowest, (int(low), int(high)), np.bincount(best_S, minlength=len(loss.x)) / _DRAWS)


def _recommendation(runs: pd.DataFrame, of_dataset: pd.DataFrame, arm: str) -> Recommendation | None:
    if _IMAGES not in runs:
        return None
    columns = {_IMAGES: "amount", "experts.configured": "experts", "test.reconstruction": "loss", "trial_id": "run"}
    known = runs.rename(columns=columns)[["amount", "experts", "loss", "run", "seed"]]
    return recommend_from_runs(known, float(of_dataset[_IMAGES].max()), counted="configured", label=arm)


def _row(verdict: Verdict) -> dict[str, object]:
    found, best, active = verdict.difference, verdict.best, verdict.active
    low, high = best.interval or (np.nan, np.nan)
    at = list(verdict.loss.x).index(best.experts)
    advice = verdict.recommendation
    return {
        "dataset": verdict.dataset,
        "arm": verdict.arm,
        "best": best.experts,
        "best_low": low,
        "best_high": high,
        "loss": verdict.loss.mean[at],
        "loss_sd": verdict.loss.sd[at],
        "active": np.nan if active is None else active.mean[at],
        "active_sd": np.nan if active is None else active.sd[at],
        "label": "" if found is None else found.label,
        "mean_reference": np.nan if found is None else found.mean_reference,
        "estimate": np.nan if found is None else found.estimate,
        "low": np.nan if found is None else found.low,
        "high": np.nan if found is None else found.high,
        "change": verdict.change,
        "p_holm": np.nan if found is None else found.p_holm,
        "verdict": "no runs of one expert and of more" if found is None else found.verdict,
        "runs_compared": "" if found is None else _runs(found),
        "recommended": "amounts unknown" if advice is None else advice.headline,
    }


def _runs(found: Difference) -> str:
    return f"{found.n_arm} pairs" if found.paired else f"{found.n_arm} vs {found.n_reference} runs"
