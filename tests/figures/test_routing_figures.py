"""Routing and probes as pictures: everything drawn, nothing over anything, and what is drawn is what was measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from test_plots import assert_well_set

from smoe_ray.analysis.expert_routing import Routing, routing
from smoe_ray.analysis.latent_separability import ProbeBars, Separability, probe_bars
from smoe_ray.errors import ResultsError
from smoe_ray.figures.expert_routing import plot_probes, plot_routing

CLASSES = ("cat", "eye", "snowflake", "flower", "banana")
STYLES = tuple(f"{name}/{style}" for name in CLASSES for style in ("plain", "lashes", "tall", "a-b_c $x$"))
LONG = ("ß" * 60, "a$b$ " * 12, "many words " * 5)


def random_routing(experts: int, names: tuple[str, ...], images: int = 500) -> Routing:
    rng = np.random.default_rng(0)
    return routing(rng.integers(experts, size=images), rng.integers(len(names), size=images), experts, names)


def probe(target: str, accuracy: float = 0.9, left_out_images: int = 0) -> Separability:
    accuracy_F = accuracy + np.array([-0.02, 0, 0.02])
    control = target not in ("experts", "classes")
    return Separability(target, control, 100, 5, left_out_images, 1, accuracy_F, 0.9, 0.3, 0.25, 0.9, 0.1, 100)


def bars(arms: int, trials: int = 1, label: str = "blend, E={}", accuracy: float = 0.9) -> ProbeBars:
    targets = ("experts", "classes", "classes as a gate-like network predicts them", "k-means clusters")
    trial = [probe(target, accuracy) for target in targets]
    return probe_bars({label.format(arm): [trial] * trials for arm in range(arms)})


def caption(figure: Figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize("names", [CLASSES[:1], CLASSES, STYLES, LONG], ids=["one", "classes", "styles", "long"])
@pytest.mark.parametrize("experts", [1, 2, 10, 50])
def test_routing_is_well_set_at_every_size(experts: int, names: tuple[str, ...]) -> None:
    assert_well_set(plot_routing(random_routing(experts, names)))


def test_cells_and_margins_show_the_shares() -> None:
    info = routing(np.array([4, 4, 4, 4, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1, 1, 1]), 6, ("cat", "eye"))
    figure = plot_routing(info)
    above, cells, right, _ = figure.axes
    assert cells.images[0].get_array().tolist() == [[0.75, 0.25], [0, 1]]
    assert [label.get_text() for label in cells.get_yticklabels()] == ["expert 4", "expert 1"]
    assert [label.get_text() for label in cells.get_xticklabels()] == ["cat", "eye"]
    # Nothing is written where an expert takes no image of a class.
    written = {text.get_position(): text.get_text() for text in cells.texts}
    assert written == {(0, 0): "75%", (1, 0): "25%", (1, 1): "100%"}
    assert [bar.get_height() for bar in above.patches] == [3 / 8, 5 / 8]
    assert [bar.get_width() for bar in right.patches] == [0.5, 0.5]
    assert "8 images; 2 of 6 experts are active" in caption(figure)
    assert f"ARI {info.agreement.ari:.3f}" in caption(figure)


def test_an_undefined_score_is_said_to_be_so() -> None:
    figure = plot_routing(routing(np.zeros(3, int), np.zeros(3, int), 1, ("cat",)))
    assert "Cramer's V undefined" in caption(figure)


def test_no_image_makes_no_heatmap() -> None:
    nothing = np.empty(0, np.int64)
    with pytest.raises(ResultsError, match="routing: there are no images"):
        plot_routing(routing(nothing, nothing, 3, ("cat",)))


@pytest.mark.parametrize(("arms", "trials"), [(1, 1), (1, 5), (2, 1), (3, 4), (12, 2)])
def test_probes_are_well_set_at_every_size(arms: int, trials: int) -> None:
    assert_well_set(plot_probes(bars(arms, trials)))


@pytest.mark.parametrize("arms", [1, 2, 5])
def test_probes_of_long_labels_and_of_accuracy_one_are_well_set(arms: int) -> None:
    assert_well_set(plot_probes(bars(arms, label="many words " * 6 + "{}", accuracy=1.0)))


def test_bars_show_means_spread_and_chance() -> None:
    figure = plot_probes(bars(1))
    (ax,) = figure.axes
    (first, *_, last) = (container for container in ax.containers if isinstance(container, BarContainer))
    assert first.patches[0].get_width() == pytest.approx(0.9)
    assert to_hex(first.patches[0].get_facecolor()) != to_hex(last.patches[0].get_facecolor())
    assert first.errorbar.has_xerr
    assert [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"] == [0.3] * 4
    assert [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "x"] == [0.25] * 4
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["probe", "chance: largest group", "chance: permuted groups", "control"]
    assert "s.d. over folds" in caption(figure)
    assert "left out" not in caption(figure)
    several = plot_probes(bars(2, 3))
    assert "s.d. over trials" in caption(several)
    assert several.axes[0].get_title(loc="left").endswith("n = 3")


def test_what_could_not_be_probed_is_named() -> None:
    undefined = probe("experts")._replace(accuracy_F=np.full(5, math.nan), majority=math.nan, permuted=math.nan)
    figure = plot_probes(probe_bars({"blend": [[undefined, probe("classes", left_out_images=3)]]}))
    assert_well_set(figure)
    assert "fewer than two groups" in [text.get_text() for text in figure.axes[0].texts]
    assert "up to 3 images of groups with fewer than five images" in caption(figure)


def test_undefined_alone_is_drawn_without_a_warning() -> None:
    undefined = probe("experts")._replace(accuracy_F=np.full(5, math.nan), majority=math.nan, permuted=math.nan)
    FigureCanvasAgg(plot_probes(probe_bars({"blend": [[undefined]]}))).draw()


def test_a_single_trial_among_several_arms_has_no_spread_and_no_warning() -> None:
    trial = [probe("experts"), probe("classes")]
    assert_well_set(plot_probes(probe_bars({"blend": [trial, trial], "likelihood": [trial]})))
