"""One expert on homogeneous, on heterogeneous and on more data (arXiv:2509.10025, section 5.4).

R seeds.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.comparison import CellOutcomes, Difference, compare_cells, difference_limits
from smoe_ray.analysis.curves import FloatArray
from smoe_ray.analysis.outcomes import last_evaluated, loss_unit, require, test_gating
from smoe_ray.columns import count
from smoe_ray.errors import ResultsError

_CLASSES, _IMAGES = "config.data.classes", "data.train_images"
_DATA_PATHS = ("data.classes", "data.fraction", "data.train_per_class")


class Member(NamedTuple):
    """Runs of a condition on one set of classes."""

    classes: tuple[str, ...]
    loss_R: FloatArray


class Condition(NamedTuple):
    """Trials with the same number of classes and of training images."""

    label: str
    num_classes: int
    train_images: int
    steps: float
    """Optimizer steps, mean over the runs."""
    members: tuple[Member, ...]
    loss_R: FloatArray
    """Test loss (error per image) of each seed that has a run on every member, averaged over the members."""
    mean: float
    sd: float
    """Sample standard deviation (ddof = 1) of `loss_R`; NaN where it has one value."""
    left_out: int
    """Runs of seeds that lack a run on some member."""

    @property
    def classes_alone(self) -> frozenset[str]:
        """Classes with one-class runs."""
        return frozenset(member.classes[0] for member in self.members if len(member.classes) == 1)


class Homogeneity(NamedTuple):
    """Effect of the variety and the amount of data on one expert."""

    gating: str
    unit: str
    """Of the losses: see `loss_unit`."""
    conditions: tuple[Condition, ...]
    """Sorted by number of classes, then of training images."""
    alpha: float
    """Family-wise error rate of the verdicts."""
    differences: tuple[Difference, ...]
    """Every condition against each earlier one, by Welch's t."""
    untested: tuple[str, ...]
    """Classes of the condition with the most classes that have no one-class run."""
    x_limits: tuple[float, float]
    """Of the differences."""


def homogeneity(results: pd.DataFrame, experts: int = 1, alpha: float = 0.05) -> Homogeneity:
    """Compare finished trials of `experts` experts across numbers of classes and of training images.

    Conditions follow from the config alone: the number of classes in `data.classes` and the number of training images.
    Runs on single classes form one condition: their losses are averaged over the classes per seed, which equals the
    test loss over all classes because the test set is balanced.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        experts: configured experts of the trials to compare.
        alpha: family-wise error rate of the verdicts.

    Raises:
        ResultsError: no finished trial with that many experts and named classes, only one number of classes, or trials
            that differ in more than seed and data.
    """
    require(results, ("seed", "experts.configured", "cost.steps", _CLASSES, _IMAGES))
    outcomes = last_evaluated(results)
    outcomes = outcomes[(outcomes["experts.configured"] == experts) & outcomes[_CLASSES].notna()]
    outcomes = outcomes.assign(num_classes=outcomes[_CLASSES].map(len))
    if outcomes["num_classes"].nunique() < 2:
        raise ResultsError(
            f"there are no finished trials of {count(experts, 'expert')} on one and on several classes "
            "(data.classes); run studies/paper/homogeneity.yaml"
        )
    others = arms(outcomes, ignore=_DATA_PATHS).cat.categories
    if len(others) > 1:
        raise ResultsError(f"trials differ in more than their data ({', '.join(map(repr, others))}); keep one of them")
    conditions = tuple(_condition(runs) for _, runs in outcomes.groupby(["num_classes", _IMAGES], sort=True))
    cells = [_against(late, early) for early, late in combinations(conditions, 2)]
    differences = compare_cells(cells, alpha)
    alone = frozenset().union(*(condition.classes_alone for condition in conditions))
    varied = {name for member in conditions[-1].members for name in member.classes}
    return Homogeneity(
        test_gating(outcomes),
        loss_unit(outcomes),
        conditions,
        alpha,
        differences,
        tuple(sorted(varied - alone)),
        difference_limits(differences),
    )


def _condition(runs: pd.DataFrame) -> Condition:
    num_classes, images = int(runs["num_classes"].iloc[0]), int(runs[_IMAGES].iloc[0])
    by_member = runs.groupby(runs[_CLASSES].map(lambda classes: tuple(sorted(classes))), sort=True)
    losses = {classes: member.groupby("seed")["test.reconstruction"].mean() for classes, member in by_member}
    of_seeds = pd.concat(list(losses.values()), axis=1)
    complete = of_seeds.dropna()
    loss = complete.mean(axis=1)
    return Condition(
        f"{count(num_classes, 'class', 'classes')}, {count(images, 'image')}",
        num_classes,
        images,
        float(runs["cost.steps"].mean()),
        tuple(Member(classes, loss.to_numpy(np.float64)) for classes, loss in losses.items()),
        loss.to_numpy(np.float64),
        float(loss.mean()),
        float(loss.std(ddof=1)),
        int(of_seeds.notna().sum().sum() - complete.size),
    )


def _against(late: Condition, early: Condition) -> CellOutcomes:
    return CellOutcomes(
        f"{late.label} against {early.label}", late.label, early.label, late.loss_R, early.loss_R, paired=False
    )
