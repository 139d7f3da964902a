"""Do experts follow styles (the sub-categories of images): their number, and their partition of the images?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.comparison import CELL_PATHS, LEAST_RUNS, ArmComparison, compare_arms
from smoe_ray.analysis.experts import is_supervised
from smoe_ray.analysis.intervals import MeanInterval, mean_interval
from smoe_ray.analysis.outcomes import last_evaluated, require
from smoe_ray.errors import ResultsError

STYLES, CLASS_AMI, STYLE_AMI = "data.styles", "experts.class_ami", "experts.style_ami"
"""Columns that are added to the results: number of styles of a trial's data, and AMI of its experts with classes and
with styles on the test images."""


class ArmStyles(NamedTuple):
    """One arm: experts in use, and their agreement with classes and styles."""

    label: str
    styles: int
    configured: int
    active: MeanInterval
    effective: MeanInterval
    class_ami: MeanInterval
    style_ami: MeanInterval


class ExpertsPerStyle(NamedTuple):
    """Least-squares line of active experts against the number of styles, over the trials that differ in their data."""

    label: str
    slope: MeanInterval
    """Active experts per style; its interval takes n - 2 degrees of freedom."""
    fewest: int
    active_at_fewest: float
    most: int
    active_at_most: float

    @property
    def sentence(self) -> str:
        """Whether the number of experts in use follows the number of styles."""
        follows = "does not change demonstrably with"
        if self.slope.low > 0:
            follows = "grows with"
        elif self.slope.high < 0:
            follows = "falls with"
        return (
            f"{self.label}: the number of active experts {follows} the number of styles, {self.slope.mean:+.2f} per "
            f"style (95 % interval {self.slope.low:+.2f} to {self.slope.high:+.2f}, n = {self.slope.n}): "
            f"{self.active_at_fewest:.3g} at {self.fewest} styles, {self.active_at_most:.3g} at {self.most}"
        )


def style_agreements(results: pd.DataFrame) -> tuple[ArmStyles, ...]:
    """Each arm of the trials with styles.

    Args:
        results: the table of `read_results` with the columns `STYLES`, `CLASS_AMI` and `STYLE_AMI`; NaN where not
            known.

    Raises:
        ResultsError: no finished trial has styles.
    """
    outcomes = _with_styles(results)
    return tuple(
        ArmStyles(
            str(label),
            int(runs[STYLES].iloc[0]),
            int(runs["experts.configured"].iloc[0]),
            *(mean_interval(runs[column]) for column in ("experts.active", "experts.effective", CLASS_AMI, STYLE_AMI)),
        )
        for label, runs in outcomes.groupby(outcomes["trial_id"].map(arms(outcomes)), observed=True)
    )


def compare_style_agreement(results: pd.DataFrame) -> ArmComparison:
    """AMI of experts with styles: every arm against the first that is not routed by label; statistics as in
    `compare_arms`, where different classes make cells.

    Raises:
        ResultsError: no finished trial has styles, or only one arm.
    """
    outcomes = _with_styles(results)
    cells = (*CELL_PATHS, "data.classes")
    unsupervised = outcomes[~is_supervised(outcomes)]
    reference = None if unsupervised.empty else str(arms(outcomes, cells)[unsupervised["trial_id"]].min())
    return compare_arms(outcomes, reference=reference, metric=STYLE_AMI, cells=cells)


def experts_per_style(results: pd.DataFrame) -> tuple[ExpertsPerStyle, ...]:
    """Active experts against the number of styles, for each group of trials that differ in seed and data alone.

    Groups with fewer than three trials, or one number of styles, are left out, as are those routed by label: it gives
    them their number.

    Raises:
        ResultsError: no finished trial has styles.
    """
    from scipy.special import stdtrit
    from scipy.stats import linregress

    outcomes = _with_styles(results)
    outcomes = outcomes[~is_supervised(outcomes)]
    columns = outcomes.columns.astype(str)
    of_data = columns[columns.str.startswith("config.data.")].str.removeprefix("config.").tolist()
    found = []
    for label, runs in outcomes.groupby(outcomes["trial_id"].map(arms(outcomes, of_data)), observed=True):
        if len(runs) < LEAST_RUNS or runs[STYLES].nunique() < 2:
            continue
        line = linregress(runs[STYLES], runs["experts.active"])
        half = float(line.stderr * stdtrit(len(runs) - 2, 0.975))
        slope = MeanInterval(float(line.slope), line.slope - half, line.slope + half, len(runs))
        mean = runs.groupby(STYLES)["experts.active"].mean()
        ends = (int(mean.index[0]), float(mean.iloc[0]), int(mean.index[-1]), float(mean.iloc[-1]))
        found.append(ExpertsPerStyle(str(label), slope, *ends))
    return tuple(found)


def _with_styles(results: pd.DataFrame) -> pd.DataFrame:
    require(results, (STYLES, CLASS_AMI, STYLE_AMI))
    outcomes = last_evaluated(results, None)
    outcomes = outcomes[outcomes[STYLE_AMI].notna() & (outcomes[STYLES] > 0)]
    if outcomes.empty:
        raise ResultsError("agreement with styles: no finished trial with stored embeddings has styles")
    outcomes = outcomes.assign(**{STYLES: outcomes[STYLES].astype(np.int64)})
    outcomes.attrs = dict(results.attrs)
    return outcomes
