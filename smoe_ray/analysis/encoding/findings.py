"""The three findings of arXiv:2605.20610, asked of the seeds of one model: holds here, does not hold here, cannot tell.

Shapes: S seeds, B images, E experts, C classes, F features.

The paper studies contrastive convolutional experts; what stands in for its measures here is named at each criterion. A
finding holds if all of its criteria are met, does not hold if one is refuted, and cannot be told otherwise. A criterion
is met or refuted by a 95 % interval over seeds (Student's t) and, where chance is not zero, by a permutation test at
0.05. Fewer than three seeds tell nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.comparison import LEAST_RUNS
from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.encoding.class_separability import ExpertSeparability
from smoe_ray.analysis.encoding.features import beyond_class, feature_profile
from smoe_ray.analysis.encoding.permutation import (
    NOT_DEFINED,
    PERMUTATIONS,
    PermutationTest,
    SeedStatistic,
    class_means,
    over_seeds,
    stratified_folds,
)
from smoe_ray.analysis.encoding.selectivity import lifetime_sparseness
from smoe_ray.analysis.encoding.stability import (
    ClassAxis,
    SeedAgreement,
    axis_agreement,
    class_axis,
    dichotomy_agreement,
)
from smoe_ray.analysis.encoding.tuning import relative_precision
from smoe_ray.analysis.expert_routing import require_aligned
from smoe_ray.analysis.intervals import mean_interval
from smoe_ray.columns import format_cell

Answer = Literal["holds here", "does not hold here", "cannot tell"]
ALPHA = 0.05
DOMINANT = 0.5
"""Share of the variance over classes above which one axis dominates: more than all others together."""
ALIKE = 0.1
"""Spread of the accuracy over experts, relative to its mean above chance, below which experts are alike."""
LEAST_GAIN = 0.01
"""Explained variance below which tuning does not go beyond category."""


class SeedEncoding(NamedTuple):
    """What the findings need of one trial."""

    gate_axis: ClassAxis
    """Of the mean gate probabilities of each class. Not defined, as `sparser_routing`, where a single expert takes
    every image: nothing is partitioned."""
    readout_axis: ClassAxis
    """Of the mean relative precision (`relative_precision`) of each class: how well each expert decodes it, all images,
    whether routed to it or not."""
    gate_to_readout: PermutationTest
    """|correlation| of the two axes' class scores; null: classes permuted."""
    sparser_routing: PermutationTest
    """Lifetime sparseness over classes of the gate probability, mean over experts, minus that of the relative
    precision, a share of one among the experts as well. Null: classes exchanged between images."""
    beyond_class: PermutationTest
    """Explained variance of the relative precision by pixel features beyond the class, mean over experts."""
    relative_spread: PermutationTest
    """Standard deviation over experts of the held-out accuracy of the ridge classifier / (its mean - chance); null:
    see `ExpertSeparability.spread`."""
    distinctness: PermutationTest
    """Mean correlation of an expert's feature profile with its own on the other half of the images, minus that with
    other experts'; 0 if all have the same tuning. The profile is that of -ln r_e, which unlike a share does not fall by
    itself where another's rises. Null: experts exchanged between the halves."""


class Criterion(NamedTuple):
    """A condition of a finding."""

    text: str
    """The measure."""
    statistic: SeedStatistic
    met: bool | None
    """None: cannot tell."""


class EncodingFinding(NamedTuple):
    """The answer to one question, with its reasons."""

    name: str
    """In a few words."""
    claim: str
    answer: Answer
    seeds: int
    criteria: tuple[Criterion, ...]

    @property
    def sentence(self) -> str:
        """Claim and answer, with the criteria that decide it: all if it holds, else those that are refuted or open."""
        decisive = {"holds here": True, "does not hold here": False, "cannot tell": None}[self.answer]
        told = [_told(criterion) for criterion in self.criteria if criterion.met is decisive]
        few = "; three seeds or more could" if self.seeds < LEAST_RUNS else ""
        return f"{self.claim}: {self.answer}{few} (n = {self.seeds}): {'; '.join(told)}."


def seed_encoding(
    gate_BE: npt.NDArray[Any],
    error_BE: npt.NDArray[Any],
    label_B: IntArray,
    feature_BF: FloatArray,
    separability: ExpertSeparability | None,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> SeedEncoding:
    """Measure one trial.

    Args:
        gate_BE: gate probabilities.
        error_BE: squared error of each expert alone.
        label_B: class of each image.
        feature_BF: `pixel_features` of the images.
        separability: `expert_separability` of the same trial; None: its experts show no hidden values.
        permutations: P.
        seed: of permutations, folds and halves.

    Raises:
        ResultsError: the arrays have different lengths, or a class has too few images for five folds.
    """
    require_aligned("findings", gate=gate_BE, error=error_BE, label=label_B, feature=feature_BF)
    label_B = np.unique(label_B, return_inverse=True)[1]
    classes = int(label_B.max()) + 1
    precision_BE = relative_precision(error_BE)
    gate_CE, precision_CE = (class_means(response, label_B, classes) for response in (gate_BE, precision_BE))
    gate_axis, readout_axis = (
        class_axis(profile_CE, permutations=permutations, seed=seed) for profile_CE in (gate_CE, precision_CE)
    )
    scores = (gate_axis.score_C, readout_axis.score_C)
    is_partitioned = len(np.unique(gate_BE.argmax(axis=1))) > 1
    if not is_partitioned:
        gate_axis = ClassAxis(NOT_DEFINED, gate_axis.score_C)
    return SeedEncoding(
        gate_axis,
        readout_axis,
        axis_agreement(scores, permutations=permutations, seed=seed).mean,
        _sparser_routing(gate_BE, precision_BE, label_B, permutations, seed) if is_partitioned else NOT_DEFINED,
        beyond_class(precision_BE, feature_BF, label_B, permutations=permutations, seed=seed).mean_gain,
        NOT_DEFINED if separability is None else _relative_spread(separability),
        _distinctness(-np.log(np.maximum(error_BE, 1e-12)), feature_BF, label_B, permutations, seed),
    )


def three_findings(
    seeds: Sequence[SeedEncoding],
    dichotomy: tuple[str, npt.NDArray[np.bool_]] | None = None,
    *,
    permutations: int = PERMUTATIONS,
) -> tuple[EncodingFinding, EncodingFinding, EncodingFinding]:
    """Ask the three findings of the seeds of one model.

    Args:
        seeds: of the same arm and data: their classes are the same.
        dichotomy: name and side of each class, e.g. ``animate-inanimate``: the axis must then be this one. None: any.
        permutations: P, of the classes.
    """
    return _axis_finding(seeds, dichotomy, permutations), _tuning_finding(seeds), _expert_finding(seeds)


def _axis_finding(
    seeds: Sequence[SeedEncoding], dichotomy: tuple[str, npt.NDArray[np.bool_]] | None, permutations: int
) -> EncodingFinding:
    seeds = [seed for seed in seeds if not math.isnan(seed.gate_axis.share.value)]
    criteria = [
        _above(
            f"the first axis carries this share of the variance over classes {where}",
            over_seeds([axis.share for axis in axes]),
            DOMINANT,
        )
        for where, axes in (
            ("of the gate", [seed.gate_axis for seed in seeds]),
            ("of the decoders", [seed.readout_axis for seed in seeds]),
        )
    ]
    criteria.append(
        _above(
            "correlation of the gate's axis with the decoders'",
            over_seeds([seed.gate_to_readout for seed in seeds]),
            DOMINANT,
        )
    )
    if len(seeds) > 1:
        agreement = axis_agreement([seed.gate_axis.score_C for seed in seeds], permutations=permutations)
        criteria.append(_above("correlation of the gate's axis between seeds", _between_seeds(agreement), DOMINANT))
    what = "One axis"
    if dichotomy is not None:
        name, named_C = dichotomy
        what = f"The {name} axis"
        sides = [dichotomy_agreement(seed.gate_axis.score_C > 0, named_C) for seed in seeds]
        criteria.append(_above(f"share of the classes on their side of {name}", over_seeds(sides), 0.75))
    return _finding(
        "one axis",
        f"{what} dominates the partition from the gate to the decoders, the same in every seed",
        seeds,
        criteria,
    )


def _tuning_finding(seeds: Sequence[SeedEncoding]) -> EncodingFinding:
    criteria = [
        _above(
            "sparseness over classes of routing, minus that of decoding",
            over_seeds([seed.sparser_routing for seed in seeds]),
            0,
        ),
        _above(
            "variance of decoding that pixel features explain beyond the class",
            over_seeds([seed.beyond_class for seed in seeds]),
            LEAST_GAIN,
        ),
    ]
    return _finding(
        "sparse routing, broad tuning",
        "Routing is sparse and categorical while tuning is broad and continues within categories",
        seeds,
        criteria,
    )


def _expert_finding(seeds: Sequence[SeedEncoding]) -> EncodingFinding:
    spread = over_seeds([seed.relative_spread for seed in seeds])
    met = None
    if spread.interval.n >= LEAST_RUNS:
        met = True if spread.interval.high < ALIKE else False if spread.interval.low > ALIKE else None
    criteria = [
        Criterion(
            f"spread over experts of how well they separate the classes, relative to its mean (alike below {ALIKE})",
            spread,
            met,
        ),
        _above(
            "correlation of an expert's feature tuning with its own on other images, minus that with other experts'",
            over_seeds([seed.distinctness for seed in seeds]),
            0.05,
        ),
    ]
    return _finding(
        "alike separability, unlike tuning",
        "Experts are alike in how well they separate the classes and unlike in tuning",
        seeds,
        criteria,
    )


def _above(text: str, statistic: SeedStatistic, least: float) -> Criterion:
    """Met: the interval is above `least` and, where there is one, the permutation test is significant."""
    interval = statistic.interval
    met = None
    if interval.n >= LEAST_RUNS:
        if interval.high < least:
            met = False
        elif interval.low > least and not statistic.p > ALPHA:
            met = True
    return Criterion(f"{text} (above {least:g})", statistic, met)


def _finding(name: str, claim: str, seeds: Sequence[SeedEncoding], criteria: Sequence[Criterion]) -> EncodingFinding:
    answer: Answer = "cannot tell"
    if any(criterion.met is False for criterion in criteria):
        answer = "does not hold here"
    elif all(criterion.met for criterion in criteria) and len(seeds) >= LEAST_RUNS:
        answer = "holds here"
    return EncodingFinding(name, claim, answer, len(seeds), tuple(criteria))


def _told(criterion: Criterion) -> str:
    interval, chance, p = criterion.statistic
    told = f"{criterion.text}: {interval}"
    if not math.isnan(p):
        told += f", chance {format_cell('ami', chance)}, p = {p:.3f}"
    return told


def _between_seeds(agreement: SeedAgreement) -> SeedStatistic:
    return SeedStatistic(mean_interval(agreement.of_seeds()), agreement.mean.chance, agreement.mean.p)


def _sparser_routing(
    gate_BE: npt.NDArray[Any], precision_BE: FloatArray, label_B: IntArray, permutations: int, seed: int
) -> PermutationTest:
    images, experts = gate_BE.shape
    response_BX = np.concatenate([gate_BE, precision_BE], axis=1)
    classes = int(label_B.max()) + 1

    def contrast(order_B: IntArray) -> float:
        sparseness_X = lifetime_sparseness(class_means(response_BX, label_B[order_B], classes).T)
        return _mean(sparseness_X[:experts]) - _mean(sparseness_X[experts:])

    rng = np.random.default_rng(seed)
    null_P = np.array([contrast(rng.permutation(images)) for _ in range(permutations)])
    return PermutationTest(contrast(np.arange(images)), null_P)


def _relative_spread(separability: ExpertSeparability) -> PermutationTest:
    defined = [found.ridge for found in separability.everything if not math.isnan(found.ridge.value)]
    if not defined:
        return NOT_DEFINED
    above = float(np.mean([ridge.value - ridge.chance for ridge in defined]))
    if above <= 0:  # nothing is separated, so that there is nothing to be alike in
        return NOT_DEFINED
    return PermutationTest(separability.spread.value / above, separability.spread.null_P / above)


def _distinctness(
    response_BE: FloatArray, feature_BF: FloatArray, label_B: IntArray, permutations: int, seed: int
) -> PermutationTest:
    experts = response_BE.shape[1]
    if experts < 2:
        return NOT_DEFINED
    half_B = stratified_folds(label_B, 2, seed)
    first_EF, second_EF = (
        feature_profile(response_BE[half_B == half], feature_BF[half_B == half], label_B[half_B == half])
        for half in (0, 1)
    )
    correlation_EE = _row_correlations(first_EF, second_EF)
    rng = np.random.default_rng(seed)
    orders = [np.arange(experts), *(rng.permutation(experts) for _ in range(permutations))]
    own_P = np.array([correlation_EE[np.arange(experts), order_E].mean() for order_E in orders])
    distinct_P = own_P - (correlation_EE.sum() / experts - own_P) / (experts - 1)
    return PermutationTest(float(distinct_P[0]), distinct_P[1:])


def _row_correlations(one_EF: FloatArray, other_EF: FloatArray) -> FloatArray:
    units = []
    for profile_EF in (one_EF, other_EF):
        centred_EF = profile_EF - profile_EF.mean(axis=1, keepdims=True)
        norm_E = np.linalg.norm(centred_EF, axis=1)
        units.append(centred_EF / np.where(norm_E > 1e-12, norm_E, np.inf)[:, None])
    correlation_EE: FloatArray = units[0] @ units[1].T
    return correlation_EE


def _mean(value_E: FloatArray) -> float:
    return float(np.nanmean(value_E)) if not np.isnan(value_E).all() else math.nan
