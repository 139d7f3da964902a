"""Does unsupervised routing reach a lower test loss than routing by label, and against which label-routed baseline?

The claim of arXiv:2509.10025 is against one baseline, with one weight of the gate's cross-entropy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.comparison import (
    CellOutcomes,
    Difference,
    comparable_arms,
    compare_cells,
    measure_of,
)
from smoe_ray.analysis.curves import FloatArray
from smoe_ray.analysis.experts import is_supervised
from smoe_ray.analysis.outcomes import test_gating
from smoe_ray.columns import format_cell, listed
from smoe_ray.errors import ResultsError

_RELATIONS = {
    "lower": "lower than",
    "higher": "higher than",
    "equivalent": "equivalent to",
    "not distinguishable": "not distinguishable from",
    "cannot tell": "cannot tell from",
}


class LabelRouting(NamedTuple):
    """Every unsupervised arm against every label-routed arm, cell by cell."""

    measure: str
    """``test loss`` or ``PSNR``, in words."""
    gating: str
    unit: str
    cells: tuple[str, ...]
    baselines: tuple[str, ...]
    """Label-routed arms."""
    arms: tuple[str, ...]
    """Unsupervised arms."""
    alpha: float
    """Family-wise error rate over all differences."""
    differences: tuple[Difference, ...]
    """By cell, arm and baseline, in this order."""
    runs: dict[tuple[str, str], FloatArray]
    """Values of the measure by (cell, arm or baseline), one per run."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """For each cell the best arm against the best baseline, then each arm against all baselines."""
        return tuple(sentence for cell in self.cells for sentence in self._of_cell(cell))

    def mean(self, cell: str, label: str) -> float:
        """Of the measure over the runs of an arm or a baseline; NaN without runs."""
        runs = self.runs.get((cell, label), np.empty(0))
        return float(runs.mean()) if len(runs) else np.nan

    def _of_cell(self, cell: str) -> list[str]:
        differences = [difference for difference in self.differences if difference.label == cell]
        where = f" at {cell}" if len(self.cells) > 1 else ""
        better, worse = ("higher", "lower") if self.measure == "PSNR" else ("lower", "higher")
        sign = -1 if better == "higher" else 1
        best = min(
            differences, key=lambda each: (sign * self.mean(cell, each.reference), sign * self.mean(cell, each.arm))
        )
        means = [format_cell("mean_arm", self.mean(cell, label)) for label in (best.arm, best.reference)]
        verdict = best.verdict.partition(" (")[0]
        answers = {better: "Yes", worse: "No", "equivalent": "No, they are equivalent", "cannot tell": "Cannot tell"}
        answer = answers.get(verdict, "Not shown")
        first = (
            f"Does unsupervised routing beat the best routing by label{where}? {answer}: {best.arm} "
            f"has a mean {self.measure} of {means[0]}, {best.reference} of {means[1]}, {_interval(best)}."
        )
        return [first, *(self._of_arm(arm, where, differences) for arm in self.arms)]

    def _of_arm(self, arm: str, where: str, differences: list[Difference]) -> str:
        told = []
        for verdict, relation in _RELATIONS.items():
            found = [each for each in differences if each.arm == arm and each.verdict.partition(" (")[0] == verdict]
            if found:
                told.append(f"{relation} {listed([f'{each.reference} ({_interval(each)})' for each in found])}")
        return f"{arm}{where}: {'; '.join(told)}."


def _interval(difference: Difference) -> str:
    estimate, low, high = (
        format_cell("estimate", value) for value in (difference.estimate, difference.low, difference.high)
    )
    if difference.interval == "none":
        return f"difference {estimate}, {difference.verdict.partition(' (')[2].rstrip(')')}"
    return f"difference {estimate}, {100 * difference.level:.3g} % interval {low} to {high}"


def has_label_routing(results: pd.DataFrame) -> bool:
    """Whether there are label-routed and unsupervised trials, finished ones, in these results."""
    by_label = is_supervised(results[results["status"] == "finished"])
    return bool(by_label.any() and not by_label.all())


def label_routing(results: pd.DataFrame, alpha: float = 0.05) -> LabelRouting:
    """Compare every unsupervised arm with every label-routed one; statistics as in `compare_cells`.

    Runs are paired by seed where three seeds or more are shared. One family of tests (Holm 1979) has all cells of all
    pairs, so that the best arm and the best baseline may be picked by their means.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        alpha: family-wise error rate.

    Raises:
        ResultsError: no finished trial, only one of the two ways of routing, or no cell in common.
    """
    found = comparable_arms(results)
    by_label = set(found.outcomes.loc[is_supervised(found.outcomes), "arm"])
    baselines = [label for label in found.labels if label in by_label]
    unsupervised = [label for label in found.labels if label not in by_label]
    if not baselines or not unsupervised:
        missing = "supervised" if not baselines else "unsupervised"
        raise ResultsError(
            f"label routing: no finished trial with routing: {missing}; studies/supervised_weight.yaml has both"
        )
    pairs: list[CellOutcomes] = [
        cell
        for arm in unsupervised
        for baseline in baselines
        for cell in found.pair(arm, baseline)
        if len(cell.arm_N) and len(cell.reference_M)
    ]
    if not pairs:
        raise ResultsError(
            f"label routing: {listed(unsupervised)} and {listed(baselines)} have no settings in common; "
            f"run both at the same {listed(found.cells)}"
        )
    cells = tuple(dict.fromkeys(cell.label for cell in pairs))
    pairs.sort(key=lambda cell: cells.index(cell.label))
    runs: dict[tuple[str, str], FloatArray] = {}
    for cell in pairs:  # unpaired runs of one pair are left out there, so the longest array has them all
        for label, values in ((cell.arm, cell.arm_N), (cell.reference, cell.reference_M)):
            runs[cell.label, label] = max(runs.get((cell.label, label), np.empty(0)), values, key=len)
    return LabelRouting(
        measure_of(found.metric),
        test_gating(found.outcomes),
        found.unit,
        cells,
        tuple(baselines),
        tuple(unsupervised),
        alpha,
        compare_cells(pairs, alpha, found.margin),
        runs,
    )
