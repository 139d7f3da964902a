"""What the two layers of a hierarchical gate divide the images by: groups by class, the experts of a group by style?

Scores are the adjusted mutual information (AMI): 0 at chance level, 1 for identical partitions.

Shapes: B images, E experts, G groups of L = E / G experts, C classes, N random groupings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.comparison import LEAST_RUNS
from smoe_ray.analysis.curves import IntArray
from smoe_ray.analysis.expert_routing import require_aligned
from smoe_ray.analysis.intervals import MeanInterval, mean_interval
from smoe_ray.columns import format_cell

_REGROUPINGS = 99


class TreeRouting(NamedTuple):
    """One trial. The group of an image is that of the expert that decodes it."""

    groups: int
    first_classes: float
    """AMI of groups with classes."""
    regrouped: float
    """Mean of the same where the trial's experts are put into groups of the same size at random, 99 times: what groups
    owe to their experts alone."""
    second_classes: float
    """AMI of experts with classes within a group; mean over groups, weighted by images. Groups with nothing left to
    divide (images of a single style or, of data without styles, of a single class) are left out; NaN if all are."""
    second_styles: float
    """The same with styles; NaN of data without styles."""
    off_path: float
    """Share of the images whose expert, the one of highest probability, is not in the most probable group."""


def tree_routing(
    gate_BE: npt.NDArray[np.float32],
    expert_B: IntArray,
    label_B: IntArray,
    style_B: IntArray | None,
    groups: int,
    seed: int = 0,
) -> TreeRouting:
    """Agreement of the layers of a hierarchical gate with classes and styles.

    Args:
        gate_BE: gate probabilities; experts g·E/G to (g + 1)·E/G - 1 belong to group g.
        expert_B: expert of each image.
        label_B: class of each image.
        style_B: style of each image; None where the data have none.
        groups: G, a divisor of E.
        seed: of the random groups.

    Raises:
        ResultsError: the arrays have different lengths.
    """
    finest_B = label_B if style_B is None else style_B
    require_aligned("tree routing", gate=gate_BE, expert=expert_B, label=label_B, style=finest_B)
    num_experts = gate_BE.shape[1]
    size = num_experts // groups
    group_B = expert_B // size
    rng = np.random.default_rng(seed)
    regrouped_N = [_ami(rng.permutation(num_experts)[expert_B] // size, label_B) for _ in range(_REGROUPINGS)]
    likeliest_B = gate_BE.reshape(len(gate_BE), groups, size).sum(axis=2).argmax(axis=1)
    return TreeRouting(
        groups,
        _ami(group_B, label_B),
        float(np.mean(regrouped_N)),
        _within(group_B, expert_B, label_B, finest_B),
        np.nan if style_B is None else _within(group_B, expert_B, style_B, finest_B),
        float(np.mean(likeliest_B != group_B)),
    )


class TreeRoutingOverTrials(NamedTuple):
    """`TreeRouting` over the trials, usually the seeds, of one arm."""

    groups: int
    first_classes: MeanInterval
    regrouped: MeanInterval
    gain: MeanInterval
    """first_classes - regrouped, trial by trial."""
    second_classes: MeanInterval
    second_styles: MeanInterval
    finer: MeanInterval
    """second_styles - second_classes, trial by trial."""
    off_path: MeanInterval

    @property
    def first_verdict(self) -> str:
        """Whether layer one agrees with classes: more than random groups of the same experts do."""
        if self.gain.n < LEAST_RUNS:
            return f"cannot tell whether layer one agrees with classes (n = {self.gain.n})"
        if self.gain.low > 0:
            return "layer one agrees with classes"
        return "layer one is not shown to agree with classes better than random groups of the same experts"

    @property
    def second_verdict(self) -> str:
        """Whether layer two agrees with styles: above chance, and better than with classes."""
        if self.second_styles.n < LEAST_RUNS:
            return f"cannot tell whether layer two agrees with styles (n = {self.second_styles.n})"
        if self.second_styles.low > 0 and self.finer.low > 0:
            return "layer two agrees with styles"
        if self.finer.high < 0:
            return "layer two agrees with classes rather than styles"
        return "layer two is not shown to agree with styles better than with classes"

    @property
    def sentence(self) -> str:
        """Both verdicts with their numbers."""
        off = format_cell("share", self.off_path.mean)
        return (
            f"{self.first_verdict} (AMI {self.first_classes}; {self.regrouped} for the same experts in random groups); "
            f"{self.second_verdict} (within a group AMI {self.second_styles} with styles, {self.second_classes} with "
            f"classes); for {off} of the images the expert of highest probability is not in the most probable group"
        )


def tree_routing_over_trials(trials: Sequence[TreeRouting]) -> TreeRoutingOverTrials:
    """Mean and interval over several trials with the same number of groups."""
    return TreeRoutingOverTrials(
        trials[0].groups,
        mean_interval(trial.first_classes for trial in trials),
        mean_interval(trial.regrouped for trial in trials),
        mean_interval(trial.first_classes - trial.regrouped for trial in trials),
        mean_interval(trial.second_classes for trial in trials),
        mean_interval(trial.second_styles for trial in trials),
        mean_interval(trial.second_styles - trial.second_classes for trial in trials),
        mean_interval(trial.off_path for trial in trials),
    )


def _within(group_B: IntArray, expert_B: IntArray, label_B: IntArray, finest_B: IntArray) -> float:
    """AMI of experts with labels within each group that has several of the finest labels, weighted by images."""
    found: list[tuple[float, int]] = []
    for group in np.unique(group_B):
        inside_B = group_B == group
        if len(np.unique(finest_B[inside_B])) > 1:
            found.append((_ami(expert_B[inside_B], label_B[inside_B]), int(inside_B.sum())))
    if not found:
        return np.nan
    score_G, images_G = np.array(found).T
    return float(np.average(score_G, weights=images_G))


def _ami(one_B: IntArray, other_B: IntArray) -> float:
    """0 where either has a single block: it divides nothing."""
    from sklearn.metrics import adjusted_mutual_info_score

    if min(len(np.unique(one_B)), len(np.unique(other_B))) < 2:
        return 0.0
    return float(adjusted_mutual_info_score(other_B, one_B))
