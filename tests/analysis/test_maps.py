"""Maps: planted clouds keep their neighbours, trustworthiness is scikit-learn's, points keep their groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import manifold

from smoe_ray.analysis.maps import LatentMap, coloured_map, latent_map, trustworthiness
from smoe_ray.errors import ResultsError


def clouds(images: int, groups: int, latent: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clouds of width 1, thirty apart from each other along axes of their own."""
    rng = np.random.default_rng(seed)
    group_B = np.arange(images) % groups
    z_BZ = rng.normal(size=(images, latent))
    z_BZ[np.arange(images), group_B] += 30
    return z_BZ.astype(np.float32), group_B


# --- maps -------------------------------------------------------------------------------------------------------------


def test_clouds_stay_apart_on_the_map() -> None:
    z_BZ, group_B = clouds(200, 4)
    mapped = latent_map(z_BZ)
    centre_G2 = np.stack([mapped.xy_B2[group_B == group].mean(axis=0) for group in range(4)])
    distance_BG = np.linalg.norm(mapped.xy_B2[:, None] - centre_G2, axis=2)
    assert distance_BG.argmin(axis=1).tolist() == group_B.tolist()
    assert mapped.trustworthiness == trustworthiness(z_BZ.astype(np.float64), mapped.xy_B2)
    assert mapped.trustworthiness > 0.9
    assert mapped.perplexity == 30


def test_a_seed_fixes_the_map() -> None:
    z_BZ, _ = clouds(100, 2)
    first, again, other = (latent_map(z_BZ, seed=seed) for seed in (1, 1, 2))
    assert first.xy_B2.tolist() == again.xy_B2.tolist()
    assert first.xy_B2.tolist() != other.xy_B2.tolist()
    assert (first.seed, other.seed) == (1, 2)


def test_few_images_lower_the_perplexity_and_one_latent_dimension_is_enough() -> None:
    z_BZ = np.linspace(0, 1, 52)[:, None]
    mapped = latent_map(z_BZ)
    assert mapped.perplexity == 17
    assert mapped.xy_B2.shape == (52, 2)
    assert mapped.trustworthiness > 0.9


def test_repeated_images_are_mapped_without_a_warning() -> None:
    mapped = latent_map(np.repeat(np.eye(4), 20, axis=0))
    assert np.isfinite(mapped.xy_B2).all()


def test_what_cannot_be_mapped_is_one_line() -> None:
    with pytest.raises(ResultsError, match=r"^map: 49 images are too few, 50 are needed; evaluate on more"):
        latent_map(clouds(49, 2)[0])
    with pytest.raises(ResultsError, match=r"^map: all images have the same latent vector"):
        latent_map(np.ones((60, 3)))


@pytest.mark.slow
def test_the_published_run_is_mapped_by_interpolation(shared_data: Path) -> None:
    z_BZ = np.load(shared_data / "published" / "embeddings_10_experts" / "latent_vectors.npy")
    assert len(z_BZ) == 10_000
    mapped = latent_map(z_BZ)
    assert mapped.trustworthiness > 0.955
    assert mapped.xy_B2.tolist() == latent_map(z_BZ).xy_B2.tolist()


# --- trustworthiness --------------------------------------------------------------------------------------------------


@given(st.integers(26, 80), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_trustworthiness_is_that_of_scikit_learn(images: int, neighbours: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z_BZ, xy_B2 = rng.normal(size=(images, 4)), rng.normal(size=(images, 2))
    expected = manifold.trustworthiness(z_BZ, xy_B2, n_neighbors=neighbours)
    assert trustworthiness(z_BZ, xy_B2, neighbours) == pytest.approx(expected, abs=1e-12)


def test_trustworthiness_of_more_images_than_are_held_at_once() -> None:
    z_BZ = clouds(1100, 3)[0].astype(np.float64)
    xy_B2 = z_BZ[:, :2]
    expected = manifold.trustworthiness(z_BZ, xy_B2, n_neighbors=12)
    assert 0.5 < expected < 0.95
    assert trustworthiness(z_BZ, xy_B2) == pytest.approx(expected, abs=1e-12)


def test_a_plane_is_its_own_map_and_a_random_map_is_not_to_be_trusted() -> None:
    rng = np.random.default_rng(0)
    z_BZ = rng.normal(size=(300, 2))
    assert trustworthiness(z_BZ, 3 * z_BZ[:, ::-1] + 1) == 1
    assert trustworthiness(z_BZ, rng.permutation(z_BZ)) == pytest.approx(0.5, abs=0.05)


# --- colours ----------------------------------------------------------------------------------------------------------


def test_every_point_keeps_its_groups() -> None:
    expert_B, label_B = np.array([3, 0, 3, 1, 3, 0]), np.array([0, 1, 0, 1, 0, 1])
    style_B = np.array([1, 2, 1, 2, 0, 2])
    places = np.column_stack([np.arange(6.0), np.arange(6.0) ** 2])
    info = coloured_map(
        LatentMap(places, 0.9, 30, 0), expert_B, label_B, ("cat", "eye"), style_B, ("c/a", "c/b", "e/a", "e/b")
    )
    image_B = info.latent_map.xy_B2[:, 0].astype(int)
    assert sorted(image_B) == list(range(6))
    assert image_B.tolist() != list(range(6))
    assert info.latent_map.xy_B2.tolist() == places[image_B].tolist()
    assert info.latent_map.trustworthiness == 0.9
    experts, classes, styles = info.colourings
    assert [colouring.title for colouring in info.colourings] == ["expert", "class", "style"]
    for colouring, ids, names in (
        (experts, expert_B, [f"expert {number}" for number in range(4)]),
        (classes, label_B, ["cat", "eye"]),
        (styles, style_B, ["c/a", "c/b", "e/a", "e/b"]),
    ):
        assert [colouring.names[group] for group in colouring.group_B] == [names[ids[image]] for image in image_B]


def test_groups_are_sorted_by_the_class_that_they_see_most_and_dead_ones_left_out() -> None:
    expert_B = np.array([5, 5, 5, 5, 0, 0, 0, 2, 2])
    label_B = np.array([1, 1, 1, 0, 0, 0, 1, 1, 1])
    info = coloured_map(LatentMap(np.zeros((9, 2)), 1, 30, 0), expert_B, label_B, ("cat", "eye", "absent"))
    experts, classes = info.colourings
    assert experts.names == ("expert 0", "expert 5", "expert 2")
    assert experts.class_G.tolist() == [0, 1, 1]
    assert classes.names == ("cat", "eye")
    assert classes.class_G.tolist() == [0, 1]
    assert info.num_classes == 3


def test_arrays_of_another_trial_are_refused() -> None:
    mapped = LatentMap(np.zeros((3, 2)), 1, 30, 0)
    with pytest.raises(ResultsError, match=r"^map: arrays of different lengths \(map 3, expert 2, label 3\)"):
        coloured_map(mapped, np.zeros(2, int), np.zeros(3, int), ("cat",))
    with pytest.raises(ResultsError, match=r"^map: arrays of different lengths \(map 3, style 2\)"):
        coloured_map(mapped, np.zeros(3, int), np.zeros(3, int), ("cat",), np.zeros(2, int), ("cat/fat",))
