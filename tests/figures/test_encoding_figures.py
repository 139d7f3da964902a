"""What experts encode as pictures: well set at every size, and what is drawn is what was measured."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from test_plots import assert_well_set

from smoe_ray.analysis.encoding import (
    Ablation,
    ClassPreference,
    ExcitingInputs,
    ExpertSimilarity,
    ExpertTuning,
    ablate_experts,
    class_preference,
    exciting_inputs,
    expert_similarity,
    expert_tuning,
)
from smoe_ray.errors import ResultsError
from smoe_ray.figures import (
    plot_ablation,
    plot_class_preference,
    plot_exciting_inputs,
    plot_expert_similarity,
    plot_expert_tuning,
)
from smoe_ray.figures.style import GREY
from support.planted_experts import hidden_of_copies

SIZES = [(2, ("cat", "eye")), (5, ("cat", "eye", "$face", "snowflake")), (12, tuple(f"class {n}" for n in range(12)))]
PARAMETERS = ("orientation", "size")


def arrays(experts: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits, errors, experts and labels of 300 images."""
    rng = np.random.default_rng(0)
    label_B = np.arange(300) % classes
    logit_BE = 3 * rng.normal(size=(classes, experts))[label_B] + rng.normal(size=(300, experts))
    return logit_BE, np.exp(3 - 0.1 * logit_BE), logit_BE.argmax(axis=1), label_B


def preference(experts: int, names: tuple[str, ...]) -> ClassPreference:
    logit_BE, error_BE, expert_B, label_B = arrays(experts, len(names))
    gate_BE = np.exp(logit_BE) / np.exp(logit_BE).sum(axis=1, keepdims=True)
    return class_preference(gate_BE, error_BE, expert_B, label_B, names)


def ablation(experts: int, names: tuple[str, ...]) -> Ablation:
    return ablate_experts(*arrays(experts, len(names)), names)


def tuning(experts: int) -> ExpertTuning:
    """The first expert follows the value of every parameter, the others follow nothing."""
    rng = np.random.default_rng(0)
    value_N = np.tile(np.repeat(np.arange(6), 8), len(PARAMETERS)) * 30
    logit_NE = 0.3 * rng.normal(size=(len(value_N), experts))
    logit_NE[:, 0] += value_N / 50
    gate_NE = np.exp(logit_NE) / np.exp(logit_NE).sum(axis=1, keepdims=True)
    parameter_N = np.repeat(np.arange(len(PARAMETERS)), 48)
    repeat_N = np.tile(np.arange(8), 6 * len(PARAMETERS))
    return expert_tuning(PARAMETERS, parameter_N, value_N, repeat_N, gate_NE, np.exp(-logit_NE), permutations=39)


def similarity(experts: int = 4) -> ExpertSimilarity:
    return expert_similarity(np.resize(hidden_of_copies(), (experts, 120, 24)), permutations=39)


def exciting(experts: int, shape: tuple[int, ...] = (28, 28)) -> tuple[ExcitingInputs, ...]:
    rng = np.random.default_rng(0)
    arrays = {
        "expert": np.zeros(9, int),
        "exciting_image": rng.random((2, experts, 3, *shape)),
        "exciting_value": rng.random((2, experts, 3)),
        "exciting_decoded": rng.random((2, experts, *shape)),
        "data_image": rng.integers(0, 9, (2, experts, 4)),
        "data_value": rng.random((2, experts, 4)),
        "cross": rng.random((2, experts, experts)),
    }
    return exciting_inputs(arrays, ("gate_logit", "advantage"), rng.integers(0, 256, (9, *shape), dtype=np.uint8))


def texts(figure: Figure, panel: int) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].texts]


@pytest.mark.parametrize(("experts", "names"), SIZES)
def test_pictures_of_classes_are_well_set(experts: int, names: tuple[str, ...]) -> None:
    assert_well_set(plot_class_preference(preference(experts, names)))
    assert_well_set(plot_ablation(ablation(experts, names)))


@pytest.mark.parametrize("experts", [2, 13])
def test_pictures_of_curves_and_of_pairs_are_well_set(experts: int) -> None:
    assert_well_set(plot_expert_tuning(tuning(experts)))
    assert_well_set(plot_expert_similarity(similarity(experts)))


@pytest.mark.parametrize(("experts", "shape"), [(2, (28, 28)), (13, (3, 32, 32))])
def test_pictures_of_exciting_inputs_are_well_set(experts: int, shape: tuple[int, ...]) -> None:
    figure = plot_exciting_inputs(exciting(experts, shape))
    assert_well_set(figure)
    assert [ax.get_title(loc="left").partition(",")[0] for ax in figure.axes] == ["gate logit", "advantage"]
    assert [tick.get_color() for tick in figure.axes[0].get_xticklabels()[:2]] == ["black", GREY]
    assert len(figure.axes[0].images) == 5


def test_matrices_show_what_was_measured() -> None:
    info = preference(3, ("cat", "eye"))
    figure = plot_class_preference(info)
    order = info.selectivity.routing.reading_order
    given, good = (figure.axes[panel].images[0].get_array() for panel in (0, 1))
    assert given.tolist() == info.mismatch.class_given_expert_EC[order].tolist()
    assert good.tolist() == info.mismatch.tuning_EC[order].tolist()
    without = ablation(3, ("cat", "eye"))
    active = np.flatnonzero(without.rerouted_to_EE.sum(axis=1))
    cells, bars, swap, *_ = plot_ablation(without).axes
    assert cells.images[0].get_array().tolist() == without.increase_EC[active].tolist()
    assert [bar.get_width() for bar in bars.patches] == without.increase_E[active].tolist()
    assert swap.images[0].get_array().tolist() == without.swap_EE[active].tolist()


def test_what_chance_explains_is_pale() -> None:
    figure = plot_expert_tuning(tuning(3))
    follows, *others = (figure.axes[row * len(PARAMETERS)] for row in range(3))
    assert {line.get_alpha() for line in follows.lines[:2]} == {1.0}
    size_of_another = figure.axes[len(PARAMETERS) + 1]
    expected = tuning(3).decoding[1].curves[1].modulation.p <= 0.05
    assert (size_of_another.lines[1].get_alpha() == 1.0) == expected
    assert len(others) == 2


def test_pairs_no_more_alike_than_chance_are_grey() -> None:
    info = similarity()
    figure = plot_expert_similarity(info)
    colour_of = {text.get_position(): text.get_color() for text in figure.axes[0].texts}
    assert colour_of[1, 0] == "white"  # the copies
    assert colour_of[3, 2] == "#9a9a9a"
    assert "1.00" in texts(figure, 0)
    assert f"mean {info.cka.value:.2f}" in figure.axes[2].get_xlabel()


def test_nothing_to_show() -> None:
    single = ablate_experts(np.zeros((2, 1)), np.ones((2, 1)), np.zeros(2, int), np.zeros(2, int), ("cat",))
    with pytest.raises(ResultsError, match="single expert"):
        plot_ablation(single)
    dead = expert_similarity(np.zeros((2, 10, 3)), permutations=9)
    assert "no two experts" in plot_expert_similarity(dead).axes[2].get_xlabel()
