"""Do other seeds find the same: partitions, tuning, and what divides the classes among experts first?

Shapes: S seeds, B images, E experts, X stimuli or features, C classes, P permutations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.encoding.permutation import NOT_DEFINED, PERMUTATIONS, PermutationTest
from smoe_ray.errors import ResultsError

_MOST_ASSIGNMENTS = 20_000
"""Of classes to the sides of a dichotomy, up to which all are enumerated."""


class SeedAgreement(NamedTuple):
    """SeedAgreement of every pair of seeds."""

    score_SS: FloatArray
    """Diagonal NaN."""
    mean: PermutationTest
    """Mean over pairs; null: what the seeds have in common (images, stimuli, classes) permuted in one of each pair."""

    def of_seeds(self) -> FloatArray:
        """Mean of each seed with the others, (S,). Seeds share pairs, so an interval over these is approximate."""
        seeds: FloatArray = np.nanmean(self.score_SS, axis=1)
        return seeds


def partition_agreement(
    expert_SB: Sequence[IntArray], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> SeedAgreement:
    """Adjusted mutual information (Vinh, Epps and Bailey 2010) of the partitions of the same images by expert.

    Raises:
        ResultsError: there are fewer than two seeds, or their numbers of images differ.
    """
    _require_seeds("agreement of partitions", expert_SB, len(set(map(len, expert_SB))) > 1)
    rng = np.random.default_rng(seed)
    order_PB = np.array([rng.permutation(len(expert_SB[0])) for _ in range(permutations)])

    def compare(one: int, other: int) -> Iterator[float]:
        first_B, second_B = (np.unique(expert_SB[each], return_inverse=True)[1] for each in (one, other))
        score = _AdjustedMutualInformation(first_B, second_B)
        yield score.of(second_B)
        for order_B in order_PB:
            yield score.of(second_B[order_B])

    return _pairwise(len(expert_SB), compare)


def tuning_agreement(
    tuning_S: Sequence[npt.NDArray[Any]], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> SeedAgreement:
    """Mean correlation of the tuning of experts of two seeds, matched one to one so that it is highest (Hungarian).

    Permutations of the stimuli are matched anew, so that chance includes what matching gains.

    Args:
        tuning_S: per seed (E, X), the response of each expert to the same stimuli, or its profile over features.
        permutations: P, of the stimuli.
        seed: of the permutations.

    Raises:
        ResultsError: there are fewer than two seeds, or their numbers of stimuli differ.
    """
    from scipy.optimize import linear_sum_assignment

    widths = {tuning_EX.shape[1] for tuning_EX in tuning_S}
    _require_seeds("agreement of tuning", tuning_S, len(widths) > 1)
    rng = np.random.default_rng(seed)
    order_PX = [rng.permutation(tuning_S[0].shape[1]) for _ in range(permutations)]
    unit_S = [_unit_rows(tuning_EX) for tuning_EX in tuning_S]

    def compare(one: int, other: int) -> Iterator[float]:
        for order_X in (np.arange(unit_S[0].shape[1]), *order_PX):
            correlation_EF = unit_S[one] @ unit_S[other][:, order_X].T
            yield float(correlation_EF[linear_sum_assignment(correlation_EF, maximize=True)].mean())

    return _pairwise(len(tuning_S), compare)


# --- classes ----------------------------------------------------------------------------------------------------------


class ClassAxis(NamedTuple):
    """First principal axis of the classes' profiles over experts."""

    share: PermutationTest
    """Of the variance over classes that it carries. Null: the values of each expert permuted over the classes, expert
    by expert (parallel analysis; Horn 1965)."""
    score_C: FloatArray
    """Of the classes along it; its sign is arbitrary."""


def class_axis(profile_CE: npt.NDArray[Any], *, permutations: int = PERMUTATIONS, seed: int = 0) -> ClassAxis:
    """The axis along which classes differ most.

    Args:
        profile_CE: mean response of each expert to each class.
        permutations: P.
        seed: of the permutations.
    """
    centred_CE = np.asarray(profile_CE, np.float64) - np.mean(profile_CE, axis=0)
    left, size, _ = np.linalg.svd(centred_CE, full_matrices=False)
    if not len(size) or size[0] < 1e-12:
        return ClassAxis(NOT_DEFINED, np.zeros(len(centred_CE)))
    rng = np.random.default_rng(seed)
    shuffled_PCE = np.stack([rng.permuted(centred_CE, axis=0) for _ in range(permutations)])
    null_P = _first_share(np.linalg.svd(shuffled_PCE, compute_uv=False))
    return ClassAxis(PermutationTest(float(_first_share(size)), null_P), left[:, 0] * size[0])


def axis_agreement(score_SC: Sequence[FloatArray], *, permutations: int = PERMUTATIONS, seed: int = 0) -> SeedAgreement:
    """|Pearson correlation| of the class scores of the axes of two seeds, or of two levels of one model.

    Raises:
        ResultsError: there are fewer than two axes, or their numbers of classes differ.
    """
    _require_seeds("agreement of axes", score_SC, len(set(map(len, score_SC))) > 1)
    rng = np.random.default_rng(seed)
    classes = len(score_SC[0])
    order_PC = np.array([np.arange(classes), *(rng.permutation(classes) for _ in range(permutations))])
    unit_SC = _unit_rows(np.array(score_SC))
    return _pairwise(len(score_SC), lambda one, other: np.abs(unit_SC[other][order_PC] @ unit_SC[one]).tolist())


ANIMATE = frozenset({"bird", "cat", "deer", "dog", "frog", "horse"})
INANIMATE = frozenset({"airplane", "automobile", "ship", "truck"})
"""The ten classes of CIFAR-10."""


def animate_classes(class_names: Sequence[str]) -> npt.NDArray[np.bool_] | None:
    """Whether each class is animate; None unless every class is one of CIFAR-10's, and both kinds are there."""
    animate_C = np.array([name in ANIMATE for name in class_names])
    known = all(name in ANIMATE | INANIMATE for name in class_names)
    return animate_C if known and 0 < animate_C.sum() < len(animate_C) else None


class FirstSplit(NamedTuple):
    """The two groups of classes that experts tell apart first."""

    side_C: npt.NDArray[np.bool_]
    """Which group a class belongs to; True for that of the first class."""
    share: float
    """Of the variance of the profiles over classes that lies between the two groups."""


def first_split(profile_CE: npt.NDArray[Any]) -> FirstSplit:
    """Top of the tree of the classes by their profiles over experts (Ward 1963).

    Raises:
        ResultsError: there are fewer than two classes.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    profile_CE = np.asarray(profile_CE, np.float64)
    if len(profile_CE) < 2:
        raise ResultsError("first split of experts: there is a single class; it takes two or more")
    group_C = fcluster(linkage(profile_CE, "ward"), 2, "maxclust")
    side_C = group_C == group_C[0]
    centred_CE = profile_CE - profile_CE.mean(axis=0)
    total = float(np.square(centred_CE).sum())
    between = sum(
        side.sum() * np.square(centred_CE[side].mean(axis=0)).sum() for side in (side_C, ~side_C) if side.any()
    )
    return FirstSplit(side_C, float(between / total) if total > 0 else math.nan)


def dichotomy_agreement(
    side_C: npt.NDArray[np.bool_], named_C: npt.NDArray[np.bool_], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> PermutationTest:
    """Share of the classes on the same side of two dichotomies, 0.5 to 1, whichever side is called the first.

    Null: all assignments of classes to sides of these sizes if there are at most 20,000, else random ones. Of few
    classes none is unlikely: with two against three, the lowest p is 0.1.

    Raises:
        ResultsError: the numbers of classes differ.
    """
    if len(side_C) != len(named_C):
        raise ResultsError(f"agreement of dichotomies: {len(side_C)} classes against {len(named_C)}; name every class")
    classes, chosen = len(side_C), int(named_C.sum())
    if math.comb(classes, chosen) <= _MOST_ASSIGNMENTS:
        assigned = np.zeros((math.comb(classes, chosen), classes), bool)
        for row, members in enumerate(combinations(range(classes), chosen)):
            assigned[row, list(members)] = True
        assigned = assigned[(assigned != named_C).any(axis=1)]  # that of the data is counted by the test itself
    else:
        rng = np.random.default_rng(seed)
        assigned = np.stack([rng.permutation(named_C) for _ in range(permutations)])
    same_P = (assigned == side_C).mean(axis=1)
    same = float((side_C == named_C).mean())
    return PermutationTest(max(same, 1 - same), np.maximum(same_P, 1 - same_P))


class _AdjustedMutualInformation:
    """AMI of partitions with the block sizes of these two: their entropies and expected MI are computed once."""

    def __init__(self, first_B: IntArray, second_B: IntArray) -> None:
        from scipy.sparse import csr_matrix
        from scipy.special import entr
        from sklearn.metrics.cluster import expected_mutual_information

        self._first_B, self._shape = first_B, (first_B.max() + 1, second_B.max() + 1)
        images = len(first_B)
        self._entropies = [float(entr(np.bincount(block_B) / images).sum()) for block_B in (first_B, second_B)]
        self._expected = float(expected_mutual_information(csr_matrix(self._count(second_B)), images))

    def of(self, second_B: IntArray) -> float:
        from scipy.special import entr

        if 1 in self._shape:
            return 0.0  # one block divides nothing
        joint = float(entr(self._count(second_B) / len(second_B)).sum())
        information = sum(self._entropies) - joint
        return (information - self._expected) / (sum(self._entropies) / 2 - self._expected)

    def _count(self, second_B: IntArray) -> IntArray:
        rows, columns = self._shape
        count: IntArray = np.bincount(self._first_B * columns + second_B, minlength=rows * columns)
        return count.reshape(rows, columns)


def _pairwise(seeds: int, compare: Callable[[int, int], Iterable[float]]) -> SeedAgreement:
    """`compare(one, other)` gives the score of a pair, then its permutations."""
    score_SS = np.full((seeds, seeds), np.nan)
    nulls = []
    for one, other in combinations(range(seeds), 2):
        score, *null_P = compare(one, other)
        score_SS[one, other] = score_SS[other, one] = score
        nulls.append(null_P)
    return SeedAgreement(score_SS, PermutationTest(float(np.nanmean(score_SS)), np.mean(nulls, axis=0)))


def _unit_rows(value_EX: npt.NDArray[Any]) -> FloatArray:
    """Centred rows of norm 1, whose products are correlations; rows that do not vary become 0."""
    centred_EX = np.asarray(value_EX, np.float64) - np.mean(value_EX, axis=1, keepdims=True)
    norm_E = np.linalg.norm(centred_EX, axis=1)
    unit_EX: FloatArray = centred_EX / np.where(norm_E > 1e-12, norm_E, np.inf)[:, None]
    return unit_EX


def _first_share(size: FloatArray) -> Any:
    square = np.square(size)
    return square[..., 0] / square.sum(axis=-1)


def _require_seeds(what: str, seeds: Sequence[Any], unequal: bool) -> None:
    if len(seeds) < 2 or unequal:
        raise ResultsError(f"{what}: pass two seeds or more of the same images, stimuli or classes")
