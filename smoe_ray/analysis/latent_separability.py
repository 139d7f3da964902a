"""How well the latent space separates experts and classes, compared with controls.

Shapes: B images, Z latent, F folds.

An expert id is a deterministic function of the latent vector, a class label is not. Experts are therefore easier to
predict from it than classes, whatever the experts represent. The two controls are deterministic as well: the class
predicted by a network of the gate's architecture, and the k-means cluster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.expert_routing import require_aligned
from smoe_ray.errors import ResultsError

FOLDS = 5
"""Cross-validation folds; groups with fewer images are excluded."""
NEIGHBOURS = 15
"""Neighbours in the nearest-neighbour vote."""
SILHOUETTE_IMAGES = 5000
"""Maximum number of images for a silhouette; of more, a random sample."""
GATE_EPOCHS = 20
"""Training of the gate-like network: epochs and batch size as in the paper."""
GATE_BATCH = 128

Latent = npt.NDArray[np.floating[Any]]


class Separability(NamedTuple):
    """How well one partition of the images (e.g. by expert or class) is predicted from their latent vectors.

    Groups with fewer than `FOLDS` images are excluded. All values except the counts are NaN if fewer than two groups
    remain.
    """

    target: str
    """The partition."""
    control: bool
    images: int
    """Images of the remaining groups, from which all values are computed."""
    groups: int
    left_out_images: int
    left_out_groups: int
    accuracy_F: FloatArray
    """Of a linear probe (multinomial logistic regression, L2 with C = 1) on held-out folds, stratified by group, latent
    vectors standardised with the training folds."""
    holdout_accuracy: float
    """Of the same probe, trained on 80 % of the images and tested on 20 %, stratified."""
    majority: float
    """Chance level: accuracy of always predicting the largest group."""
    permuted: float
    """Chance level: mean accuracy of the probe on held-out folds with randomly permuted groups."""
    neighbour_accuracy: float
    """Fraction of images whose group is the most frequent among their 15 nearest neighbours (Euclidean)."""
    silhouette: float
    """Mean silhouette (Rousseeuw 1987; Euclidean), -1 to 1, over `silhouette_images`."""
    silhouette_images: int

    @property
    def accuracy(self) -> float:
        """Mean over folds."""
        return float(np.mean(self.accuracy_F))

    @property
    def accuracy_sd(self) -> float:
        """Sample standard deviation (ddof = 1) over folds."""
        return float(np.std(self.accuracy_F, ddof=1))


def separability(
    mu_BZ: Latent,
    label_B: IntArray,
    expert_B: IntArray,
    *,
    gate_hidden: Sequence[int] = (64, 32),
    seed: int = 0,
) -> tuple[Separability, ...]:
    """Linear probes, nearest neighbours and silhouettes of experts and classes, then of two controls.

    The controls are the class predicted by a network of the gate's architecture for images outside its training folds,
    and k-means clusters, as many as there are active experts.

    Args:
        mu_BZ: latent vectors.
        label_B: class of each image.
        expert_B: expert of each image.
        gate_hidden: layers of the trial's gate (`model.gate_hidden`).
        seed: fixes folds, permutations, samples, and the controls.

    Raises:
        ResultsError: the arrays have different lengths, or contain fewer than `FOLDS` images.
    """
    from threadpoolctl import threadpool_limits

    require_aligned("separability", mu=mu_BZ, label=label_B, expert=expert_B)
    if len(mu_BZ) < FOLDS:
        raise ResultsError(
            f"separability: {len(mu_BZ)} images are too few for {FOLDS} folds; evaluate on more test images"
        )
    # float64: in float32 the line search of lbfgs stalls before it reaches the same tolerance.
    z_BZ = np.asarray(mu_BZ, np.float64)
    # The matrices are small: several threads would mostly wait for each other.
    with threadpool_limits(1):
        predicted_B = _gate_like_prediction(z_BZ, label_B, gate_hidden, seed)
        cluster_B = _kmeans(z_BZ, len(np.unique(expert_B)), seed)
        return (
            measure_separability("experts", z_BZ, expert_B, seed=seed),
            measure_separability("classes", z_BZ, label_B, seed=seed),
            measure_separability("classes as a gate-like network predicts them", z_BZ, predicted_B, True, seed),
            measure_separability("k-means clusters", z_BZ, cluster_B, True, seed),
        )


def measure_separability(
    target: str, z_BZ: FloatArray, group_B: IntArray, control: bool = False, seed: int = 0
) -> Separability:
    """Measure one partition; see `Separability`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    group, group_B, count = np.unique(group_B, return_inverse=True, return_counts=True)
    kept_B = count[group_B] >= FOLDS
    z_BZ, group_B = z_BZ[kept_B], group_B[kept_B]
    groups = int((count >= FOLDS).sum())
    counts = (len(group_B), groups, int((~kept_B).sum()), len(group) - groups)
    if groups < 2:
        nan = math.nan
        return Separability(target, control, *counts, np.full(FOLDS, nan), nan, nan, nan, nan, nan, silhouette_images=0)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    holdout = StratifiedShuffleSplit(1, test_size=0.2, random_state=seed)
    permuted_B = np.random.default_rng(seed).permutation(group_B)
    silhouette, silhouette_images = _silhouette(z_BZ, group_B, seed)
    return Separability(
        target,
        control,
        *counts,
        accuracy_F=cross_val_score(probe, z_BZ, group_B, cv=folds),
        holdout_accuracy=float(cross_val_score(probe, z_BZ, group_B, cv=holdout)[0]),
        majority=float(count.max() / len(group_B)),
        permuted=float(cross_val_score(probe, z_BZ, permuted_B, cv=folds).mean()),
        neighbour_accuracy=_neighbour_accuracy(z_BZ, group_B),
        silhouette=silhouette,
        silhouette_images=silhouette_images,
    )


def _gate_like_prediction(z_BZ: FloatArray, label_B: IntArray, hidden: Sequence[int], seed: int) -> IntArray:
    """Class predicted by a network of the gate's architecture, trained on the other folds.

    Trained on the same images it would memorise them, and its prediction would equal the label.
    """
    from sklearn.model_selection import KFold
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(label_B)
    predicted_B = label_B.copy()
    if len(classes) < 2:
        return predicted_B
    for others, fold in KFold(FOLDS, shuffle=True, random_state=seed).split(z_BZ):
        scaler = StandardScaler().fit(z_BZ[others])
        network = MLPClassifier(tuple(hidden), batch_size=min(GATE_BATCH, len(others)), random_state=seed)
        for _ in range(GATE_EPOCHS):
            network.partial_fit(scaler.transform(z_BZ[others]), label_B[others], classes=classes)
        predicted_B[fold] = network.predict(scaler.transform(z_BZ[fold]))
    return predicted_B


def _kmeans(z_BZ: FloatArray, clusters: int, seed: int) -> IntArray:
    from sklearn.cluster import KMeans

    distinct = len(np.unique(z_BZ, axis=0))
    cluster_B: IntArray = KMeans(min(clusters, distinct), n_init=4, random_state=seed).fit_predict(z_BZ)
    return cluster_B


def _neighbour_accuracy(z_BZ: FloatArray, group_B: IntArray) -> float:
    from scipy.stats import mode
    from sklearn.neighbors import NearestNeighbors

    neighbours = min(NEIGHBOURS, len(z_BZ) - 1)
    neighbour_BN = NearestNeighbors(n_neighbors=neighbours).fit(z_BZ).kneighbors(return_distance=False)
    return float(np.mean(mode(group_B[neighbour_BN], axis=1).mode == group_B))


def _silhouette(z_BZ: FloatArray, group_B: IntArray, seed: int) -> tuple[float, int]:
    """Mean silhouette and its number of images; NaN if the sample contains a single group."""
    from sklearn.metrics import silhouette_score

    if len(z_BZ) > SILHOUETTE_IMAGES:
        sample = np.random.default_rng(seed).choice(len(z_BZ), SILHOUETTE_IMAGES, replace=False)
        z_BZ, group_B = z_BZ[sample], group_B[sample]
    if len(np.unique(group_B)) < 2:
        return math.nan, len(group_B)
    return float(silhouette_score(z_BZ, group_B)), len(group_B)


# --- over trials ------------------------------------------------------------------------------------------------------


class MeanOverTrials(NamedTuple):
    """Mean and sample standard deviation (ddof = 1; NaN for one trial) over `trials`."""

    mean: float
    sd: float
    trials: int
    """Trials in which the value is defined."""


class SeparabilityOverTrials(NamedTuple):
    """`Separability` of one target over trials, usually the seeds of one arm."""

    target: str
    control: bool
    accuracy: MeanOverTrials
    """Mean over folds, then over trials."""
    holdout_accuracy: MeanOverTrials
    majority: MeanOverTrials
    permuted: MeanOverTrials
    neighbour_accuracy: MeanOverTrials
    silhouette: MeanOverTrials


def separability_over_trials(trials: Sequence[Sequence[Separability]]) -> tuple[SeparabilityOverTrials, ...]:
    """Mean and spread of the results of `separability` over several trials; targets as in the first."""
    names = SeparabilityOverTrials._fields[2:]
    return tuple(
        SeparabilityOverTrials(
            first.target,
            first.control,
            **{name: _mean_over_trials([getattr(measured, name) for measured in of_target]) for name in names},
        )
        for first, *of_target in ((trial[0], *trial) for trial in zip(*trials, strict=True))
    )


def _mean_over_trials(values: Sequence[float]) -> MeanOverTrials:
    defined = [value for value in values if not math.isnan(value)]
    mean = float(np.mean(defined)) if defined else math.nan
    return MeanOverTrials(mean, float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan, len(defined))


# --- figure -----------------------------------------------------------------------------------------------------------


class ProbeBar(NamedTuple):
    """Accuracy of a linear probe, and its two chance levels."""

    target: str
    control: bool
    mean: float
    sd: float
    majority: float
    permuted: float

    @property
    def high(self) -> float:
        """mean + sd; mean if sd is NaN."""
        return self.mean if math.isnan(self.sd) else self.mean + self.sd


class ProbePanel(NamedTuple):
    """The probes of one arm."""

    title: str
    trials: int
    bars: tuple[ProbeBar, ...]


class ProbeBars(NamedTuple):
    """Accuracies of linear probes, one panel per arm."""

    panels: tuple[ProbePanel, ...]
    spread: Literal["folds", "trials"]
    """Population of the standard deviations."""
    left_out_images: int
    """Maximum number of images that a probe excluded because their groups are smaller than the number of folds."""
    num_available: int
    """Number of panels without the limit."""


def probe_bars(trials_of: Mapping[str, Sequence[Sequence[Separability]]], limit: int = 12) -> ProbeBars:
    """Mean accuracy of each probe, with its spread over folds (if every arm has one trial) or over trials.

    Args:
        trials_of: by label of the arm, the results of `separability` for its trials.
        limit: maximum number of panels.

    Raises:
        ResultsError: there is no trial.
    """
    if not any(trials_of.values()):
        raise ResultsError("probes: no trial to show; run a study that stores embeddings (evaluation.save_embeddings)")
    spread: Literal["folds", "trials"] = "folds" if max(map(len, trials_of.values())) == 1 else "trials"
    shown = [(label, trials) for label, trials in trials_of.items() if trials]
    return ProbeBars(
        tuple(ProbePanel(label, len(trials), _bars(trials, spread)) for label, trials in shown[:limit]),
        spread,
        max(measured.left_out_images for _, trials in shown[:limit] for trial in trials for measured in trial),
        len(shown),
    )


def _bars(trials: Sequence[Sequence[Separability]], spread: Literal["folds", "trials"]) -> tuple[ProbeBar, ...]:
    if spread == "folds":
        (trial,) = trials
        return tuple(ProbeBar(m.target, m.control, m.accuracy, m.accuracy_sd, m.majority, m.permuted) for m in trial)
    return tuple(
        ProbeBar(m.target, m.control, m.accuracy.mean, m.accuracy.sd, m.majority.mean, m.permuted.mean)
        for m in separability_over_trials(trials)
    )
