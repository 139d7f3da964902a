"""Probes, neighbours and silhouettes: planted clouds, values by hand, and the published run."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from smoe_ray.analysis.latent_separability import (
    Separability,
    _gate_like_prediction,
    measure_separability,
    probe_bars,
    separability,
    separability_over_trials,
)
from smoe_ray.errors import ResultsError

NAN = float("nan")


def clouds(per_group: int, groups: int, distance: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit normal clouds around points of a circle of that radius, in the first two of five dimensions."""
    rng = np.random.default_rng(seed)
    group_B = np.repeat(np.arange(groups), per_group)
    z_BZ = rng.normal(size=(len(group_B), 5))
    angle_B = 2 * np.pi * group_B / groups
    z_BZ[:, :2] += distance * np.column_stack([np.cos(angle_B), np.sin(angle_B)])
    return z_BZ, group_B


def measured(target: str = "experts", accuracy: float = 0.9, left_out_images: int = 0, **values: float) -> Separability:
    """One with folds at `accuracy` ± 0.1."""
    numbers = {"holdout_accuracy": 0.8, "majority": 0.3, "permuted": 0.2, "neighbour_accuracy": 0.7, "silhouette": 0.1}
    accuracy_F = accuracy + np.array([-0.1, 0.1])
    return Separability(
        target, target != "experts", 100, 5, left_out_images, 0, accuracy_F, **(numbers | values), silhouette_images=100
    )


# --- known answers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(shared_data: Path) -> dict[str, Separability]:
    folder = shared_data / "published" / "embeddings_10_experts"
    mu_BZ, label_B, expert_B = (
        np.load(folder / f"{name}.npy") for name in ("latent_vectors", "labels", "selected_experts")
    )
    return {measured.target: measured for measured in separability(mu_BZ, label_B, expert_B)}


def test_the_published_probes(published: dict[str, Separability]) -> None:
    experts, classes = published["experts"], published["classes"]
    assert experts.accuracy == pytest.approx(0.949, abs=0.003)
    assert classes.accuracy == pytest.approx(0.867, abs=0.003)
    assert experts.holdout_accuracy == pytest.approx(0.949, abs=0.015)
    assert classes.holdout_accuracy == pytest.approx(0.867, abs=0.015)
    assert (experts.images, experts.groups, experts.left_out_images) == (10_000, 5, 0)
    assert experts.majority == 0.2363
    assert classes.majority == 0.2019
    for probe in (experts, classes):
        assert probe.permuted == pytest.approx(probe.majority, abs=0.03)
        assert 0.002 < probe.accuracy_sd < 0.01
        assert probe.silhouette_images == 5000


def test_the_published_controls(published: dict[str, Separability]) -> None:
    """SCIENCE.md 2: a deterministic function of the latent vector is read as easily as an expert, meaning or not."""
    *_, gate_like, clusters = published.values()
    assert gate_like.control
    assert clusters.control
    assert gate_like.accuracy == pytest.approx(0.909, abs=0.015)
    assert clusters.accuracy == pytest.approx(0.993, abs=0.015)
    assert clusters.groups == 5


# --- planted ----------------------------------------------------------------------------------------------------------


def test_clouds_far_apart_are_read_without_an_error() -> None:
    info = measure_separability("clouds", *clouds(30, 4, 50))
    assert info.accuracy_F.tolist() == [1] * 5
    assert (info.accuracy, info.accuracy_sd, info.holdout_accuracy, info.neighbour_accuracy) == (1, 0, 1, 1)
    assert info.majority == 1 / 4
    assert info.permuted == pytest.approx(1 / 4, abs=0.12)
    assert info.silhouette > 0.9


def test_random_groups_are_read_as_well_as_chance() -> None:
    z_BZ, group_B = clouds(400, 1, 0)[0], np.random.default_rng(1).permutation(np.arange(400) % 4)
    info = measure_separability("random", z_BZ, group_B)
    for accuracy in (info.accuracy, info.permuted, info.neighbour_accuracy, info.holdout_accuracy):
        assert accuracy == pytest.approx(1 / 4, abs=0.1)
    assert info.silhouette == pytest.approx(0, abs=0.05)


def test_what_no_line_separates_neighbours_may() -> None:
    """Exclusive or: opposite clouds belong together."""
    z_BZ, cloud_B = clouds(50, 4, 20)
    info = measure_separability("xor", z_BZ, cloud_B % 2)
    assert info.accuracy < 0.8
    assert info.neighbour_accuracy == 1


def test_the_silhouette_by_hand() -> None:
    """Six images at 0, three at 10, three at 12: 1 for the first; distances within the others (2·0 + 3·2)/5 = 1.2."""
    z_BZ = np.array([0.0] * 6 + [10.0] * 3 + [12.0] * 3)[:, None]
    info = measure_separability("pairs", z_BZ, np.repeat([0, 1], 6))
    assert info.silhouette == pytest.approx((6 * 1 + 3 * (10 - 1.2) / 10 + 3 * (12 - 1.2) / 12) / 12)


def test_an_image_is_not_its_own_neighbour() -> None:
    """Images in pairs of two groups, each nearer to its twin than to any other, all other images far and mixed."""
    z_BZ = np.repeat(100.0 * np.arange(8), 2)[:, None] + np.tile([0, 1], 8)[:, None]
    group_B = np.tile([0, 1], 8)
    # All 15 others vote: seven of the own group, eight of the other.
    assert measure_separability("twins", z_BZ, group_B).neighbour_accuracy == 0


def test_probes_do_not_depend_on_the_units_of_the_latent_dimensions() -> None:
    z_BZ, group_B = clouds(60, 3, 1.5)
    info = measure_separability("clouds", z_BZ, group_B)
    stretched = measure_separability("clouds", z_BZ * [1e-4, 1e3, 1, 10, 0.1] + 7, group_B)
    assert 0.5 < info.accuracy < 0.95
    np.testing.assert_allclose(stretched.accuracy_F, info.accuracy_F, atol=0.03)


def test_a_seed_fixes_everything_and_another_divides_otherwise() -> None:
    z_BZ, label_B = clouds(40, 3, 1.5)
    expert_B = (z_BZ[:, 0] > 0).astype(int)
    first, again = (separability(z_BZ, label_B, expert_B, seed=3) for _ in range(2))
    other = separability(z_BZ, label_B, expert_B, seed=4)
    assert [info.target for info in first] == [info.target for info in other]
    for one, same in zip(first, again, strict=True):
        assert one.accuracy_F.tolist() == same.accuracy_F.tolist()
        assert one._replace(accuracy_F=0) == same._replace(accuracy_F=0)
    assert first[1].accuracy_F.tolist() != other[1].accuracy_F.tolist()


# --- controls ---------------------------------------------------------------------------------------------------------


def test_the_gate_like_network_predicts_images_that_it_has_not_seen() -> None:
    """Random labels cannot be predicted, only learnt by heart."""
    z_BZ = clouds(150, 1, 0)[0]
    label_B = np.random.default_rng(0).permutation(np.arange(150) % 3)
    assert np.mean(_gate_like_prediction(z_BZ, label_B, (64, 32), 0) == label_B) == pytest.approx(1 / 3, abs=0.12)
    z_BZ, label_B = clouds(100, 3, 10)
    assert np.mean(_gate_like_prediction(z_BZ, label_B, (64, 32), 0) == label_B) > 0.98


def test_there_are_as_many_clusters_as_active_experts() -> None:
    z_BZ, label_B = clouds(40, 3, 10)
    expert_B = np.array([9, 2, 4, 7])[np.arange(120) % 4]
    assert separability(z_BZ, label_B, expert_B)[3].groups == 4


# --- too little to measure --------------------------------------------------------------------------------------------


def test_groups_smaller_than_the_folds_are_left_out_and_counted() -> None:
    z_BZ, group_B = clouds(30, 3, 50)
    group_B[:4] = 7  # four images of the first cloud
    group_B[30] = 8
    info = measure_separability("experts", z_BZ, group_B)
    assert (info.images, info.groups, info.left_out_images, info.left_out_groups) == (85, 3, 5, 2)
    assert info.majority == 30 / 85
    assert info.accuracy == 1
    assert info.neighbour_accuracy == 1


@pytest.mark.parametrize("group_B", [np.zeros(20, int), np.arange(20), np.array([0] * 16 + [1] * 4)])
def test_fewer_than_two_groups_give_nan(group_B: np.ndarray) -> None:
    info = measure_separability("experts", clouds(20, 1, 0)[0], group_B)
    assert info.groups < 2
    assert np.isnan(info.accuracy_F).all()
    for value in (info.accuracy, info.accuracy_sd, info.holdout_accuracy, info.majority, info.permuted):
        assert math.isnan(value)
    assert math.isnan(info.neighbour_accuracy)
    assert math.isnan(info.silhouette)


def test_a_collapsed_latent_space_is_measured_without_a_warning() -> None:
    """More experts than distinct latent vectors: as many clusters as vectors."""
    experts, classes, *_, clusters = separability(np.zeros((40, 3), np.float32), np.arange(40) % 2, np.arange(40) % 4)
    assert (experts.accuracy, classes.accuracy) == (0.25, 0.5)
    assert clusters.groups == 1
    assert math.isnan(clusters.accuracy)


def test_a_sample_with_one_group_alone_has_no_silhouette(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[measure_separability.__module__], "SILHOUETTE_IMAGES", 3)
    z_BZ, _ = clouds(200, 1, 0)
    info = measure_separability("rare", z_BZ, np.array([0] * 195 + [1] * 5))
    assert math.isnan(info.silhouette)
    assert info.silhouette_images == 3


def test_bad_input_is_one_line() -> None:
    with pytest.raises(ResultsError, match=r"^separability: arrays of different lengths \(mu 3, label 3, expert 2\)"):
        separability(np.zeros((3, 2)), np.zeros(3, int), np.zeros(2, int))
    with pytest.raises(ResultsError, match=r"^separability: 4 images are too few for 5 folds; evaluate on more"):
        separability(np.zeros((4, 2)), np.zeros(4, int), np.zeros(4, int))


# --- over trials and as bars ------------------------------------------------------------------------------------------


def test_spread_over_trials_is_that_of_their_means() -> None:
    trials = [
        [measured(accuracy=0.6, silhouette=NAN), measured("classes")],
        [measured(accuracy=0.8, silhouette=0.4), measured("classes")],
    ]
    experts, classes = separability_over_trials(trials)
    assert experts.accuracy == pytest.approx((0.7, math.sqrt(0.02), 2))
    assert experts.silhouette == pytest.approx((0.4, NAN, 1), nan_ok=True)
    assert experts.holdout_accuracy == pytest.approx((0.8, 0, 2), abs=1e-12)
    assert (experts.target, experts.control, classes.target, classes.control) == ("experts", False, "classes", True)
    (undefined,) = separability_over_trials([[measured(silhouette=NAN)]])
    assert undefined.silhouette == pytest.approx((NAN, NAN, 0), nan_ok=True)


def test_bars_of_one_trial_show_its_folds() -> None:
    info = probe_bars({"blend": [[measured(accuracy=0.7, left_out_images=4)]]})
    ((bar,),) = (panel.bars for panel in info.panels)
    assert info.spread == "folds"
    assert (bar.mean, bar.sd) == pytest.approx((0.7, math.sqrt(0.02)))
    assert (bar.majority, bar.permuted) == (0.3, 0.2)
    assert bar.high == pytest.approx(0.7 + math.sqrt(0.02))
    assert info.left_out_images == 4


def test_bars_of_several_trials_show_their_spread() -> None:
    info = probe_bars(
        {
            "blend": [[measured(accuracy=0.6)], [measured(accuracy=0.8)]],
            "likelihood": [[measured(accuracy=0.5)]],
            "none yet": [],
        }
    )
    assert info.spread == "trials"
    assert [(panel.title, panel.trials) for panel in info.panels] == [("blend", 2), ("likelihood", 1)]
    blend, likelihood = (panel.bars[0] for panel in info.panels)
    assert (blend.mean, blend.sd) == pytest.approx((0.7, math.sqrt(0.02)))
    assert math.isnan(likelihood.sd)
    assert likelihood.high == likelihood.mean == pytest.approx(0.5)
    shown = probe_bars({str(arm): [[measured()]] for arm in range(9)}, limit=2)
    assert (len(shown.panels), shown.num_available) == (2, 9)


@pytest.mark.parametrize("trials_of", [{}, {"blend": []}])
def test_without_a_trial_there_are_no_bars(trials_of: dict) -> None:
    with pytest.raises(ResultsError, match=r"^probes: no trial to show; run a study that stores embeddings"):
        probe_bars(trials_of)
