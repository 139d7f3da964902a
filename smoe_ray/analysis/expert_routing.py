"""How experts partition the images: contingency with classes or styles, agreement scores, selectivity of experts.

Shapes: B images, E experts, C classes. Every function on classes works on styles (sub-categories) as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.errors import ResultsError


class Agreement(NamedTuple):
    """How well the partition of images by expert agrees with that by class. All are NaN without images."""

    nmi: float
    """Mutual information / mean of the two entropies, 0 to 1; 1 if both partitions have a single block, 0 if only
    one has. The same holds for `ami` and `ari`."""
    ami: float
    """Adjusted mutual information (Vinh, Epps and Bailey 2010): expectation 0 for random routing, at most 1."""
    ari: float
    """Adjusted Rand index (Hubert and Arabie 1985): expectation 0 for random routing, at most 1."""
    cramers_v: float
    """sqrt(chi2 / (B·(min(E, C) - 1))) of active experts and present classes, 0 to 1; NaN if either has only one."""
    cramers_v_corrected: float
    """The same with small-sample bias correction (Bergsma 2013); NaN also if nearly every image has its own expert or
    class."""
    purity: float
    """Fraction of images whose class is the most frequent one of their expert, max P(c) to 1; grows with the number of
    experts."""
    matched_accuracy: float
    """Fraction of images whose class is matched to their expert, under the one-to-one matching of active experts and
    classes that maximises it (Hungarian method); images of unmatched experts count as errors."""
    matched_correlation: float
    """Pearson correlation of an image's class id with the id matched to its expert (arXiv:2509.10025). Ids are nominal,
    so this depends on the order of classes. Over images of matched experts; NaN if either id does not vary."""
    matched_share: float
    """Fraction of images whose expert is matched to a class; below 1 if there are more active experts than classes."""


class Routing(NamedTuple):
    """Experts against classes on one set of images."""

    class_names: tuple[str, ...]
    count_EC: IntArray
    """Number of images by expert and class."""
    share_E: FloatArray
    """Fraction of the images routed to each expert; NaN without images, as are the next two."""
    class_share_C: FloatArray
    class_given_expert_EC: FloatArray
    """P(c|e); NaN in the rows of dead experts (those without images)."""
    expert_given_class_EC: FloatArray
    """P(e|c); NaN in the columns of absent classes."""
    selectivity_E: FloatArray
    """S_e = 1 - H(P(c|e)) / ln C, C classes present: 0 for a uniform mix of classes, 1 for a single class. NaN for dead
    experts and if only one class is present."""
    match_E: IntArray
    """Class matched to each active expert (see `Agreement.matched_accuracy`); -1: none."""
    reading_order: IntArray
    """Active experts, sorted by their most frequent class, then by share: large cells lie along the diagonal."""
    active: int
    """Number of experts with at least one image."""
    effective: float
    """exp(H(share_E)), 1 to E; NaN without images."""
    agreement: Agreement
    block: str = "expert"
    """What a row is called: groups of experts are compared with classes as experts are."""


def routing(expert_B: IntArray, class_B: IntArray, num_experts: int, class_names: Sequence[str]) -> Routing:
    """Compare the expert of each image with its class, or with its style.

    Args:
        expert_B: expert of each image, 0 to `num_experts` - 1.
        class_B: class of each image, an index into `class_names`.
        num_experts: E, experts configured.
        class_names: C names.

    Raises:
        ResultsError: the two arrays have different lengths, or contain an id out of range.
    """
    require_aligned("routing", expert=expert_B, label=class_B)
    count_EC = contingency(expert_B, class_B, num_experts, len(class_names))
    expert_count_E, class_count_C = count_EC.sum(axis=1), count_EC.sum(axis=0)
    share_E = _divide(expert_count_E, len(expert_B))
    class_given_expert_EC = _divide(count_EC, expert_count_E[:, None])
    match_E = _match(count_EC)
    return Routing(
        tuple(class_names),
        count_EC,
        share_E,
        _divide(class_count_C, len(class_B)),
        class_given_expert_EC,
        _divide(count_EC, class_count_C[None, :]),
        _selectivity(class_given_expert_EC, int(np.count_nonzero(class_count_C))),
        match_E,
        reading_order(count_EC),
        int(np.count_nonzero(expert_count_E)),
        _effective(share_E),
        _agreement(expert_B, class_B, count_EC, match_E),
    )


def routing_within_classes(
    expert_B: IntArray,
    label_B: IntArray,
    style_B: IntArray,
    num_experts: int,
    class_names: Sequence[str],
    style_names: Sequence[str],
) -> dict[str, Routing]:
    """Experts against styles within each class: do experts that share a class partition it by its sub-categories?

    Agreement over all images cannot tell, because styles are nested in classes: identifying the class already helps.

    Returns:
        By class name, `routing` of the images of that class against their styles. Classes without images are omitted.

    Raises:
        ResultsError: the arrays have different lengths, or contain an id out of range.
    """
    require_aligned("routing within classes", expert=expert_B, label=label_B, style=style_B)
    _require_ids("class", label_B, len(class_names))
    _require_ids("style", style_B, len(style_names))
    routing_of = {}
    for label in np.unique(label_B):
        inside_B = label_B == label
        present, style_of_inside = np.unique(style_B[inside_B], return_inverse=True)
        names = [style_names[style] for style in present]
        routing_of[class_names[label]] = routing(expert_B[inside_B], style_of_inside, num_experts, names)
    return routing_of


def contingency(expert_B: IntArray, class_B: IntArray, num_experts: int, num_classes: int) -> IntArray:
    """Number of images by expert and class, (E, C). Raises ResultsError if an id is out of range."""
    _require_ids("expert", expert_B, num_experts)
    _require_ids("class", class_B, num_classes)
    count_EC = np.zeros((num_experts, num_classes), np.int64)
    np.add.at(count_EC, (expert_B, class_B), 1)
    return count_EC


def reading_order(count_EC: IntArray) -> IntArray:
    """Active experts, sorted by their most frequent class, then by decreasing number of images."""
    expert_count_E = count_EC.sum(axis=1)
    order = np.lexsort((-expert_count_E, count_EC.argmax(axis=1)))
    active: IntArray = order[expert_count_E[order] > 0]
    return active


def require_aligned(what: str, **array_of: npt.NDArray[Any]) -> None:
    """Raise ResultsError, naming `what`, when the arrays do not describe the same number of images."""
    lengths = {name: len(array) for name, array in array_of.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise ResultsError(
            f"{what}: arrays of different lengths ({counts}); pass arrays of one trial, from read_embeddings"
        )


def _require_ids(kind: str, id_B: IntArray, count: int) -> None:
    if len(id_B) and (id_B.min() < 0 or id_B.max() >= count):
        raise ResultsError(
            f"routing: {kind} ids run from {id_B.min()} to {id_B.max()}, but there are {count}; "
            f"pass the number and names of the same trial"
        )


def _divide(count: IntArray, total: IntArray | int) -> FloatArray:
    """`count` / `total`; NaN where the total is 0."""
    count, total = np.broadcast_arrays(count, total)
    ratio: FloatArray = np.divide(count, total, out=np.full(count.shape, np.nan), where=total > 0)
    return ratio


def _effective(share_E: FloatArray) -> float:
    from scipy.special import entr

    return math.exp(entr(share_E).sum())


def _selectivity(class_given_expert_EC: FloatArray, num_present: int) -> FloatArray:
    from scipy.special import entr

    if num_present < 2:
        return np.full(len(class_given_expert_EC), np.nan)
    selectivity_E: FloatArray = 1 - entr(class_given_expert_EC).sum(axis=1) / math.log(num_present)
    return selectivity_E


def _match(count_EC: IntArray) -> IntArray:
    """One-to-one matching of active experts and present classes with the most images in matched pairs; -1: none."""
    from scipy.optimize import linear_sum_assignment

    active = np.flatnonzero(count_EC.sum(axis=1))
    present = np.flatnonzero(count_EC.sum(axis=0))
    row, column = linear_sum_assignment(count_EC[np.ix_(active, present)], maximize=True)
    match_E = np.full(len(count_EC), -1, np.int64)
    match_E[active[row]] = present[column]
    return match_E


def _agreement(expert_B: IntArray, class_B: IntArray, count_EC: IntArray, match_E: IntArray) -> Agreement:
    from sklearn import metrics

    if not len(expert_B):
        return Agreement(*[math.nan] * len(Agreement._fields))
    matched_B = match_E[expert_B]
    has_match_B = matched_B >= 0
    v, v_corrected = _cramers_v(count_EC)
    return Agreement(
        nmi=float(metrics.normalized_mutual_info_score(class_B, expert_B)),
        ami=float(metrics.adjusted_mutual_info_score(class_B, expert_B)),
        ari=float(metrics.adjusted_rand_score(class_B, expert_B)),
        cramers_v=v,
        cramers_v_corrected=v_corrected,
        purity=float(count_EC.max(axis=1).sum() / len(expert_B)),
        matched_accuracy=float(np.mean(matched_B == class_B)),
        matched_correlation=_correlation(matched_B[has_match_B], class_B[has_match_B]),
        matched_share=float(np.mean(has_match_B)),
    )


def _cramers_v(count_EC: IntArray) -> tuple[float, float]:
    """Cramer's V and its bias-corrected form (Bergsma 2013, J. Korean Stat. Soc. 42:323)."""
    from scipy.stats.contingency import association

    table = count_EC[np.ix_(count_EC.any(axis=1), count_EC.any(axis=0))]
    rows, columns = table.shape
    if min(rows, columns) < 2:
        return math.nan, math.nan
    v = float(association(table, method="cramer"))
    degrees = table.sum() - 1
    phi2 = max(0.0, v**2 * (min(rows, columns) - 1) - (rows - 1) * (columns - 1) / degrees)
    least = min(rows - (rows - 1) ** 2 / degrees, columns - (columns - 1) ** 2 / degrees)
    return v, math.sqrt(phi2 / (least - 1)) if least > 1 else math.nan


def _correlation(x_B: IntArray, y_B: IntArray) -> float:
    if len(np.unique(x_B)) < 2 or len(np.unique(y_B)) < 2:
        return math.nan
    return float(np.corrcoef(x_B, y_B)[0, 1])
