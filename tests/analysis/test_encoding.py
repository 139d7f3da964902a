"""What experts encode: hand-built experts, known answers, and what permuting experts may not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score

from smoe_ray.analysis.encoding import (
    ORIENTATION_PERIOD,
    PermutationTest,
    ablate_experts,
    advantage,
    axis_agreement,
    beyond_class,
    cka_matrix,
    class_axis,
    class_selectivity,
    class_separability,
    dichotomy_agreement,
    exciting_inputs,
    expert_separability,
    expert_similarity,
    feature_profile,
    first_split,
    hidden_separability,
    input_specificity,
    lifetime_sparseness,
    linear_cka,
    over_seeds,
    partition_agreement,
    pixel_features,
    relative_precision,
    routing_mismatch,
    similarity_across_seeds,
    tuning_agreement,
    tuning_curves,
)
from smoe_ray.analysis.encoding.permutation import balanced_sample, permutations_within, stratified_folds
from smoe_ray.errors import ResultsError
from support.planted_experts import bars, hidden_of_copies, responses

SEEDS = st.integers(0, 2**32 - 1)


# --- selectivity ------------------------------------------------------------------------------------------------------


def test_selectivity_of_an_expert_of_one_class_and_of_one_of_all() -> None:
    gate_BE = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0.8, 0.2], [0, 0.7, 0.3]])
    found = class_selectivity(gate_BE, gate_BE.argmax(axis=1), np.array([0, 0, 1, 0]), ("a", "b"))
    assert found.routing.class_given_expert_EC.tolist()[:2] == [[1, 0], [0.5, 0.5]]
    assert found.routing.selectivity_E[:2] == pytest.approx([1, 0])
    assert found.gate_EC[0] == pytest.approx([0.5, 0])
    assert found.sparseness_E[0] == pytest.approx(1)


def test_lifetime_sparseness_by_hand() -> None:
    found = lifetime_sparseness(np.array([[2.0, 2, 2], [0, 5, 0], [1, 0, 1], [0, 0, 0]]))
    # [1, 0, 1]: (2/3)² / (2/3) = 2/3, and (1 - 2/3) / (1 - 1/3) = 1/2
    assert found[:3] == pytest.approx([0, 1, 0.5])
    assert np.isnan(found[3])
    assert lifetime_sparseness(np.array([[1, 0, np.nan]])) == pytest.approx([1])


def test_a_gate_that_spreads_every_image_is_not_sparse() -> None:
    label_B = np.array([0, 1, 0, 1])
    expert_B = np.arange(4)
    even, sharp = (
        class_selectivity(gate, expert_B, label_B, ("a", "b")) for gate in (np.full((4, 5), 0.2), np.eye(5)[:4])
    )
    assert (even.gate_sparseness, sharp.gate_sparseness) == pytest.approx((0, 1))


# --- separability of classes ------------------------------------------------------------------------------------------


def test_classes_that_one_expert_separates_and_another_does_not() -> None:
    rng = np.random.default_rng(0)
    label_B = np.repeat(np.arange(3), 40)
    clear = rng.normal(size=(120, 6)) + 3 * np.eye(3, 6)[label_B]
    found = expert_separability(
        np.stack([clear, rng.normal(size=(120, 6))]), label_B, np.repeat([0, 1], 60), permutations=199
    )
    one, other = found.everything
    assert one.accuracy > 0.9
    assert one.ridge.value > 0.9
    assert one.ridge.chance == pytest.approx(1 / 3, abs=0.03)
    assert found.adjusted_p_E[0] == one.ridge.p == 1 / 200
    assert found.adjusted_p_E[1] >= other.ridge.p > 0.05
    highest = PermutationTest(other.ridge.value, np.maximum(one.ridge.null_P, other.ridge.null_P))
    assert found.adjusted_p_E[1] == highest.p != other.ridge.p
    assert (one.fisher.p, one.d_prime > 2.5, abs(other.d_prime) < 0.5) == (1 / 200, True, True)
    assert found.spread.p == 1 / 200
    assert [routed.classes for routed in found.routed] == [2, 2]  # 40 + 20 images each
    assert found.routed[0].accuracy > 0.9


def test_routed_images_are_the_experts_own() -> None:
    label_B = np.repeat(np.arange(2), 30)
    hidden_EBH = np.random.default_rng(0).normal(size=(2, 60, 5))
    found = expert_separability(hidden_EBH, label_B, np.where(np.arange(60) < 45, 0, 1), permutations=9)
    assert (found.routed[0].images, found.routed[0].classes) == (30, 2)  # 15 of each
    assert (found.routed[1].classes, np.isnan(found.routed[1].accuracy)) == (1, True)


def test_fisher_and_ridge_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(2)
    label_N = np.repeat(np.arange(3), 20)
    x_NH = rng.normal(size=(60, 4)) + np.eye(3, 4)[label_N]
    x_NH = (x_NH - x_NH.mean(axis=0)) / x_NH.std(axis=0)
    found = hidden_separability(x_NH, label_N, permutations=9)
    mean_CH = np.stack([x_NH[label_N == c].mean(axis=0) for c in range(3)])
    between = mean_CH.T @ mean_CH / 3
    within = np.cov((x_NH - mean_CH[label_N]).T, ddof=0) + 0.01 * np.eye(4)
    assert found.fisher.value == pytest.approx(np.trace(np.linalg.solve(within, between)), rel=1e-4)
    fold_N = stratified_folds(label_N, 5, 0)
    right = 0
    for fold in range(5):
        train, test = fold_N != fold, fold_N == fold
        x = x_NH[train] - x_NH[train].mean(axis=0)
        weights = np.linalg.solve(x.T @ x + 0.01 * train.sum() * np.eye(4), x.T @ np.eye(3)[label_N[train]])
        right += (((x_NH[test] - x_NH[train].mean(axis=0)) @ weights).argmax(axis=1) == label_N[test]).sum()
    assert found.ridge.value == pytest.approx(right / 60)


def test_more_hidden_values_than_images_give_the_same_scores() -> None:
    """Zero columns change no kernel, but which side the system is solved on."""
    rng = np.random.default_rng(3)
    x_NH = rng.normal(size=(30, 4)).astype(np.float32)
    fold_N = stratified_folds(np.zeros(30, int), 5, 0)
    wide = np.hstack([x_NH, np.zeros((30, 60), np.float32)])
    smooth = class_separability._held_out_smoother
    assert smooth(wide, fold_N) == pytest.approx(smooth(x_NH, fold_N), abs=1e-5)
    train, test = fold_N != 2, fold_N == 2
    x, value_N = x_NH[train] - x_NH[train].mean(axis=0), rng.normal(size=30)
    weight_H = np.linalg.solve(x.T @ x + 0.01 * train.sum() * np.eye(4), x.T @ value_N[train])
    predicted = (x_NH[test] - x_NH[train].mean(axis=0)) @ weight_H + value_N[train].mean()
    assert (smooth(x_NH, fold_N) @ value_N)[test] == pytest.approx(predicted, abs=1e-4)


def test_claims_under_permuted_labels_are_false_at_the_stated_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 repeats with two experts: "some expert separates the classes", at 0.05 for both together."""
    monkeypatch.setattr(class_separability, "_logistic_accuracy", lambda *_: 0.0)  # no part of the test
    rng = np.random.default_rng(0)
    hidden_EBH = rng.normal(size=(2, 36, 3)).astype(np.float32)
    label_B = np.repeat(np.arange(3), 12)
    nobody = np.full(36, 9)
    claims = 0
    for repeat in range(200):
        found = expert_separability(hidden_EBH, rng.permutation(label_B), nobody, permutations=19, seed=repeat)
        claims += found.adjusted_p_E.min() <= 0.05
    assert 3 <= claims <= 18  # 99 % of the binomial around 10


def test_a_class_with_too_few_images_leaves_nothing_to_cross_validate() -> None:
    found = hidden_separability(np.ones((9, 2)), np.array([0] * 5 + [1] * 4))
    assert np.isnan([found.accuracy, found.ridge.value, found.ridge.p, found.d_prime]).all()


# --- exciting inputs --------------------------------------------------------------------------------------------------


def test_specificity_by_hand() -> None:
    found = input_specificity(np.array([[5.0, 1, 2], [0, 3, 4], [1, 1, 2]]))
    assert found.margin_E.tolist() == [3, -1, 1]
    assert found.specificity == 1
    assert found.diagonal == pytest.approx(2 / 3)
    with pytest.raises(ResultsError, match="shape"):
        input_specificity(np.zeros((2, 3)))


def test_exciting_inputs_of_experts_in_use_come_first() -> None:
    """Three experts, of which the first takes no test image; two starts, two test images each."""
    arrays = {
        "expert": np.array([2, 1, 1, 2]),
        "exciting_image": np.arange(6.0).reshape(1, 3, 2, 1, 1) * np.ones((2, 2)),
        "exciting_value": np.array([[[9.0, 1], [1, 5], [2, 3]]]),
        "exciting_decoded": np.arange(3.0).reshape(1, 3, 1, 1) * np.ones((2, 2)),
        "data_image": np.array([[[0, 1], [1, 2], [3, 0]]]),
        "data_value": np.array([[[0.0, 0], [4, 1], [7, 1]]]),
        "cross": np.eye(3)[None],
    }
    image_BHW = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((2, 2), np.uint8)
    (found,) = exciting_inputs(arrays, ["gate_logit"], image_BHW)
    assert (found.expert_E.tolist(), found.alive_E.tolist()) == ([1, 2, 0], [True, True, False])
    assert found.image_EI[:, 0, 0].tolist() == [3, 5, 0]  # of the start with the higher value
    assert found.decoded_EI[:, 0, 0].tolist() == [1, 2, 0]
    assert found.test_KEI[:, :, 0, 0].tolist() == [[1, 3, 0], [2, 0, 1]]
    assert found.beaten == 0.5  # 5 is above 4, 3 not above 7; the expert without images does not count
    assert found.specificity.diagonal == 1


# --- tuning -----------------------------------------------------------------------------------------------------------


def test_hand_built_experts_are_tuned_to_what_they_were_built_for() -> None:
    drawn = bars()
    oriented, sized, nothing = tuning_curves(
        "orientation", drawn.angle_N, responses(drawn), period=ORIENTATION_PERIOD, permutations=99
    ).curves
    assert oriented.preferred == pytest.approx(45, abs=5)
    assert oriented.orientation_index > 0.9
    assert oriented.breadth < 0.3
    assert 15 < oriented.width < 40
    assert oriented.modulation.p == 0.01
    assert sized.orientation_index < 0.1
    assert nothing.orientation_index < 1e-9
    assert nothing.breadth == pytest.approx(1)
    assert np.isnan([nothing.width, nothing.modulation.value]).all()


def test_the_expert_tuned_to_size_rises_with_size() -> None:
    drawn = bars()
    by_size = tuning_curves("size", drawn.length_N, responses(drawn), permutations=99)
    assert len(by_size.value_K) == 16  # bins of equal numbers
    assert set(by_size.count_K) == {9}
    assert (np.diff(by_size.value_K) > 0).all()
    oriented, sized, _ = by_size.curves
    assert sized.preferred == by_size.value_K[-1]
    assert (sized.modulation.p, oriented.modulation.p > 0.05) == (0.01, True)
    assert np.isnan(sized.orientation_index)


def test_stimuli_are_compared_within_their_blocks() -> None:
    """What blocks have in common hides a small effect of the value, unless it is taken away."""
    block_N, value_N = np.repeat(np.arange(20), 5), np.tile(np.arange(5.0), 20)
    response_NE = (100 * block_N + value_N)[:, None]
    (within,) = tuning_curves("x", value_N, response_NE, block_N=block_N, permutations=99).curves
    (across,) = tuning_curves("x", value_N, response_NE, permutations=99).curves
    assert within.modulation.value == pytest.approx(1)
    assert (within.modulation.p, across.modulation.p > 0.05) == (0.01, True)
    assert within.mean_K.tolist() == across.mean_K.tolist()


def test_width_at_half_height_by_hand() -> None:
    value_N = np.array([0.0, 1, 2, 3, 4])
    flank, peak = tuning_curves("x", value_N, np.array([[9, 1], [5, 1], [1, 5], [1, 1], [1, 1]]), permutations=9).curves
    assert (flank.width, peak.width) == (1, 1)  # one flank: 9 falls to 5 at 1; two: 5 falls to 3 half a step away
    (round_the_end,) = tuning_curves(
        "angle", np.array([0, 45, 90, 135]), np.array([[5], [3], [1], [1]]), period=180.0, permutations=9
    ).curves
    assert round_the_end.width == pytest.approx(45 + 22.5)


@pytest.mark.parametrize(
    ("value_N", "response_NE", "message"),
    [([1, 1], [[1], [1]], "single value"), ([1, 2], [[1], [-1]], "negative"), ([1, 2], [[1]], "different lengths")],
)
def test_stimuli_that_tell_nothing(value_N: list[int], response_NE: list[list[int]], message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        tuning_curves("size", np.array(value_N), np.array(response_NE))


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_of_bars() -> None:
    drawn = bars()
    features = pixel_features(drawn.image_NHW)
    value = dict(zip(features.names, features.value_BF.T, strict=True))
    angle = np.degrees(np.arctan2(value["diagonal energy"], value["horizontal energy"])) / 2 % 180
    assert np.abs((angle - drawn.angle_N + 90) % 180 - 90).max() < 5
    assert np.corrcoef(value["ink"], drawn.length_N)[0, 1] > 0.95
    level = drawn.angle_N == 0
    assert np.abs(value["size"][level] * 28 - drawn.length_N[level]).max() < 4
    assert value["mirror symmetry"][level] == pytest.approx(1)
    assert value["mirror symmetry"][drawn.angle_N == 45].max() < 0.5
    assert "saturation" not in features.names


def test_features_of_colours_and_gratings() -> None:
    column = np.arange(28)
    gratings = np.stack([np.tile(0.5 + 0.5 * np.sin(2 * np.pi * f * column / 28), (28, 1)) for f in (2, 7)])
    found = pixel_features(gratings)
    assert found.value_BF[:, found.names.index("spatial frequency")] == pytest.approx([2, 7])
    red = np.zeros((2, 3, 4, 4))
    red[0, 0] = 1
    coloured = pixel_features(red)
    value = dict(zip(coloured.names, coloured.value_BF.T, strict=True))
    assert (value["saturation"][0], value["red-green"][0], value["blue-yellow"][0]) == (1, 1, -0.5)
    assert "contrast" not in coloured.names  # does not vary
    assert pixel_features((red * 255).astype(np.uint8)).value_BF == pytest.approx(coloured.value_BF)
    with pytest.raises(ResultsError, match="shape"):
        pixel_features(np.zeros((2, 4, 4, 3)))


def test_what_features_explain_beyond_the_class() -> None:
    rng = np.random.default_rng(0)
    label_B = np.repeat(np.arange(3), 60)
    feature_BF = rng.normal(size=(180, 2)) + label_B[:, None]
    noise_B = rng.normal(size=180)
    response_BE = np.stack([label_B + noise_B, label_B + feature_BF[:, 0] + 0.1 * noise_B, np.ones(180)], axis=1)
    found = beyond_class(response_BE, feature_BF, label_B, permutations=199)
    by_class, by_feature, constant = found.gain
    assert abs(by_class.value) < 0.05
    assert by_class.p > 0.05
    assert by_feature.p == 1 / 200
    assert found.full_r2_E[1] > 0.98
    assert by_feature.value == pytest.approx(found.full_r2_E[1] - found.class_r2_E[1])
    assert by_feature.chance < 0.01
    assert np.isnan(constant.value)
    assert found.mean_gain.value == pytest.approx((by_class.value + by_feature.value) / 2)
    profile_EF = feature_profile(response_BE, feature_BF, label_B)
    assert profile_EF[1, 0] > 0.98
    assert np.abs(profile_EF[[0, 1], 1]).max() < 0.2  # the class, common to both features, is no part of it
    assert profile_EF[2].tolist() == [0, 0]


# --- mismatch ---------------------------------------------------------------------------------------------------------


def test_regret_and_misrouting_by_hand() -> None:
    error_BE = np.array([[1, 3], [4, 2], [5, 5], [2, 6]], float)
    found = routing_mismatch(error_BE, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 2)
    assert found.regret == (0 + 2 + 0 + 4) / 4
    assert found.regret_E.tolist() == [1, 2]
    assert found.misrouted == 0.5  # equal errors are no mistake
    assert advantage(error_BE).tolist() == [[2, -2], [-2, 2], [0, 0], [4, -4]]
    assert advantage(error_BE[:, :1]).tolist() == [[0]] * 4


def test_an_expert_routed_what_it_is_tuned_to_diverges_less() -> None:
    label_B = np.repeat([0, 1], 50)
    error_BE = np.where(np.eye(2, dtype=bool)[label_B], 1.0, 2.0)
    right = routing_mismatch(error_BE, label_B, label_B, 2)
    wrong = routing_mismatch(error_BE, 1 - label_B, label_B, 2)
    assert right.tuning_EC[0] == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))])  # z scores 1 and -1
    assert (right.divergence_E < 0.1).all()
    assert (wrong.divergence_E > 0.6).all()
    dead = routing_mismatch(error_BE, np.zeros(100, int), label_B, 2)
    assert np.isnan([dead.divergence_E[1], dead.regret_E[1]]).all()


# --- similarity -------------------------------------------------------------------------------------------------------


def test_copies_are_alike_and_independent_experts_are_not() -> None:
    found = expert_similarity(hidden_of_copies(), permutations=99)
    assert found.cka_EE[0, 1] == pytest.approx(1, abs=1e-4)
    assert found.rsa_EE[0, 1] > 0.9  # 1 - correlation is not invariant to a common offset
    assert (found.cka_p_EE[0, 1], found.rsa_p_EE[0, 1]) == (0.01, 0.01)
    assert np.abs(found.cka_EE[2]).tolist()[:2] == pytest.approx([0, 0], abs=0.05)
    assert found.cka_p_EE[2, 3] > 0.05
    assert np.diag(found.cka_EE) == pytest.approx(np.ones(4))


def unbiased_hsic(kernel: np.ndarray, other: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, term by term."""
    n, k, m = len(kernel), kernel - np.diag(np.diag(kernel)), other - np.diag(np.diag(other))
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ m) + middle - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3)))


@pytest.mark.parametrize("width", [5, 50])
def test_cka_is_that_of_the_unbiased_estimator(width: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20, width)) + 3
    y += x
    k, m = x @ x.T, y @ y.T
    expected = unbiased_hsic(k, m) / np.sqrt(unbiased_hsic(k, k) * unbiased_hsic(m, m))
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-3)
    similarity = expert_similarity(np.stack([x, y]), permutations=9)
    assert similarity.cka.value == pytest.approx(expected, rel=1e-3)  # by U-centred kernels


def test_debiased_cka_of_small_independent_samples_is_zero_on_average() -> None:
    rng = np.random.default_rng(0)
    debiased, biased = [], []
    for _ in range(60):
        x, y = rng.normal(size=(2, 20, 60))
        debiased.append(linear_cka(x, y))
        k, m = (value @ value.T for value in (x - x.mean(axis=0), y - y.mean(axis=0)))
        biased.append((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))
    assert np.mean(debiased) == pytest.approx(0, abs=0.03)
    assert np.mean(biased) > 0.6


def test_experts_of_another_seed_are_matched() -> None:
    hidden_EBH = hidden_of_copies()[[0, 2, 3]]
    found = similarity_across_seeds([hidden_EBH, hidden_EBH[::-1], np.random.default_rng(9).normal(size=(3, 120, 8))])
    assert found.matched_SS[0, 1] == pytest.approx(1, abs=1e-4)
    assert found.matched_SS[0, 2] < 0.1
    assert found.ceiling == pytest.approx(np.nanmean(found.matched_SS))
    with pytest.raises(ResultsError, match="two seeds"):
        similarity_across_seeds([hidden_EBH])


def test_a_dead_expert_is_similar_to_none() -> None:
    hidden_EBH = hidden_of_copies()
    hidden_EBH[2] = 0
    found = expert_similarity(hidden_EBH, permutations=9)
    assert np.isnan(found.cka_EE[2]).all()
    assert np.isnan(found.rsa_EE[2, 0])
    assert not np.isnan([found.cka.value, found.rsa.value]).any()  # over the others


# --- stability --------------------------------------------------------------------------------------------------------


def test_partitions_that_agree_and_that_do_not() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 4, (2, 200))
    found = partition_agreement([one, 3 - one, other], permutations=99)
    assert found.score_SS[0, 1] == pytest.approx(1)
    assert found.score_SS[0, 2] == pytest.approx(adjusted_mutual_info_score(one, other))
    assert found.mean.p == 0.01
    assert found.mean.chance == pytest.approx(0, abs=0.01)
    assert partition_agreement([one, other], permutations=99).mean.p > 0.05
    assert partition_agreement([one, np.zeros(200, int)], permutations=9).mean.value == 0
    with pytest.raises(ResultsError, match="two seeds"):
        partition_agreement([one])


def test_tuning_is_matched_before_it_is_compared() -> None:
    tuning_EX = np.random.default_rng(0).normal(size=(4, 30))
    found = tuning_agreement([tuning_EX, 2 * tuning_EX[::-1] + 1], permutations=99)
    assert found.mean.value == pytest.approx(1)
    assert found.mean.p == 0.01
    assert 0 < found.mean.chance < 0.4  # matching finds something in anything
    unlike = tuning_agreement([tuning_EX, np.random.default_rng(1).normal(size=(4, 30))], permutations=99)
    assert unlike.mean.p > 0.05


ANIMATE_C = np.array([0, 0, 1, 1, 1, 1, 1, 1, 0, 0], bool)


def planted_profile(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.outer(ANIMATE_C - 0.6, rng.normal(size=8)) + 0.1 * rng.normal(size=(10, 8))


def test_the_axis_and_the_first_split_of_the_classes_are_found() -> None:
    axes = [class_axis(planted_profile(seed), permutations=99) for seed in range(3)]
    assert all(axis.share.value > 0.8 and axis.share.p == 0.01 for axis in axes)
    assert axis_agreement([axis.score_C for axis in axes], permutations=99).mean.p == 0.01
    split = first_split(planted_profile(0))
    assert split.share > 0.8
    agreement = dichotomy_agreement(split.side_C, ANIMATE_C)
    assert agreement.value == 1
    assert agreement.p == pytest.approx(1 / 210)  # of all 10 over 6 assignments
    noise = class_axis(np.random.default_rng(1).normal(size=(10, 8)), permutations=99)
    assert noise.share.p > 0.05


def test_five_classes_are_too_few_for_any_dichotomy_to_be_unlikely() -> None:
    named_C = np.array([1, 1, 0, 0, 0], bool)
    assert dichotomy_agreement(named_C, named_C).p == pytest.approx(0.1)
    assert dichotomy_agreement(~named_C, named_C).value == 1
    with pytest.raises(ResultsError, match="name every class"):
        dichotomy_agreement(named_C, named_C[:4])


# --- ablation ---------------------------------------------------------------------------------------------------------


def test_ablation_and_swap_by_hand() -> None:
    logit_BE = np.array([[3, 2, 1], [3, 1, 2], [0, 5, 4], [0, 1, 0]]) - 9.0
    error_BE = np.array([[1, 2, 9], [2, 9, 5], [7, 3, 2], [8, 4, 4]], float)
    found = ablate_experts(logit_BE, error_BE, logit_BE.argmax(axis=1), np.array([0, 1, 1, 1]), ("a", "b", "none"))
    # images 0, 1 go to expert 0 (then 1, 2), images 2, 3 to expert 1 (then 2, 0)
    assert found.loss == (1 + 2 + 3 + 4) / 4
    assert found.loss_C[:2].tolist() == [1, 3]
    assert found.increase_E.tolist() == [(1 + 3) / 4, (-1 + 4) / 4, 0]
    assert found.increase_EC[:, 0].tolist() == [1, 0, 0]
    assert found.increase_EC[:, 1] == pytest.approx([1, 1, 0])
    assert np.isnan(found.increase_EC[:, 2]).all()
    assert found.rerouted_to_EE.tolist() == [[0, 1, 1], [1, 0, 1], [0, 0, 0]]
    assert found.swap_EE[:2].tolist() == [[0, (1 + 7) / 2, (8 + 3) / 2], [(4 + 4) / 2, 0, -0.5]]
    assert np.isnan(found.swap_EE[2]).all()


def test_a_single_expert_cannot_be_removed() -> None:
    found = ablate_experts(np.zeros((2, 1)), np.ones((2, 1)), np.zeros(2, int), np.zeros(2, int), ("a",))
    assert np.isnan(found.increase_E).all()
    assert found.loss == 1


# --- properties -------------------------------------------------------------------------------------------------------


@given(seed=SEEDS, experts=st.integers(2, 5))
@settings(max_examples=25)
def test_permuting_experts_permutes_everything(seed: int, experts: int) -> None:
    rng = np.random.default_rng(seed)
    logit_BE, error_BE = rng.normal(size=(30, experts)), rng.exponential(size=(30, experts))
    label_B, order = rng.integers(0, 3, 30), rng.permutation(experts)
    names = ("a", "b", "c")
    before, after = (
        ablate_experts(logit_BE[:, o], error_BE[:, o], logit_BE[:, o].argmax(axis=1), label_B, names)
        for o in (np.arange(experts), order)
    )
    assert after.increase_EC == pytest.approx(before.increase_EC[order], nan_ok=True)
    assert after.swap_EE == pytest.approx(before.swap_EE[np.ix_(order, order)], nan_ok=True)
    gate_BE = np.exp(logit_BE) / np.exp(logit_BE).sum(axis=1, keepdims=True)
    one, other = (class_selectivity(gate, gate.argmax(axis=1), label_B, names) for gate in (gate_BE, gate_BE[:, order]))
    assert other.sparseness_E == pytest.approx(one.sparseness_E[order])
    assert other.routing.selectivity_E == pytest.approx(one.routing.selectivity_E[order], nan_ok=True)
    here, there = (
        routing_mismatch(error_BE[:, o], gate_BE[:, o].argmax(axis=1), label_B, 3) for o in (np.arange(experts), order)
    )
    assert there.divergence_E == pytest.approx(here.divergence_E[order], nan_ok=True)
    assert there.regret == pytest.approx(here.regret)
    hidden_EBH = rng.normal(size=(experts, 30, 4))
    assert cka_matrix(hidden_EBH[order]) == pytest.approx(cka_matrix(hidden_EBH)[np.ix_(order, order)], abs=1e-4)
    cross_EE = rng.normal(size=(experts, experts))
    moved = input_specificity(cross_EE[np.ix_(order, order)])
    assert moved.margin_E == pytest.approx(input_specificity(cross_EE).margin_E[order])


@given(seed=SEEDS)
@settings(max_examples=25)
def test_everything_stays_in_its_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    error_BE, label_B = rng.exponential(size=(24, 3)), rng.integers(0, 3, 24)
    precision_BE = relative_precision(error_BE)
    assert precision_BE.sum(axis=1) == pytest.approx(np.ones(24))
    mismatch = routing_mismatch(error_BE, rng.integers(0, 3, 24), label_B, 3)
    divergence_E = mismatch.divergence_E[~np.isnan(mismatch.divergence_E)]
    assert ((divergence_E >= 0) & (divergence_E <= 1)).all()
    assert mismatch.regret >= 0
    value_N = rng.integers(0, 4, 24) * 45
    for curve in tuning_curves("angle", value_N, precision_BE, period=180.0, permutations=9).curves:
        assert 0 <= curve.orientation_index <= 1
        assert 0 <= curve.preferred < 180
        assert 0 <= curve.breadth <= 1
        assert 0 <= curve.modulation.value <= 1
        assert 0.1 <= curve.modulation.p <= 1
        assert 0 <= curve.width <= 180


# --- permutations -----------------------------------------------------------------------------------------------------


def test_permutations_stay_within_their_groups() -> None:
    group_B = np.array([2, 0, 2, 1, 0, 2, 0])
    order_PB = permutations_within(group_B, 200, 0)
    assert (group_B[order_PB] == group_B).all()
    assert (np.sort(order_PB, axis=1) == np.arange(7)).all()
    assert len(np.unique(order_PB, axis=0)) == 6 * 6  # all of them, the identity too


def test_folds_and_samples_are_balanced() -> None:
    label_B = np.repeat([0, 1, 4], [20, 11, 9])
    fold_B = stratified_folds(label_B, 5, 0)
    assert all(np.ptp(np.bincount(fold_B[label_B == label], minlength=5)) <= 1 for label in (0, 1, 4))
    assert np.bincount(label_B[balanced_sample(label_B, 24, 0)]).tolist() == [8, 8, 0, 0, 8]
    assert np.bincount(label_B[balanced_sample(label_B, 1000, 0)]).tolist() == [9, 9, 0, 0, 9]


def test_p_values_count_the_data_as_one_permutation() -> None:
    assert PermutationTest(2.0, np.array([0.0, 1, 2, 3])).p == 3 / 5
    pooled = over_seeds([PermutationTest(2.0, np.zeros(9)), PermutationTest(4.0, np.ones(9))])
    assert (pooled.interval.mean, pooled.chance, pooled.p) == (3, 0.5, 0.1)
    nothing = over_seeds([])
    assert nothing.interval.n == 0
    assert np.isnan(nothing.p)
