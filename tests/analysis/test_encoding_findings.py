"""The three findings on planted seeds: those that hold, those that do not, and too few seeds to tell."""

from __future__ import annotations

import numpy as np
import pytest

from smoe_ray.analysis.encoding import PermutationTest, SeedEncoding, expert_separability, seed_encoding, three_findings

ANIMATE_C = np.array([0, 0, 0, 1, 1, 1, 1], bool)
LABEL_B = np.repeat(np.arange(7), 20)


def as_published(seed: int) -> SeedEncoding:
    """One axis of classes in gate and errors, a sharp gate, errors that follow features, equal separability."""
    rng = np.random.default_rng(seed)
    images, experts = len(LABEL_B), 6
    side_B = np.where(ANIMATE_C[LABEL_B], 1.0, -1.0)
    feature_BF = rng.normal(size=(images, 8))
    member_E = rng.permutation(np.repeat([1.0, -1.0], experts // 2))
    gate_BE = softmax(8 * np.outer(side_B, member_E) + rng.normal(size=(images, experts)))
    tuning_FE = rng.normal(size=(8, experts))
    error_BE = np.exp(-0.1 * np.outer(side_B, member_E) + 0.2 * feature_BF @ tuning_FE)
    clear_BH = 3 * np.eye(7)[LABEL_B]
    hidden_EBH = np.stack([clear_BH + rng.normal(size=(images, 7)) for _ in range(experts)])
    return measured(gate_BE, error_BE, feature_BF, hidden_EBH)


def otherwise(seed: int) -> SeedEncoding:
    """Many axes, an even gate, errors of the class alone and of no feature, and one expert that separates nothing."""
    rng = np.random.default_rng(100 + seed)
    images, experts = len(LABEL_B), 6
    gate_BE = softmax(0.01 * rng.normal(size=(7, experts))[LABEL_B])
    error_BE = np.exp(0.5 * rng.normal(size=(7, experts))[LABEL_B] + 0.01 * rng.normal(size=(images, experts)))
    hidden_EBH = rng.normal(size=(experts, images, 7))
    hidden_EBH[1:] += 3 * np.eye(7)[LABEL_B]
    return measured(gate_BE, error_BE, rng.normal(size=(images, 8)), hidden_EBH)


def measured(gate_BE: np.ndarray, error_BE: np.ndarray, feature_BF: np.ndarray, hidden_EBH: np.ndarray) -> SeedEncoding:
    separability = expert_separability(hidden_EBH, LABEL_B, gate_BE.argmax(axis=1), permutations=99)
    return seed_encoding(gate_BE, error_BE, LABEL_B, feature_BF, separability, permutations=99)


def softmax(logit_BE: np.ndarray) -> np.ndarray:
    weight_BE = np.exp(logit_BE - logit_BE.max(axis=1, keepdims=True))
    return weight_BE / weight_BE.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def published() -> list[SeedEncoding]:
    return [as_published(seed) for seed in range(3)]


def test_findings_that_were_planted_hold(published: list[SeedEncoding]) -> None:
    found = three_findings(published, ("animate-inanimate", ANIMATE_C), permutations=99)
    assert [finding.answer for finding in found] == ["holds here"] * 3
    assert found[0].sentence.startswith("The animate-inanimate axis dominates")
    assert "holds here (n = 3)" in found[1].sentence
    assert found[1].criteria[0].statistic.p == 1 / 100
    assert "p = 0.0" in found[2].sentence


def test_findings_that_were_not_planted_do_not_hold() -> None:
    found = three_findings([otherwise(seed) for seed in range(3)], permutations=99)
    assert [finding.answer for finding in found] == ["does not hold here"] * 3
    assert "of the gate" in found[0].sentence


def test_two_seeds_cannot_tell(published: list[SeedEncoding]) -> None:
    for seeds in (published[:2], published[:1]):
        for finding in three_findings(seeds, permutations=99):
            assert finding.answer == "cannot tell"
            assert f"cannot tell; three seeds or more could (n = {len(seeds)}): " in finding.sentence


def test_without_a_partition_nothing_can_be_told_of_it() -> None:
    """Nor of routing: one expert takes every image."""
    seeds = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        gate_BE = np.tile([0.9, 0.1], (len(LABEL_B), 1))
        hidden_EBH = rng.normal(size=(2, len(LABEL_B), 3))
        seeds.append(measured(gate_BE, rng.exponential(size=gate_BE.shape), rng.normal(size=(140, 8)), hidden_EBH))
    axis, routing, _ = three_findings(seeds, permutations=99)
    assert (axis.answer, axis.seeds) == ("cannot tell", 0)
    assert routing.criteria[0].statistic.interval.n == 0
    assert routing.answer != "holds here"


def test_what_chance_gives_as_well_is_not_met(published: list[SeedEncoding]) -> None:
    chance = [
        seed._replace(gate_axis=seed.gate_axis._replace(share=PermutationTest(0.9 + number / 99, np.full(99, 0.95))))
        for number, seed in enumerate(published)
    ]
    axis, *_ = three_findings(chance, permutations=99)
    assert axis.criteria[0].statistic.interval.low > 0.5
    assert (axis.criteria[0].met, axis.answer) == (None, "cannot tell")


def test_another_dichotomy_is_not_the_axis(published: list[SeedEncoding]) -> None:
    every_other = np.array([1, 0, 1, 0, 1, 0, 1], bool)
    assert three_findings(published, ("odd-even", every_other), permutations=99)[0].answer != "holds here"


def test_routing_that_does_not_follow_classes_is_not_sparser_than_chance() -> None:
    """A gate of one expert per image, whatever the class, differs from even decoding by chance alone."""
    seeds = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        gate_BE = np.eye(4)[rng.integers(4, size=len(LABEL_B))]
        hidden_EBH = rng.normal(size=(4, len(LABEL_B), 3))
        seeds.append(measured(gate_BE, np.ones(gate_BE.shape), rng.normal(size=(140, 8)), hidden_EBH))
    sparser = three_findings(seeds, permutations=99)[1].criteria[0]
    assert sparser.statistic.interval.low > 0  # an interval alone would have it sparse
    assert sparser.statistic.p > 0.05
    assert sparser.met is None
