"""How alike experts represent the images: linear CKA and RSA, against shuffled images, and across seeds.

Shapes: B images, E experts, H hidden values, S seeds, P permutations, N images of the sample for permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.encoding.permutation import NOT_DEFINED, PERMUTATIONS, PermutationTest
from smoe_ray.errors import ResultsError

MOST_IMAGES = 2000
"""For CKA; it is unbiased at any number."""
NULL_IMAGES = 200
"""For RSA and for permutations, whose cost grows with the square."""
LEAST_IMAGES = 4
"""The unbiased estimator divides by N - 3."""


class ExpertSimilarity(NamedTuple):
    """Pairwise similarity of the hidden values of experts. NaN for experts whose values do not vary."""

    images: int
    null_images: int
    cka_EE: FloatArray
    """Debiased linear CKA: see `linear_cka`. Diagonal 1."""
    rsa_EE: FloatArray
    """Spearman correlation of the experts' dissimilarities (1 - Pearson correlation of hidden values) of pairs of
    images (Kriegeskorte et al. 2008), over `null_images`."""
    cka_p_EE: FloatArray
    """Of each pair, over `null_images`, the images of one expert permuted; diagonal NaN."""
    rsa_p_EE: FloatArray
    cka: PermutationTest
    """Mean over pairs of experts, over `null_images`."""
    rsa: PermutationTest


class SeedSimilarity(NamedTuple):
    """CKA between the experts of different seeds, matched one to one so that their mean is highest (Hungarian)."""

    matched_SS: FloatArray
    """Mean over matched pairs; diagonal NaN."""
    ceiling: float
    """Mean over pairs of seeds: how alike the same expert of another seed is, and so how alike two experts of one seed
    could be expected to be at most if they encoded the same."""


def expert_similarity(
    hidden_EBH: npt.NDArray[Any], *, permutations: int = PERMUTATIONS, most: int = MOST_IMAGES, seed: int = 0
) -> ExpertSimilarity:
    """Similarity of all pairs of experts on the same images.

    Args:
        hidden_EBH: hidden values of every expert for every image; other dimensions are flattened.
        permutations: P, of the images.
        most: images for `cka_EE`, of more a random sample.
        seed: of samples and permutations.

    Raises:
        ResultsError: there are fewer than `LEAST_IMAGES` images.
    """
    experts, images = hidden_EBH.shape[:2]
    if images < LEAST_IMAGES:
        raise ResultsError(f"similarity of experts: {images} images; at least {LEAST_IMAGES} are needed")
    rng = np.random.default_rng(seed)
    order_B = rng.permutation(images)
    null_N = np.sort(order_B[:NULL_IMAGES])
    pattern_ENH = [_flat(hidden_BH, null_N) for hidden_BH in hidden_EBH]
    kernel_EM = np.stack([_unit(_u_centred(x_NH @ x_NH.T)) for x_NH in pattern_ENH])
    rank_EM = np.stack([_unit(_ranked_dissimilarity(x_NH)) for x_NH in pattern_ENH])
    order_PN = np.array([rng.permutation(len(null_N)) for _ in range(permutations)]).reshape(permutations, -1)
    cka_null_PEE, rsa_null_PEE = (_permuted_products(unit_EM, order_PN) for unit_EM in (kernel_EM, rank_EM))
    rsa_EE = _products(rank_EM)
    null_cka_EE = _products(kernel_EM)
    return ExpertSimilarity(
        min(images, most),
        len(null_N),
        cka_matrix(hidden_EBH[:, np.sort(order_B[:most])]),
        rsa_EE,
        _pair_p(null_cka_EE, cka_null_PEE),
        _pair_p(rsa_EE, rsa_null_PEE),
        _mean_over_pairs(null_cka_EE, cka_null_PEE) if experts > 1 else NOT_DEFINED,
        _mean_over_pairs(rsa_EE, rsa_null_PEE) if experts > 1 else NOT_DEFINED,
    )


def linear_cka(x_BH: npt.NDArray[Any], y_BH: npt.NDArray[Any]) -> float:
    """Centred kernel alignment with a linear kernel, debiased: HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)).

    HSIC is the unbiased estimator (Song et al. 2012, JMLR 13:1393, eq. 5), as in Kornblith et al. (arXiv:1905.00414)
    and Nguyen et al. (arXiv:2010.15327): expectation 0 for independent x and y whatever B, which the biased one exceeds
    by far where B is not much larger than H. It may be negative. NaN where x or y does not vary.
    """
    return float(_cka([_Centred.of(x_BH)], [_Centred.of(y_BH)])[0, 0])


def cka_matrix(hidden_EBH: npt.NDArray[Any], other_FBH: npt.NDArray[Any] | None = None) -> FloatArray:
    """`linear_cka` of all pairs of experts, (E, E), or of the experts of two seeds on the same images, (E, F)."""
    first = [_Centred.of(hidden_BH) for hidden_BH in hidden_EBH]
    return _cka(first, first if other_FBH is None else [_Centred.of(hidden_BH) for hidden_BH in other_FBH])


def similarity_across_seeds(
    hidden_S: Sequence[npt.NDArray[Any]], *, most: int = MOST_IMAGES, seed: int = 0
) -> SeedSimilarity:
    """Match the experts of every pair of seeds by CKA.

    Args:
        hidden_S: per seed the hidden values (E, B, H) on the same test images in the same order.
        most: images, of more a random sample.
        seed: of the sample.

    Raises:
        ResultsError: there are fewer than two seeds, or their numbers of images differ.
    """
    from scipy.optimize import linear_sum_assignment

    images = {hidden_EBH.shape[1] for hidden_EBH in hidden_S}
    if len(hidden_S) < 2 or len(images) > 1:
        raise ResultsError("similarity across seeds: pass two seeds or more on the same test images")
    chosen = np.sort(np.random.default_rng(seed).permutation(images.pop())[:most])
    centred = [[_Centred.of(hidden_BH[chosen]) for hidden_BH in hidden_EBH] for hidden_EBH in hidden_S]
    matched_SS = np.full((len(hidden_S),) * 2, np.nan)
    for one, other in combinations(range(len(hidden_S)), 2):
        cka_EF = np.nan_to_num(_cka(centred[one], centred[other]))
        pairs = linear_sum_assignment(cka_EF, maximize=True)
        matched_SS[one, other] = matched_SS[other, one] = cka_EF[pairs].mean()
    return SeedSimilarity(matched_SS, float(np.nanmean(matched_SS)))


class _Centred(NamedTuple):
    """What CKA needs of one expert: centred values at a common scale, and the squared norm of each row."""

    x_BH: npt.NDArray[np.float32]
    norm_B: FloatArray

    @classmethod
    def of(cls, hidden_BH: npt.NDArray[Any]) -> _Centred:
        x_BH = _flat(hidden_BH)
        x_BH = x_BH - x_BH.mean(axis=0)
        scale = np.sqrt(np.square(x_BH).mean(dtype=np.float64) * x_BH.shape[1])
        x_BH = x_BH / np.float32(scale if scale > 1e-6 else np.inf)
        return cls(x_BH, np.square(x_BH).sum(axis=1, dtype=np.float64))


def _cka(first: Sequence[_Centred], second: Sequence[_Centred]) -> FloatArray:
    own = {id(each): _hsic(each, each) for each in (*first, *second)}
    cka_EF = np.full((len(first), len(second)), np.nan)
    for e, x in enumerate(first):
        for f, y in enumerate(second):
            square = own[id(x)] * own[id(y)]
            if first is second and f < e:
                cka_EF[e, f] = cka_EF[f, e]
            elif min(own[id(x)], own[id(y)]) > 0:
                cka_EF[e, f] = _hsic(x, y) / np.sqrt(square)
    return cka_EF


def _hsic(x: _Centred, y: _Centred) -> float:
    """Unbiased HSIC times N (N - 3), of centred values: tr(K̃L̃) with the corrections for the zeroed diagonals."""
    images = len(x.norm_B)
    if max(x.x_BH.shape[1], y.x_BH.shape[1]) <= images:
        product = np.square(x.x_BH.T @ y.x_BH).sum(dtype=np.float64)
    else:
        product = ((x.x_BH @ x.x_BH.T) * (y.x_BH @ y.x_BH.T)).sum(dtype=np.float64)
    diagonal = float(x.norm_B @ y.norm_B) * images / (images - 2)
    traces = float(x.norm_B.sum() * y.norm_B.sum()) / ((images - 1) * (images - 2))
    return float(product) - diagonal + traces


def _flat(hidden_BH: npt.NDArray[Any], chosen: IntArray | slice = slice(None)) -> npt.NDArray[np.float32]:
    chosen_NH = np.asarray(hidden_BH[chosen], np.float32)
    return chosen_NH.reshape(len(chosen_NH), -1)


def _u_centred(kernel_NN: npt.NDArray[Any]) -> FloatArray:
    """Zero diagonal, rows and columns that sum to 0: the inner product of two such is the unbiased HSIC."""
    images = len(kernel_NN)
    centred_NN = np.array(kernel_NN, np.float64)
    np.fill_diagonal(centred_NN, 0)
    row_N = centred_NN.sum(axis=1) / (images - 2)
    centred_NN += centred_NN.sum() / ((images - 1) * (images - 2)) - row_N[:, None] - row_N[None, :]
    np.fill_diagonal(centred_NN, 0)
    return centred_NN


def _ranked_dissimilarity(x_NH: npt.NDArray[np.float32]) -> FloatArray:
    """Ranks of the dissimilarities of pairs of images, minus their mean, as a symmetric matrix with zero diagonal."""
    from scipy.stats import rankdata

    centred_NH = x_NH - x_NH.mean(axis=1, keepdims=True)
    norm_N = np.linalg.norm(centred_NH, axis=1)
    unit_NH = centred_NH / np.where(norm_N > 1e-6, norm_N, np.inf)[:, None]
    upper = np.triu_indices(len(x_NH), 1)
    # Equal pairs of images differ by rounding of the product, which must not order them.
    rank = rankdata(np.round(1 - (unit_NH @ unit_NH.T)[upper], 6))
    matrix_NN = np.zeros((len(x_NH),) * 2)
    matrix_NN[upper] = rank - rank.mean()
    symmetric_NN: FloatArray = matrix_NN + matrix_NN.T
    return symmetric_NN


def _unit(matrix_NN: FloatArray) -> npt.NDArray[np.float32]:
    """Flattened, at norm 1; NaN where it is 0."""
    norm = np.linalg.norm(matrix_NN)
    unit_M: npt.NDArray[np.float32] = (matrix_NN.ravel() / (norm if norm > 1e-9 else np.nan)).astype(np.float32)
    return unit_M


def _products(unit_EM: npt.NDArray[np.float32]) -> FloatArray:
    products_EE: FloatArray = (unit_EM @ unit_EM.T).astype(np.float64)
    return products_EE


def _permuted_products(unit_EM: npt.NDArray[np.float32], order_PN: IntArray) -> FloatArray:
    """Products of each pair, the images of the second permuted; (P, E, E)."""
    experts, images = len(unit_EM), order_PN.shape[1]
    entry_ME = np.ascontiguousarray(unit_EM.T)  # one entry of every expert is one read
    null_PEE = np.empty((len(order_PN), experts, experts))
    for draw, order_N in enumerate(order_PN):
        null_PEE[draw] = unit_EM @ entry_ME[(order_N[:, None] * images + order_N).ravel()]
    return null_PEE


def _pair_p(value_EE: FloatArray, null_PEE: FloatArray) -> FloatArray:
    experts = len(value_EE)
    p_EE = np.full((experts, experts), np.nan)
    for e, f in combinations(range(experts), 2):
        p_EE[e, f] = p_EE[f, e] = PermutationTest(float(value_EE[e, f]), null_PEE[:, e, f]).p
    return p_EE


def _mean_over_pairs(value_EE: FloatArray, null_PEE: FloatArray) -> PermutationTest:
    defined = np.flatnonzero(~np.isnan(np.diag(value_EE)))
    if len(defined) < 2:
        return NOT_DEFINED
    row, column = (defined[index] for index in np.triu_indices(len(defined), 1))
    return PermutationTest(float(value_EE[row, column].mean()), null_PEE[:, row, column].mean(axis=1))
