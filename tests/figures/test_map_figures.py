"""Maps as pictures: one map, a panel per colouring, each point in the colour of its group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv, to_hex
from matplotlib.figure import Figure
from test_plots import assert_well_set

from smoe_ray.analysis.maps import ColouredMap, LatentMap, coloured_map
from smoe_ray.figures import save
from smoe_ray.figures.maps import plot_map
from smoe_ray.figures.style import COLOURS


def random_map(experts: int, classes: int, styles_each: int = 0, images: int = 400, name: str = "{}") -> ColouredMap:
    rng = np.random.default_rng(0)
    label_B = rng.integers(classes, size=images)
    names = [name.format(f"class {label}") for label in range(classes)]
    mapped = LatentMap(rng.normal(size=(images, 2)), 0.9123, 30, 0)
    expert_B = rng.integers(experts, size=images)
    if not styles_each:
        return coloured_map(mapped, expert_B, label_B, names)
    style_B = styles_each * label_B + rng.integers(styles_each, size=images)
    styles = [f"{label}/style {style}" for label in names for style in range(styles_each)]
    return coloured_map(mapped, expert_B, label_B, names, style_B, styles)


def caption(figure: Figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize("styles_each", [0, 4, 12])
@pytest.mark.parametrize(("experts", "classes"), [(2, 1), (2, 2), (10, 5), (24, 9), (50, 20)])
def test_maps_are_well_set_at_every_size(experts: int, classes: int, styles_each: int) -> None:
    assert_well_set(plot_map(random_map(experts, classes, styles_each)))


@pytest.mark.parametrize("name", ["{} $x^2$_", "many words " * 5 + "{}", "ß" * 50 + "{}"])
def test_long_names_are_well_set(name: str) -> None:
    assert_well_set(plot_map(random_map(5, 3, 2, name=name)))


def test_each_panel_shows_the_same_points_in_the_colours_of_its_legend() -> None:
    info = random_map(4, 3, 2)
    figure = plot_map(info)
    assert [ax.get_title(loc="left") for ax in figure.axes[:3]] == ["by expert", "by class", "by style"]
    for ax, below, colouring in zip(figure.axes[:3], figure.axes[3:], info.colourings, strict=True):
        (points,) = ax.collections
        assert points.get_offsets().tolist() == info.latent_map.xy_B2.tolist()
        legend = below.get_legend()
        assert [text.get_text() for text in legend.get_texts()] == list(colouring.names)
        colour_G = [to_hex(handle.get_color()) for handle in legend.legend_handles]
        assert len(set(colour_G)) == len(colouring.names)
        drawn = [to_hex(colour) for colour in points.get_facecolors()]
        assert drawn == [colour_G[group] for group in colouring.group_B]
    assert "t-SNE of 400 latent vectors, perplexity 30; trustworthiness 0.912 (12 neighbours)" in caption(figure)


def test_experts_and_styles_are_shades_of_their_class() -> None:
    info = random_map(6, 2, 3)
    figure = plot_map(info)
    assert "experts and styles: shades of their most frequent class" in caption(figure)
    hues = [rgb_to_hsv([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])[0] for colour in COLOURS[:2]]
    for below, colouring in zip(figure.axes[3:], info.colourings, strict=True):
        for handle, label in zip(below.get_legend().legend_handles, colouring.class_G, strict=True):
            assert rgb_to_hsv(np.array(handle.get_color()))[0] == pytest.approx(hues[label], abs=0.01)


def test_more_groups_than_a_legend_holds_are_counted_in_the_caption() -> None:
    figure = plot_map(random_map(40, 3))
    assert [below.get_legend() is None for below in figure.axes[2:]] == [True, False]
    assert "40 experts, too many to name" in caption(figure)


def test_many_points_make_a_small_file(tmp_path: Path) -> None:
    svg, _ = save(plot_map(random_map(5, 5, 2, images=12_500)), tmp_path, "map")
    assert svg.stat().st_size < 1_000_000
