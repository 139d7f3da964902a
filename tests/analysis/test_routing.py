"""Experts against classes: planted partitions with exact scores, and the published run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from smoe_ray.analysis.expert_routing import Agreement, reading_order, routing, routing_within_classes
from smoe_ray.errors import ResultsError

NAN = float("nan")
NAMES = ("cat", "eye", "flower", "snowflake")


def of_counts(count_EC: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Images in the numbers of a contingency table."""
    table = np.array(count_EC)
    expert, label = np.indices(table.shape)
    return np.repeat(expert.ravel(), table.ravel()), np.repeat(label.ravel(), table.ravel())


def agreement(count_EC: list[list[int]]) -> Agreement:
    expert_B, class_B = of_counts(count_EC)
    return routing(expert_B, class_B, len(count_EC), NAMES[: len(count_EC[0])]).agreement


# --- known answers ----------------------------------------------------------------------------------------------------


def test_the_published_run(shared_data: Path) -> None:
    folder = shared_data / "published" / "embeddings_10_experts"
    expert_B, label_B = np.load(folder / "selected_experts.npy"), np.load(folder / "labels.npy")
    info = routing(expert_B, label_B, 10, tuple("abcde"))
    assert info.active == 5
    assert info.effective == pytest.approx(4.959, abs=5e-4)
    scores = info.agreement
    assert (scores.nmi, scores.ami, scores.ari) == pytest.approx((0.596, 0.596, 0.567), abs=5e-4)
    assert scores.cramers_v == pytest.approx(0.763, abs=5e-4)
    assert scores.purity == pytest.approx(0.788, abs=5e-4)
    assert scores.matched_correlation == pytest.approx(0.802, abs=5e-4)
    assert scores.matched_share == 1


def test_a_perfect_division_scores_one_whatever_the_ids() -> None:
    info = agreement([[0, 0, 7], [0, 0, 0], [4, 0, 0], [0, 9, 0]])
    assert info == pytest.approx(Agreement(1, 1, 1, 1, info.cramers_v_corrected, 1, 1, 1, 1))
    assert info.cramers_v_corrected == pytest.approx(1, abs=0.01)


def test_independent_experts_score_nothing() -> None:
    """Every expert takes all four classes alike: 3 x 4 cells of 5 images."""
    info = agreement([[5, 5, 5, 5]] * 3)
    assert info.nmi == pytest.approx(0, abs=1e-12)
    assert info.ami < 0
    # Pairs of images: 30 in the same cell of 60, 3·190 with the same expert, 4·105 of the same class, 1770 in all.
    both, expert, label, all_pairs = 12 * 10, 3 * 190, 4 * 105, 1770
    expected = expert * label / all_pairs
    assert info.ari == pytest.approx((both - expected) / ((expert + label) / 2 - expected))
    assert info.cramers_v == pytest.approx(0, abs=1e-12)
    assert info.cramers_v_corrected == 0
    assert info.purity == 1 / 4
    assert info.matched_accuracy == 1 / 4
    assert info.matched_correlation == pytest.approx(0, abs=1e-12)


def test_merged_classes() -> None:
    """Four classes of 10, two experts with two classes each."""
    info = agreement([[10, 10, 0, 0], [0, 0, 10, 10]])
    assert info.nmi == pytest.approx(2 * math.log(2) / (math.log(2) + math.log(4)))
    assert info.cramers_v == pytest.approx(1)
    assert info.purity == 1 / 2
    assert info.matched_accuracy == 1 / 2
    assert info.matched_share == 1


def test_split_classes() -> None:
    """Two classes of 30, each divided among experts as 20 and 10."""
    info = agreement([[20, 0], [10, 0], [0, 20], [0, 10]])
    entropy_of_experts = math.log(2) - 2 / 3 * math.log(2 / 3) - 1 / 3 * math.log(1 / 3)
    assert info.nmi == pytest.approx(2 * math.log(2) / (math.log(2) + entropy_of_experts))
    assert info.cramers_v == pytest.approx(1)
    assert info.purity == 1
    assert info.matched_accuracy == 2 / 3
    # Of matched experts alone: all of their images are of the matched class.
    assert info.matched_share == 2 / 3
    assert info.matched_correlation == pytest.approx(1)


def test_cramers_v_of_a_two_by_two_table() -> None:
    """phi = (ad - bc) / sqrt of the product of the margins; its correction as Bergsma (2013) writes it."""
    a, b, c, d = 12, 5, 3, 10
    info = agreement([[a, b], [c, d]])
    phi2 = (a * d - b * c) ** 2 / ((a + b) * (c + d) * (a + c) * (b + d))
    assert info.cramers_v == pytest.approx(math.sqrt(phi2))
    n = a + b + c + d
    assert info.cramers_v_corrected == pytest.approx(math.sqrt((phi2 - 1 / (n - 1)) / (2 - 1 / (n - 1) - 1)))


def test_random_routing_is_corrected_for_chance() -> None:
    rng = np.random.default_rng(0)
    scores = [routing(rng.integers(20, size=400), rng.integers(4, size=400), 20, NAMES).agreement for _ in range(200)]
    assert np.mean([score.ami for score in scores]) == pytest.approx(0, abs=0.004)
    assert np.mean([score.ari for score in scores]) == pytest.approx(0, abs=0.004)
    # Twenty experts by chance: the uncorrected ones see structure.
    assert np.mean([score.nmi for score in scores]) > 0.02
    assert np.mean([score.cramers_v for score in scores]) > 0.15
    assert np.mean([score.cramers_v_corrected for score in scores]) < 0.05


# --- what each expert takes -------------------------------------------------------------------------------------------


def test_shares_preferences_and_selectivity_of_experts() -> None:
    expert_B, class_B = of_counts([[6, 2, 0], [0, 0, 0], [3, 3, 0], [0, 0, 6]])
    info = routing(expert_B, class_B, 4, ("cat", "eye", "flower"))
    assert info.count_EC.tolist() == [[6, 2, 0], [0, 0, 0], [3, 3, 0], [0, 0, 6]]
    assert info.share_E.tolist() == [0.4, 0, 0.3, 0.3]
    assert info.class_share_C.tolist() == [9 / 20, 5 / 20, 6 / 20]
    np.testing.assert_allclose(
        info.class_given_expert_EC, [[0.75, 0.25, 0], [NAN] * 3, [0.5, 0.5, 0], [0, 0, 1]], rtol=1e-15
    )
    np.testing.assert_allclose(
        info.expert_given_class_EC, [[6 / 9, 2 / 5, 0], [0, 0, 0], [3 / 9, 3 / 5, 0], [0, 0, 1]], rtol=1e-15
    )
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    np.testing.assert_allclose(
        info.selectivity_E, [1 - entropy / math.log(3), NAN, 1 - math.log(2) / math.log(3), 1], rtol=1e-12
    )
    assert info.active == 3
    assert info.effective == pytest.approx(math.exp(-(0.4 * math.log(0.4) + 2 * 0.3 * math.log(0.3))))
    assert info.match_E.tolist() == [0, -1, 1, 2]
    assert info.reading_order.tolist() == [0, 2, 3]


def test_classes_without_images_count_for_nothing() -> None:
    expert_B, class_B = of_counts([[3, 0, 1], [0, 0, 4]])
    with_absent = routing(expert_B, class_B, 2, ("cat", "absent", "eye"))
    without = routing(expert_B, np.minimum(class_B, 1), 2, ("cat", "eye"))
    assert np.isnan(with_absent.expert_given_class_EC[:, 1]).all()
    np.testing.assert_array_equal(with_absent.selectivity_E, without.selectivity_E)
    assert with_absent.agreement == without.agreement
    assert with_absent.match_E.tolist() == [0, 2]


def test_rows_are_read_by_class_then_by_size() -> None:
    assert reading_order(np.array([[0, 5], [2, 1], [0, 0], [0, 6], [9, 0]])).tolist() == [4, 1, 3, 0]


# --- sub-categories ---------------------------------------------------------------------------------------------------


def test_within_a_class_experts_may_or_may_not_find_its_styles() -> None:
    styles = ("eye/open", "eye/closed", "cat/fat", "cat/thin", "cat/never drawn")
    style_B = np.repeat([0, 1, 2, 3], 10)
    label_B = np.repeat([1, 0], 20)
    found, not_found = np.repeat([4, 2], 10), np.tile([4, 2], 10)
    inside = routing_within_classes(
        np.concatenate([found, not_found]), label_B, style_B, 5, ("cat", "eye", "absent"), styles
    )
    assert list(inside) == ["cat", "eye"]
    assert inside["eye"].agreement.nmi == pytest.approx(1)
    assert inside["cat"].agreement.nmi == pytest.approx(0, abs=1e-12)
    assert inside["eye"].class_names == ("eye/open", "eye/closed")
    assert inside["cat"].class_names == ("cat/fat", "cat/thin")
    assert inside["eye"].count_EC.tolist() == [[0, 0], [0, 0], [0, 10], [0, 0], [10, 0]]


# --- degenerate inputs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count_EC", "expected"),
    [
        ([[3, 5], [0, 0]], Agreement(0, 0, 0, NAN, NAN, 5 / 8, 5 / 8, NAN, 1)),  # one expert
        ([[3, 0], [5, 0]], Agreement(0, 0, 0, NAN, NAN, 1, 5 / 8, NAN, 5 / 8)),  # one class
        ([[7, 0], [0, 0]], Agreement(1, 1, 1, NAN, NAN, 1, 1, NAN, 1)),  # one of both
        ([[0, 0], [0, 0]], Agreement(*[NAN] * 9)),  # no image
        ([[1, 0], [0, 1]], Agreement(1, 1, 1, 1, NAN, 1, 1, 1, 1)),  # an expert and a class for each image
    ],
)
def test_degenerate_partitions_have_stated_scores(count_EC: list[list[int]], expected: Agreement) -> None:
    assert agreement(count_EC) == pytest.approx(expected, nan_ok=True)


def test_of_no_image_everything_is_nan_and_nothing_is_active() -> None:
    nothing = np.empty(0, np.int64)
    info = routing(nothing, nothing, 3, ("cat", "eye"))
    assert info.active == 0
    assert math.isnan(info.effective)
    for values in (info.share_E, info.class_share_C, info.class_given_expert_EC, info.selectivity_E):
        assert np.isnan(values).all()
    assert info.reading_order.tolist() == []
    assert routing_within_classes(nothing, nothing, nothing, 3, ("cat",), ("cat/fat",)) == {}


def test_of_one_class_no_selectivity_is_defined() -> None:
    info = routing(np.array([0, 0, 2]), np.array([1, 1, 1]), 3, ("cat", "eye"))
    assert np.isnan(info.selectivity_E).all()


partitions = st.integers(1, 60).flatmap(
    lambda images: st.tuples(
        st.lists(st.integers(0, 5), min_size=images, max_size=images),
        st.lists(st.integers(0, 3), min_size=images, max_size=images),
    )
)


@given(partitions, st.permutations(range(6)))
def test_scores_stay_in_their_ranges_and_names_of_experts_do_not_matter(
    partition: tuple[list[int], list[int]], renamed: list[int]
) -> None:
    expert_B, class_B = map(np.array, partition)
    info = routing(expert_B, class_B, 6, NAMES)
    score = info.agreement
    for value in (score.nmi, score.cramers_v, score.cramers_v_corrected, score.purity, score.matched_accuracy):
        assert math.isnan(value) or -1e-9 <= value <= 1 + 1e-9
    assert score.purity >= score.matched_accuracy
    assert 1 <= info.effective <= info.active + 1e-9
    selectivity = info.selectivity_E[~np.isnan(info.selectivity_E)]
    assert ((selectivity > -1e-9) & (selectivity < 1 + 1e-9)).all()
    np.testing.assert_allclose(np.nansum(info.class_given_expert_EC, axis=1)[info.share_E > 0], 1)
    assert score.purity == pytest.approx(np.nansum(info.share_E * info.class_given_expert_EC.max(axis=1)))
    confusion = metrics.cluster.contingency_matrix(class_B, expert_B)
    assert sorted(map(tuple, confusion.T)) == sorted(
        map(tuple, info.count_EC[info.share_E > 0][:, info.class_share_C > 0])
    )

    other = routing(np.array(renamed)[expert_B], class_B, 6, NAMES).agreement
    unmatched = score._replace(matched_correlation=0, matched_share=0)  # of equally good matchings any may be taken
    assert other._replace(matched_correlation=0, matched_share=0) == pytest.approx(unmatched, nan_ok=True, abs=1e-9)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_arrays_of_different_trials_are_refused_in_one_line() -> None:
    with pytest.raises(
        ResultsError, match=r"^routing: arrays of different lengths \(expert 3, label 2\); pass arrays of one trial"
    ):
        routing(np.zeros(3, int), np.zeros(2, int), 1, ("cat",))
    with pytest.raises(ResultsError, match=r"^routing: expert ids run from 0 to 4, but there are 3; pass"):
        routing(np.array([0, 4]), np.zeros(2, int), 3, ("cat",))
    with pytest.raises(ResultsError, match=r"^routing: class ids run from -1 to 1, but there are 2; pass"):
        routing(np.zeros(2, int), np.array([-1, 1]), 3, ("cat", "eye"))
    with pytest.raises(ResultsError, match=r"^routing within classes: arrays of different lengths"):
        routing_within_classes(np.zeros(3, int), np.zeros(3, int), np.zeros(2, int), 1, ("cat",), ("cat/fat",))
    with pytest.raises(ResultsError, match=r"^routing: style ids run from 0 to 1, but there are 1"):
        routing_within_classes(np.zeros(2, int), np.zeros(2, int), np.array([0, 1]), 1, ("cat",), ("cat/fat",))
