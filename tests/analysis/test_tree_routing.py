"""Layers of a hierarchical gate against classes and styles: planted trees."""

from __future__ import annotations

import numpy as np
import pytest

from smoe_ray.analysis import TreeRouting, mean_interval, tree_routing, tree_routing_over_trials
from smoe_ray.errors import ResultsError

LABEL_B = np.repeat(np.arange(3), 60)
STYLE_B = 2 * LABEL_B + np.tile([0, 1], 90)
"""Three classes of two styles each, 30 images of each style."""


def routed(expert_B: np.ndarray, groups: int = 3, style_B: np.ndarray | None = STYLE_B) -> TreeRouting:
    gate_BE = np.eye(6, dtype=np.float32)[expert_B]
    return tree_routing(gate_BE, expert_B, LABEL_B, style_B, groups)


def test_a_tree_of_classes_and_their_styles() -> None:
    found = routed(STYLE_B)
    assert (found.first_classes, found.second_styles) == pytest.approx((1, 1))
    assert found.second_classes == 0  # a group has one class: nothing of it is left to divide
    assert 0.2 < found.regrouped < 0.5
    assert found.off_path == 0


def test_a_tree_upside_down() -> None:
    """Two groups by which of its class's styles an image has; the experts of a group are the classes."""
    found = routed(3 * (STYLE_B % 2) + LABEL_B, groups=2)
    assert found.first_classes == pytest.approx(0, abs=0.02)
    assert found.first_classes < found.regrouped
    assert found.second_classes == pytest.approx(1)
    assert found.second_styles == pytest.approx(1)  # within a group a class has one style


def test_groups_that_divide_no_further() -> None:
    found = routed(2 * LABEL_B)
    assert found.first_classes == pytest.approx(1)
    assert (found.second_classes, found.second_styles) == (0, 0)


def test_data_without_styles() -> None:
    found = routed(STYLE_B, style_B=None)
    assert np.isnan([found.second_styles, found.second_classes]).all()  # one class in each group
    assert found.first_classes == pytest.approx(1)


def test_chance_scores_nothing_in_either_layer() -> None:
    rng = np.random.default_rng(0)
    trials = [routed(rng.integers(6, size=180)) for _ in range(3)]
    found = tree_routing_over_trials(trials)
    assert found.first_classes.low < 0 < found.first_classes.high
    assert found.second_styles.low < 0 < found.second_styles.high
    assert "layer one is not shown to agree" in found.sentence
    assert "layer two is not shown to agree with styles" in found.sentence


def test_the_expert_of_highest_probability_may_be_in_a_less_probable_group() -> None:
    gate_BE = np.array([[0.4, 0.0, 0.3, 0.3], [0.1, 0.1, 0.5, 0.3]], np.float32)
    found = tree_routing(gate_BE, gate_BE.argmax(axis=1), np.array([0, 1]), None, groups=2)
    assert found.off_path == 0.5


def test_verdicts_need_three_seeds_and_an_interval_that_excludes_zero() -> None:
    tree = routed(STYLE_B)
    varied = [tree._replace(first_classes=value, second_styles=value) for value in (0.8, 0.85, 0.9)]
    found = tree_routing_over_trials(varied)
    assert found.first_verdict == "layer one agrees with classes"
    assert found.second_verdict == "layer two agrees with styles"
    # Mean 0.85, s.d. 0.05, t(2) 4.303: half a width of 4.303 * 0.05 / sqrt(3) = 0.124.
    assert found.first_classes[:] == pytest.approx((0.85, 0.85 - 0.1242, 0.85 + 0.1242, 3), abs=1e-4)
    assert "AMI 0.850 (0.726 to 0.974)" in found.sentence
    coarse = tree_routing_over_trials([each._replace(second_styles=0.1, second_classes=0.6) for each in varied])
    assert coarse.second_verdict == "layer two agrees with classes rather than styles"
    two = tree_routing_over_trials(varied[:2])
    assert two.first_verdict == "cannot tell whether layer one agrees with classes (n = 2)"


def test_an_interval_of_one_run_has_no_ends() -> None:
    assert str(mean_interval([0.5, float("nan")])) == "0.500"
    assert mean_interval([]).n == 0


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ResultsError, match="tree routing: arrays of different lengths"):
        tree_routing(np.eye(6, dtype=np.float32), STYLE_B, LABEL_B, STYLE_B, 3)
