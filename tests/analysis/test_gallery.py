"""Galleries, swap matrix and paths between experts, against answers known beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoe_ray.analysis.gallery import Choice, expert_gallery, interpolation, swap_matrix
from smoe_ray.errors import ResultsError
from support.planted_gallery import Arrays, PlantedModel, embeddings

NAMES = ("cat", "eye", "flower")


def shown(kept: Arrays, expert: int = 0, **options: Any) -> list[int]:
    """Places in the test set of the images that a gallery shows of an expert."""
    (block,) = (block for block in expert_gallery(kept, NAMES, **options).blocks if block.expert == expert)
    return block.index_N.tolist()


# --- galleries --------------------------------------------------------------------------------------------------------


def test_shares_and_class_mixes_by_hand() -> None:
    kept = embeddings([1, 0, 5, 2])
    order = np.argsort(kept["expert"], kind="stable")
    kept["label"][order] = [2, 1, 0, 1, 0, 1, 2, 0]  # experts 0, 2 2 2 2 2, 3 3
    info = expert_gallery(kept, NAMES)
    assert [(block.expert, block.num_images, block.share) for block in info.blocks] == [
        (2, 5, 0.625),
        (3, 2, 0.25),
        (0, 1, 0.125),
    ]
    assert [block.class_mix for block in info.blocks] == [
        (("eye", 0.6), ("cat", 0.4)),
        (("cat", 0.5), ("flower", 0.5)),
        (("flower", 1.0),),
    ]
    assert (info.dead, info.num_images, info.num_experts) == ((1,), 8, 4)


def test_a_block_shows_what_was_kept_of_its_images() -> None:
    kept = embeddings([30, 12])
    for block in expert_gallery(kept, NAMES, n=5).blocks:
        at = block.index_N
        assert len(set(at.tolist())) == 5
        assert set(kept["expert"][at]) == {block.expert}
        assert np.array_equal(block.image_NHW, kept["image"][at])
        assert np.array_equal(block.reconstruction_NHW, kept["reconstruction"][at])
        np.testing.assert_array_equal(block.confidence_N, kept["gate"][at, block.expert])


@pytest.mark.parametrize("choice", ["random", "most_confident", "least_confident"])
def test_an_expert_with_fewer_images_shows_them_all(choice: Choice) -> None:
    kept = embeddings([3, 40])
    assert sorted(shown(kept, n=8, choice=choice)) == np.flatnonzero(kept["expert"] == 0).tolist()
    assert len(shown(kept, 1, n=8, choice=choice)) == 8


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), n=st.integers(1, 6))
@settings(max_examples=40)
def test_the_most_and_the_least_confident_are_really_those(counts: list[int], n: int) -> None:
    kept = embeddings(counts)
    for choice, sign in (("most_confident", 1), ("least_confident", -1)):
        info = expert_gallery(kept, NAMES, n=n, choice=choice)  # type: ignore[arg-type]
        for block in info.blocks:
            members = np.flatnonzero(kept["expert"] == block.expert)
            others = np.setdiff1d(members, block.index_N)
            ranked = sign * block.confidence_N
            assert len(block.index_N) == min(n, len(members))
            assert (np.diff(ranked) <= 0).all()  # the extreme one first
            assert (sign * kept["gate"][others, block.expert] <= ranked.min()).all()


def test_the_random_choice_is_fixed_by_its_seed_and_the_experts_own_images() -> None:
    kept = embeddings([50, 20])
    assert shown(kept, seed=3) == shown(kept, seed=3)
    assert shown(kept, seed=3) != shown(kept, seed=4)
    moved = kept | {"expert": np.where(kept["expert"] == 1, 2, 0), "gate": np.pad(kept["gate"], ((0, 0), (0, 1)))}
    assert shown(moved, seed=3) == shown(kept, seed=3)


def test_the_random_choice_is_uniform() -> None:
    kept = embeddings([10])
    repeats, n = 3000, 3
    times_B = np.zeros(10)
    for seed in range(repeats):
        times_B[shown(kept, n=n, seed=seed)] += 1
    expected = repeats * n / 10
    assert np.abs(times_B - expected).max() < 4.5 * np.sqrt(expected * 0.7)
    assert shown(kept, n=n, seed=0) != sorted(shown(kept, n=n, seed=0))  # no order of the test set in it


def test_the_limit_keeps_the_largest_experts() -> None:
    info = expert_gallery(embeddings([1, 9, 0, 4, 0, 2]), NAMES, limit=2)
    assert [block.expert for block in info.blocks] == [1, 3]
    assert (info.dead, info.num_experts) == ((2, 4), 6)


def test_the_info_says_how_images_were_chosen() -> None:
    info = expert_gallery(embeddings([4, 4]), NAMES, n=2, choice="least_confident", seed=7, label="blend, seed 1")
    assert (info.choice, info.n, info.seed, info.label) == ("least_confident", 2, 7, "blend, seed 1")


def test_embeddings_that_do_not_serve_are_one_line() -> None:
    kept = embeddings([4, 4])
    for name in ("label", "expert", "gate", "image"):
        rest = {key: array for key, array in kept.items() if key != name}
        with pytest.raises(
            ResultsError, match=f"^embeddings: '{name}' is absent; pass the complete result of read_embeddings"
        ):
            expert_gallery(rest, NAMES)
    with pytest.raises(ResultsError, match="label 2 has no name; pass the class names of that trial"):
        expert_gallery(kept | {"label": np.full(8, 2)}, NAMES[:2])
    with pytest.raises(ResultsError, match="they contain no image"):
        expert_gallery({key: array[:0] for key, array in kept.items()}, NAMES)
    with pytest.raises(
        ResultsError, match=r"reconstructions of shape \(8, 28, 28\) of images of shape \(8, 3, 32, 32\)"
    ):
        expert_gallery(kept | {"image": np.zeros((8, 3, 32, 32), np.uint8)}, NAMES)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 28, 28)), np.zeros((8, 784), np.uint8), np.zeros((8, 2, 32, 32), np.uint8)], ids=str
)
def test_images_of_another_type_or_shape_are_one_line(image: Any) -> None:
    kept = embeddings([4, 4]) | {"image": image}
    problem = (
        rf"^embeddings: images are {image.dtype} of shape .*; needed: uint8, \(B, H, W\) or \(B, 3, H, W\); delete"
    )
    with pytest.raises(ResultsError, match=problem):
        expert_gallery(kept, NAMES)
    with pytest.raises(ResultsError, match=problem):
        swap_matrix(kept, PlantedModel(2))


# --- swap matrix ------------------------------------------------------------------------------------------------------


def test_the_swap_matrix_by_hand() -> None:
    kept = embeddings([2, 0, 6])
    kept["image"][:, 1] = 170  # what expert 1 draws, which is dead
    info = swap_matrix(kept, PlantedModel(3))
    assert info.expert_E.tolist() == [2, 0, 1]
    assert info.alive_E.tolist() == [True, True, False]
    assert kept["expert"][info.index_R].tolist() == [2, 0]
    assert info.image_RHW.tolist() == kept["image"][info.index_R].tolist()
    for row, brightness in enumerate((2 / 3, 0)):  # z[0] / E
        for column, expert in enumerate((2, 0, 1)):
            drawn = np.zeros((28, 28))
            drawn[expert] = brightness
            np.testing.assert_allclose(info.decoded_REHW[row, column], drawn, atol=1e-6)
            error = ((drawn - info.image_RHW[row] / 255) ** 2).sum()
            assert info.error_RE[row, column] == pytest.approx(error, rel=1e-5)
    assert info.best_R.tolist() == [2, 0]  # all draw nothing from z = 0: the first of equals


@pytest.mark.parametrize(("choice", "extreme"), [("most_confident", np.max), ("least_confident", np.min)])
def test_each_input_is_the_extreme_one_of_its_expert(choice: Choice, extreme: Any) -> None:
    kept = embeddings([7, 5, 9])
    info = swap_matrix(kept, PlantedModel(3), choice=choice)
    assert info.choice == choice
    for place, expert in zip(info.index_R, info.expert_E, strict=True):
        assert kept["gate"][place, expert] == extreme(kept["gate"][kept["expert"] == expert, expert])


def test_the_limit_cuts_rows_and_columns() -> None:
    info = swap_matrix(embeddings([1, 9, 0, 4]), PlantedModel(4), limit=2)
    assert info.expert_E.tolist() == [1, 3]
    assert info.decoded_REHW.shape == (2, 2, 28, 28)
    assert info.num_experts == 4


def test_a_model_of_another_trial_is_refused() -> None:
    for info in (swap_matrix, interpolation):
        with pytest.raises(
            ResultsError, match="embeddings of 3 experts but a model of 5; use embeddings and model of the same trial"
        ):
            info(embeddings([3, 3, 3]), PlantedModel(5))
    with pytest.raises(ResultsError, match=r"embeddings of images of shape \(28, 28\) but a model of \(3, 32, 32\)"):
        swap_matrix(embeddings([3, 3]), PlantedModel(2, (3, 32, 32)))


def test_colour_images_are_decoded_and_summed_over_every_channel() -> None:
    kept, model = embeddings([2, 3], shape=(3, 16, 20)), PlantedModel(2, (3, 16, 20))
    info = swap_matrix(kept, model)
    drawn_HW = np.zeros((16, 20))
    drawn_HW[1] = 1 / 2  # by expert 1 from z[0] = 1, half as green as red
    decoded = np.stack([drawn_HW, drawn_HW / 2, 0 * drawn_HW])
    np.testing.assert_allclose(info.decoded_REHW[0, info.expert_E.tolist().index(1)], decoded, atol=1e-6)
    error = ((decoded - kept["image"][info.index_R[0]] / 255) ** 2).sum()
    assert info.error_RE[0, info.expert_E.tolist().index(1)] == pytest.approx(error, rel=1e-5)
    (path,) = interpolation(kept, model, steps=3).paths
    assert path.chosen_SHW.shape == (3, 3, 16, 20)
    gated = np.einsum("se,sechw->schw", path.gate_SE, model.decode_all(path.z_SZ))
    np.testing.assert_allclose(path.blend_SHW, gated, atol=1e-6)


# --- interpolation ----------------------------------------------------------------------------------------------------


def test_a_path_by_hand() -> None:
    model = PlantedModel(4)
    kept = embeddings([5, 1, 1, 4])
    kept["mu"] += np.linspace(-0.2, 0.2, 11)[:, None].astype(np.float32)  # so that the mean is none of the vectors
    info = interpolation(kept, model, [(0, 3)], steps=7)
    (path,) = info.paths
    first, last = (kept["mu"][kept["expert"] == expert].astype(float).mean(axis=0) for expert in (0, 3))
    np.testing.assert_allclose(path.z_SZ, [first + (last - first) * step / 6 for step in range(7)], atol=1e-6)
    assert path.expert_S.tolist() == np.abs(path.z_SZ[:, :1] - np.arange(4)).argmin(axis=1).tolist()
    assert set(path.expert_S.tolist()) == {0, 1, 2, 3} == set(info.named)
    np.testing.assert_allclose(path.gate_SE, model.gate(path.z_SZ))
    decoded_SEHW = model.decode_all(path.z_SZ)
    for step, expert in enumerate(path.expert_S):
        np.testing.assert_allclose(path.chosen_SHW[step], decoded_SEHW[step, expert])
        blend = sum(gate * image for gate, image in zip(path.gate_SE[step], decoded_SEHW[step], strict=True))
        np.testing.assert_allclose(path.blend_SHW[step], blend, atol=1e-6)


def test_without_pairs_paths_lead_from_the_largest_expert_down() -> None:
    kept = embeddings([2, 0, 9, 5, 1])
    info = interpolation(kept, PlantedModel(5))
    assert [(path.start, path.end) for path in info.paths] == [(2, 3), (3, 0), (0, 4)]
    assert [(path.start, path.end) for path in interpolation(kept, PlantedModel(5), limit=1).paths] == [(2, 3)]


def test_a_path_needs_two_active_experts() -> None:
    with pytest.raises(ResultsError, match=r"expert 1 takes every test image; a path needs two"):
        interpolation(embeddings([0, 4]), PlantedModel(2))
    with pytest.raises(ResultsError, match="expert 1 has no test image; choose among 0, 2"):
        interpolation(embeddings([4, 0, 4]), PlantedModel(3), [(0, 1)])
