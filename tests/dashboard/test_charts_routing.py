"""Figures of routing comparisons and of experts: what they show is what the analysis says."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smoe_ray.analysis import (
    ProbeBar,
    ProbeBars,
    ProbePanel,
    compare_arms,
    expert_gallery,
    interpolation,
    swap_matrix,
)
from smoe_ray.analysis import routing as route
from smoe_ray.figures import pictures
from smoe_ray_dashboard.pages.experts import charts as gallery
from smoe_ray_dashboard.pages.routing import charts as routing
from smoe_ray_dashboard.pictures import png
from support.planted_gallery import PlantedModel, embeddings
from support.planted_results import table, trial

HOSTILE = "<b>cat</b>"


def traces(figure: Any, kind: str) -> list[Any]:
    return [trace for trace in figure.data if trace.type == kind]


# --- differences ------------------------------------------------------------------------------------------------------


def study(name: str = "likelihood", gap: float = 5.0) -> Any:
    losses = {"blend": (30.0, 30.5, 29.5), name: (30 - gap, 30.7 - gap, 29.6 - gap)}
    return table(
        *(
            trial(f"{arm}-{seed}", [loss], seed=seed, objective__name=arm)
            for arm, of_seed in losses.items()
            for seed, loss in enumerate(of_seed)
        )
    )


def test_a_difference_is_drawn_at_its_estimate_between_the_ends_of_its_interval() -> None:
    info = compare_arms(study(), reference="blend")
    (one,) = info.differences
    interval, point = routing.differences(info).data
    assert interval.x == (one.low, one.high)
    assert point.x == (one.estimate,) == pytest.approx((-4.9,))
    assert not point.marker.symbol.endswith("-open")
    assert "mean 25.10 against 30.00" in point.hovertemplate
    assert point.hovertemplate.count("lower") == 1


def test_what_is_not_told_apart_is_hollow_and_what_is_not_tested_has_no_interval() -> None:
    same = compare_arms(study(gap=0.0), reference="blend")
    assert routing.differences(same).data[1].marker.symbol.endswith("-open")
    few = study()
    untested = compare_arms(few[few["seed"] < 2], reference="blend")
    interval, point = routing.differences(untested).data
    assert all(map(math.isnan, interval.x))
    assert "cannot tell (n = 2)" in point.hovertemplate


def test_names_of_strangers_are_inert() -> None:
    figure = routing.differences(compare_arms(study(HOSTILE), reference="blend"))
    told = json.dumps(json.loads(figure.to_json()))  # Plotly itself writes every < as \\u003c
    assert "&lt;b&gt;cat&lt;/b&gt;" in told
    assert "<b>cat" not in told


# --- experts against classes ------------------------------------------------------------------------------------------


def routed() -> Any:
    """Expert 0 takes three cats and an eye, expert 1 none, expert 2 four eyes."""
    return route(np.array([0, 0, 0, 0, 2, 2, 2, 2]), np.array([0, 0, 0, 1, 1, 1, 1, 1]), 3, [HOSTILE, "eye"])


def test_the_heatmap_holds_shares_counts_and_no_dead_expert() -> None:
    figure = routing.contingency(routed())
    (cells,) = traces(figure, "heatmap")
    np.testing.assert_allclose(cells.z, [[0.75, 0.25], [0, 1]])
    np.testing.assert_array_equal(cells.customdata, [[3, 1], [0, 4]])
    assert figure.layout.yaxis.ticktext == ("expert 0", "expert 2")
    assert figure.layout.xaxis.ticktext == ("&lt;b&gt;cat&lt;/b&gt;", "eye")
    written = {
        (x, y): text
        for words in traces(figure, "scatter")
        for x, y, text in zip(words.x, words.y, words.text, strict=True)
    }
    assert written == {(0, 0): "75%", (1, 0): "25%", (0, 1): "0%", (1, 1): "100%"}


def test_many_classes_have_a_scale_instead_of_numbers() -> None:
    names = [f"class {number}" for number in range(30)]
    figure = routing.contingency(route(np.arange(60) % 4, np.arange(60) % 30, 4, names))
    assert not traces(figure, "scatter")
    assert figure.data[0].showscale


def test_the_flow_carries_every_image_from_its_class_to_its_expert() -> None:
    (sankey,) = routing.flow(routed()).data
    labels = sankey.node.label
    flows = {
        (labels[source], labels[target]): value
        for source, target, value in zip(sankey.link.source, sankey.link.target, sankey.link.value, strict=True)
    }
    cat = "&lt;b&gt;cat&lt;/b&gt;"
    assert flows == {(cat, "expert 0"): 3, ("eye", "expert 0"): 1, ("eye", "expert 2"): 4}
    assert "expert 1" not in labels


# --- probes -----------------------------------------------------------------------------------------------------------


def test_probes_have_a_panel_an_arm_and_say_where_there_is_nothing() -> None:
    bars = (
        ProbeBar("experts", False, 0.9, 0.01, 0.3, 0.2),
        ProbeBar("classes", False, math.nan, math.nan, math.nan, math.nan),
        ProbeBar("k-means clusters", True, 0.99, 0.001, 0.3, 0.2),
    )
    figure = routing.probes(ProbeBars((ProbePanel("a", 1, bars), ProbePanel(HOSTILE, 1, bars)), "folds", 0, 2))
    first, second = traces(figure, "bar")
    assert first.x[0] == 0.9
    assert first.error_x.array[0] == 0.01
    assert "0.900" in first.text[0]
    assert first.text[1] == "fewer than two groups"
    assert first.marker.pattern.shape == ("", "", "/")  # controls differ by more than colour
    assert first.xaxis != second.xaxis
    majority = next(trace for trace in traces(figure, "scatter") if "largest" in trace.name)
    assert majority.x[0] == 0.3
    assert [note.text for note in figure.layout.annotations] == ["a", "&lt;b&gt;cat&lt;/b&gt;"]


# --- maps -------------------------------------------------------------------------------------------------------------


def mapped(picked: frozenset[int] | None) -> routing.ImageMap:
    return routing.ImageMap(
        xy_B2=np.arange(10.0).reshape(5, 2),
        image_B=np.array([3, 5, 8, 13, 21]),
        group_B=np.array([0, 1, 0, 2, 1]),
        names=("expert 4", "expert 0", "expert 2"),
        hue_G=np.array([0, 0, 1]),
        num_hues=2,
        hover_B=("a", HOSTILE, "c", "d", "e"),
        highlighted=picked,
    )


def test_a_map_draws_every_image_once_and_fades_what_is_not_picked_out() -> None:
    figure = routing.image_map(mapped(frozenset({5, 8, 999})))
    assert [trace.customdata for trace in figure.data] == [(3, 8), (5, 21), (13,)]
    assert [trace.selectedpoints for trace in figure.data] == [(1,), (0,), ()]
    assert figure.data[0].x.tolist() == [0, 4]
    assert figure.data[0].y.tolist() == [1, 5]
    assert figure.data[1].hovertext[0] == "&lt;b&gt;cat&lt;/b&gt;"


def test_nothing_fades_where_nothing_is_picked_out() -> None:
    assert all(trace.selectedpoints is None for trace in routing.image_map(mapped(None)).data)


def test_groups_of_one_hue_differ_in_their_marks() -> None:
    first, second, third = routing.image_map(mapped(None)).data
    assert first.marker.color == second.marker.color != third.marker.color
    assert first.marker.symbol != second.marker.symbol


# --- galleries --------------------------------------------------------------------------------------------------------


def pixels(source: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_a_strip_enlarges_every_pixel_and_takes_floats_as_well() -> None:
    image_NHW = np.zeros((2, 28, 28), np.uint8)
    image_NHW[1, 5, 7] = 204
    strip = pictures.strip(image_NHW)
    assert strip.shape == (86, 2 * 86)
    rows, columns = np.nonzero(strip == 204)
    assert (rows.min(), rows.max()) == (16, 18)
    assert (columns.min(), columns.max()) == (86 + 1 + 21, 86 + 1 + 23)
    np.testing.assert_array_equal(pictures.strip(image_NHW / np.float16(255)), strip)


def test_a_strip_of_colour_images_has_their_colours_and_is_as_large() -> None:
    image_NHW = np.broadcast_to(np.array([[255, 0, 0], [10, 20, 200]], np.uint8)[..., None, None], (2, 3, 8, 12))
    strip = pictures.strip(image_NHW)
    assert strip.shape == (8 * 7 + 2, 2 * (12 * 7 + 2), 3)  # 84 pixels along the longer side
    assert strip[20, 40].tolist() == [255, 0, 0]
    assert strip[20, 130].tolist() == [10, 20, 200]
    np.testing.assert_array_equal(pictures.strip((image_NHW / 255).astype(np.float16)), strip)
    np.testing.assert_array_equal(pixels(png(strip)), strip)
    assert pictures.strip(np.zeros((1, 3, 128, 128), np.uint8)).shape == (130, 130, 3)
    assert pictures.strip(np.array([[[-0.5, 1.5]]])).max() == 255  # clipped


def test_a_block_holds_inputs_above_reconstructions() -> None:
    kept = embeddings([6, 4])
    block = expert_gallery(kept, ["a", "b", "c"], n=3).blocks[0]
    strip = gallery.block_strip(block)
    assert strip.shape == (2 * 86, 3 * 86)
    np.testing.assert_array_equal(strip[:86], pictures.strip(kept["image"][block.index_N]))


def test_the_swap_matrix_writes_errors_and_frames_the_chosen_expert() -> None:
    info = swap_matrix(embeddings([5, 3, 0]), PlantedModel(3))
    figure = gallery.swap_matrix(info)
    (numbers,) = traces(figure, "scatter")
    expected = [
        f"<b>{error:.1f}</b>" if column == info.best_R[row] else f"{error:.1f}"
        for row, of_row in enumerate(info.error_RE)
        for column, error in enumerate(of_row)
    ]
    assert list(numbers.text) == expected
    assert len(expected) == 2 * 3
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(0, 1), (1, 2)]
    assert figure.layout.xaxis.ticktext == ("input", "0", "1", "2<br>unused")
    images = figure.layout.images
    assert len(images) == 4
    np.testing.assert_array_equal(pixels(images[1].source), pictures.strip(info.decoded_REHW[0]))


def test_a_path_shows_the_gate_of_every_expert() -> None:
    (path,) = interpolation(embeddings([5, 3, 2]), PlantedModel(3), [(0, 2)], steps=5).paths
    figure = gallery.path(path)
    assert len(figure.data) == 3
    for expert, line in enumerate(figure.data):
        np.testing.assert_allclose(line.y, path.gate_SE[:, expert])
    assert figure.layout.xaxis.ticktext == tuple(map(str, path.expert_S))
    np.testing.assert_array_equal(pixels(figure.layout.images[0].source), pictures.strip(path.chosen_SHW))


def test_the_gates_bars_name_the_chosen_expert() -> None:
    gate_E = np.array([0.25, 0.125, 0.625], np.float32)
    figure = gallery.gate_bars(gate_E, 2)
    (bars,) = figure.data
    assert sum(bars.y) == 1
    assert bars.text == ("0.250", "0.125", "0.625")
    assert bars.marker.pattern.shape == ("", "", "/")
    assert figure.layout.xaxis.ticktext == ("0", "1", "<b>2<br>chosen</b>")
