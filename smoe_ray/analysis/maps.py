"""Maps: the latent space in two dimensions, and how trustworthy the map is.

Shapes: B images, Z latent, G groups of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.expert_routing import contingency, reading_order, require_aligned
from smoe_ray.errors import ResultsError

LEAST_IMAGES = 50
"""Fewest images of a meaningful map."""
NEIGHBOURS = 12
"""Neighbours per image in the trustworthiness."""
_INTERPOLATED_FROM = 2500
"""Fewest images for which FIt-SNE (interpolation on a grid) is faster than Barnes-Hut."""
_CHUNK = 512
"""Images whose distances to all others are in memory at once."""

Latent = npt.NDArray[np.floating[Any]]


class LatentMap(NamedTuple):
    """A t-SNE map of latent vectors."""

    xy_B2: FloatArray
    """Neighbourhoods are meaningful; axes, distances between clusters and cluster sizes are not."""
    trustworthiness: float
    """See `trustworthiness`, with `NEIGHBOURS` neighbours."""
    perplexity: float
    seed: int


def latent_map(mu_BZ: Latent, *, perplexity: float = 30, seed: int = 0) -> LatentMap:
    """Map latent vectors to the plane by t-SNE (van der Maaten and Hinton 2008).

    openTSNE with exact neighbours, 250 + 500 iterations from the first two principal components, and FIt-SNE (Linderman
    et al. 2019; Barnes-Hut below 2,500 images). The same seed gives the same map on the same machine.

    Args:
        mu_BZ: latent vectors.
        perplexity: effective number of neighbours, capped at a third of the images.
        seed: of the tiny noise on the first two principal components.

    Raises:
        ResultsError: fewer than `LEAST_IMAGES` images, or all latent vectors are equal.
    """
    from openTSNE import TSNE

    _require_a_cloud(mu_BZ)
    z_BZ = np.asarray(mu_BZ, np.float64)
    if z_BZ.shape[1] == 1:  # the initialisation needs two principal components; a column of zeros changes no distance
        z_BZ = np.pad(z_BZ, ((0, 0), (0, 1)))
    perplexity = min(perplexity, (len(z_BZ) - 1) / 3)
    tsne = TSNE(
        perplexity=perplexity,
        # Approximate neighbours are slower at this size, and depend on the number of threads.
        neighbors="exact",
        negative_gradient_method="fft" if len(z_BZ) >= _INTERPOLATED_FROM else "bh",
        # A grid twice as coarse as the default takes half the time; trustworthiness was 0.9602 with both.
        ints_in_interval=2,
        random_state=seed,
    )
    xy_B2 = np.array(tsne.fit(z_BZ), np.float64)
    return LatentMap(xy_B2, trustworthiness(z_BZ, xy_B2), perplexity, seed)


def _require_a_cloud(mu_BZ: Latent) -> None:
    if len(mu_BZ) < LEAST_IMAGES:
        raise ResultsError(
            f"map: {len(mu_BZ)} images are too few, {LEAST_IMAGES} are needed; evaluate on more test images"
        )
    if (mu_BZ == mu_BZ[0]).all():
        raise ResultsError(
            "map: all images have the same latent vector, so there is no map; lower training.beta or train longer"
        )


def trustworthiness(z_BZ: FloatArray, xy_B2: FloatArray, neighbours: int = NEIGHBOURS) -> float:
    """Whether neighbours on the map are neighbours in the latent space: 1 if all are, 0.5 at chance level.

    1 - 2/(B·k·(2B - 3k - 1)) · Σ_i Σ_j max(0, r(i, j) - k), j over the k nearest of i on the map, r(i, j) the rank of j
    among the neighbours of i in the latent space (Venna and Kaski 2001). Equal to scikit-learn's
    `trustworthiness`, which keeps all B² distances and their order in memory (4 GB for 12,500 images); this version
    counts ranks in chunks of images.

    Args:
        z_BZ: latent vectors.
        xy_B2: their positions on the map.
        neighbours: k, less than half of the images.
    """
    from sklearn.metrics import euclidean_distances
    from sklearn.neighbors import NearestNeighbors

    images = len(z_BZ)
    neighbour_BK = NearestNeighbors(n_neighbors=neighbours).fit(xy_B2).kneighbors(return_distance=False)
    excess = 0
    for start in range(0, images, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, images))
        distance = euclidean_distances(z_BZ[rows], z_BZ, squared=True)
        distance[np.arange(len(rows)), rows] = np.inf
        for neighbour in neighbour_BK[rows].T:
            nearer = distance < distance[np.arange(len(rows)), neighbour, None]
            excess += np.maximum(0, nearer.sum(axis=1) + 1 - neighbours).sum()
    return float(1 - 2 * excess / (images * neighbours * (2 * images - 3 * neighbours - 1)))


# --- figure -----------------------------------------------------------------------------------------------------------


class Colouring(NamedTuple):
    """A grouping of the points of a map by colour."""

    title: str
    names: tuple[str, ...]
    """Of the G groups that have images, sorted by `class_G`."""
    class_G: IntArray
    """Most frequent class of each group; it determines the hue."""
    group_B: IntArray
    """Index into `names`."""


class ColouredMap(NamedTuple):
    """One map, drawn once per colouring."""

    latent_map: LatentMap
    """Points in random order (by its seed), so that no group is drawn on top of another."""
    num_classes: int
    colourings: tuple[Colouring, ...]


def coloured_map(
    mapped: LatentMap,
    expert_B: IntArray,
    label_B: IntArray,
    class_names: Sequence[str],
    style_B: IntArray | None = None,
    style_names: Sequence[str] = (),
) -> ColouredMap:
    """The same map coloured by expert, by class and, if given, by style.

    Raises:
        ResultsError: the arrays have different lengths.
    """
    require_aligned("map", map=mapped.xy_B2, expert=expert_B, label=label_B)
    shuffled = np.random.default_rng(mapped.seed).permutation(len(label_B))
    label_B, num_classes = label_B[shuffled], len(class_names)
    expert_names = [f"expert {expert}" for expert in range(expert_B.max() + 1)]
    colourings = [
        _colouring("expert", expert_B[shuffled], expert_names, label_B, num_classes),
        _colouring("class", label_B, class_names, label_B, num_classes),
    ]
    if style_B is not None:
        require_aligned("map", map=mapped.xy_B2, style=style_B)
        colourings.append(_colouring("style", style_B[shuffled], style_names, label_B, num_classes))
    return ColouredMap(mapped._replace(xy_B2=mapped.xy_B2[shuffled]), num_classes, tuple(colourings))


def _colouring(title: str, id_B: IntArray, names: Sequence[str], label_B: IntArray, num_classes: int) -> Colouring:
    count_GC = contingency(id_B, label_B, len(names), num_classes)
    order = reading_order(count_GC)
    place_of_id = np.zeros(len(names), np.int64)
    place_of_id[order] = np.arange(len(order))
    return Colouring(title, tuple(names[group] for group in order), count_GC[order].argmax(axis=1), place_of_id[id_B])
