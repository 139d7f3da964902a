"""Figures as pictures: everything drawn, inside the canvas, nothing over anything; and the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from smoe_ray.errors import ResultsError
from smoe_ray.figures import FIGURES, save
from smoe_ray.figures.style import COLOURS, plain_log_axis, sequence, short_number
from support.planted_results import many_arms, published, table, trial

KINDS = [
    "loss_against_experts",
    "loss_against_samples_per_expert",
    "loss_surface",
    "training_curves",
    "usage_over_epochs",
]
"""Those that any results allow. The others have tests of their own."""


def draw(kind: str, results) -> Figure:
    return FIGURES[kind].plot(FIGURES[kind].info(results))


def assert_well_set(figure: Figure) -> None:
    """No text outside the canvas, and none over another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    hidden = _ticks_not_drawn(figure)
    boxes = []
    for text in figure.findobj(matplotlib.text.Text):
        if not text.get_text().strip() or not text.get_visible() or text in hidden:
            continue
        box = text.get_window_extent(renderer)
        name = repr(text.get_text())
        assert box.x0 > -1, f"{name} is cut at the left"
        assert box.y0 > -1, f"{name} is cut at the bottom"
        assert box.x1 < figure.bbox.width + 1, f"{name} is cut at the right"
        assert box.y1 < figure.bbox.height + 1, f"{name} is cut at the top"
        boxes.append((name, box.padded(-1)))
    assert len(boxes) > 5
    for number, (name, box) in enumerate(boxes):
        for other_name, other in boxes[:number]:
            assert not box.overlaps(other), f"{name} lies over {other_name}"


def _ticks_not_drawn(figure: Figure) -> set[Text]:
    """Labels of ticks outside the limits, and of ticks left over from an earlier layout: artists, but not drawn."""
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    ticks = {tick for axis in axes for tick in (*axis.majorTicks, *axis.minorTicks)}
    drawn = {tick for axis in axes for tick in axis._update_ticks()}
    return {label for tick in ticks - drawn for label in (tick.label1, tick.label2)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("arms", "experts"), [(1, 2), (2, 10), (12, 50)])
def test_every_figure_is_well_set_at_every_size(kind: str, arms: int, experts: int) -> None:
    assert_well_set(draw(kind, many_arms(arms, experts)))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "usage_over_epochs"])
def test_the_published_runs_are_well_set(kind: str) -> None:
    assert_well_set(draw(kind, published()))


@pytest.mark.parametrize("kind", KINDS)
def test_awkward_studies_are_drawn_without_a_warning(kind: str) -> None:
    """One run of one epoch, mathematical signs in a label, equal losses, more arms than a legend holds."""
    usage = [[1.0], [1.0]]
    assert_well_set(draw(kind, table(trial("a", [5.0, 5.0], active=1, configured=1, usage=usage))))
    names = ["a$b$", "x^2_1", "ß" * 90, "many words " * 12]
    assert_well_set(
        draw(kind, table(*(trial(name, [5.0, 5.0], usage=usage, active=1, data__source=name) for name in names)))
    )
    rates = [number / 7 for number in range(1, 41)]
    assert_well_set(
        draw(
            kind,
            table(*(trial(str(lr), [5.0, 4.0], usage=usage, active=1, training__learning_rate=lr) for lr in rates)),
        )
    )


def test_training_curves_of_one_epoch_show_a_point() -> None:
    (ax, *_) = draw("training_curves", table(trial("a", [5.0]))).axes
    assert ax.lines[0].get_marker() == "o"


def test_the_band_and_the_line_are_those_of_the_info() -> None:
    results = table(trial("a", [10.0, 4.0], seed=0), trial("b", [14.0, 6.0], seed=1))
    (ax, *_) = draw("training_curves", results).axes
    assert ax.lines[0].get_ydata().tolist() == [12.0, 5.0]
    band = ax.collections[0].get_datalim(ax.transData)
    assert (band.y0, band.y1) == (pytest.approx(5 - 2**0.5), pytest.approx(12 + 8**0.5))


def test_counts_stand_below_the_points_where_they_differ() -> None:
    results = published()
    figure = draw("loss_against_experts", results[results["config.data.fraction"] == 1.0])
    ax, counts = figure.axes
    at = {text.get_position()[0]: text.get_text() for text in counts.texts}
    assert (at[1], at[5], at[7]) == ("8", "7", "2")
    assert counts.get_xlim() == ax.get_xlim()
    assert "n = 1 to 13" in figure.get_supxlabel()
    assert len(draw("loss_against_experts", many_arms(2, 10)).axes) == 1


def test_axes_name_their_unit() -> None:
    results = many_arms(1, 10)
    for kind in KINDS:
        labels = " ".join(label for ax in draw(kind, results).axes for label in (ax.get_xlabel(), ax.get_ylabel()))
        assert "share of test images" in labels or "squared error per image (sum over 784 values)" in labels


def test_the_surface_is_filled_only_where_cells_span_an_area() -> None:
    line = table(trial("a", [5.0], images=100, active=1), trial("b", [4.0], images=900, active=1))
    area = table(
        trial("a", [5.0], images=100, active=1),
        trial("b", [4.0], images=900, active=1),
        trial("c", [3.0], images=900, active=9),
    )
    assert "interpolation" not in draw("loss_surface", line).get_supxlabel()
    assert "interpolation" in draw("loss_surface", area).get_supxlabel()
    assert len(draw("loss_surface", area).axes[0].collections) > len(draw("loss_surface", line).axes[0].collections)


def test_dead_experts_are_grey() -> None:
    usage = [[0.5, 0.5], [1.0, 0.0]]
    shares = draw("usage_over_epochs", table(trial("a", [5.0, 4.0], configured=2, usage=usage))).axes[0]
    alive, dead = (matplotlib.colors.to_hex(band.get_facecolor()[0]) for band in shares.collections)
    assert alive == COLOURS[0].lower()
    assert dead == "#9a9a9a"


# --- style ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(350_000, "350k"), (17_500, "17.5k"), (1_500_000, "1.5M"), (20, "20"), (0.4, "0.4"), (2e9, "2G")],
)
def test_short_numbers(value: float, text: str) -> None:
    assert short_number(value) == text


@given(low=st.floats(0.01, 1e7), ratio=st.floats(1.2, 1e6))
@settings(deadline=None, max_examples=50)
def test_a_log_axis_has_a_few_plain_ticks(low: float, ratio: float) -> None:
    axis = Figure().subplots().xaxis
    axis.axes.set_xscale("log")
    axis.axes.set_xlim(low, low * ratio)
    plain_log_axis(axis, low, low * ratio)
    ticks = list(axis.get_ticklocs())
    assert 2 <= len(ticks) <= 10
    assert all(low <= tick <= low * ratio for tick in ticks)
    labels = [label.get_text() for label in axis.get_ticklabels()]
    assert len(set(labels)) == len(labels)
    assert not any("$" in label or "e" in label for label in labels)


def test_log_ticks_of_a_count_are_whole() -> None:
    ax = Figure().subplots()
    ax.set_yscale("log")
    plain_log_axis(ax.yaxis, 0.5, 2.0, whole=True)
    assert ax.yaxis.get_ticklocs().tolist() == [1.0, 2.0]


def test_colours_of_a_sequence_grow_lighter() -> None:
    lightness = [sum(colour[:3]) for colour in sequence(6)]
    assert lightness == sorted(lightness)


def test_drawing_leaves_the_users_style_alone_and_ignores_it() -> None:
    results = many_arms(1, 2)
    with matplotlib.rc_context({"font.size": 30, "axes.labelcolor": "red"}):
        label = draw("training_curves", results).axes[0].xaxis.label
        assert matplotlib.rcParams["font.size"] == 30
    assert label.get_fontsize() == 9
    assert label.get_color() == "black"


def test_a_dollar_sign_in_a_label_is_a_dollar_sign() -> None:
    results = table(*(trial(name, [5.0, 4.0], data__source=name) for name in ("$x^2$", "$y_1$")))
    (legend,) = draw("training_curves", results).legends
    assert [text.get_text() for text in legend.get_texts()] == ["$x^2$", "$y_1$"]
    assert not any(text.get_parse_math() for text in legend.get_texts())


def test_more_arms_than_a_legend_holds_are_counted_in_the_caption() -> None:
    results = table(*(trial(str(rate), [5.0, 4.0], training__beta=float(rate)) for rate in range(40)))
    for kind in ("training_curves", "loss_against_experts"):
        figure = draw(kind, results)
        assert figure.legends == []
        assert "40 arms, dark to light" in figure.get_supxlabel()


def test_a_long_legend_takes_nothing_from_the_axes() -> None:
    heights = []
    for arms in (1, 12):
        figure = draw("training_curves", many_arms(arms, 2))
        FigureCanvasAgg(figure).draw()
        heights.append(figure.axes[0].get_window_extent().height / figure.dpi)
    assert heights[1] > heights[0] - 0.15


def test_threads_may_draw_at_once() -> None:
    before = dict(matplotlib.rcParams)
    results = many_arms(2, 10)
    threads = [threading.Thread(target=draw, args=(kind, results)) for kind in KINDS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(matplotlib.rcParams) == before


# --- files ------------------------------------------------------------------------------------------------------------


def test_save_writes_svg_and_png_and_nothing_else(tmp_path: Path) -> None:
    paths = save(draw("training_curves", many_arms(1, 2)), tmp_path / "new" / "folder", "curves")
    assert [path.name for path in paths] == ["curves.svg", "curves.png"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["curves.png", "curves.svg"]
    with Image.open(paths[1]) as picture:
        assert picture.width == 8 * 150
    assert "<svg" in paths[0].read_text(encoding="utf-8")


def test_the_same_results_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from support.planted_results import many_arms\n"
        "from smoe_ray.figures import FIGURES, save\n"
        "for kind in sys.argv[3:]: save(FIGURES[kind].plot(FIGURES[kind].info(many_arms(2, 5))), sys.argv[2], kind)\n"
    )
    digests = []
    for run in ("first", "second"):
        folder = tmp_path / run
        tests = Path(__file__).resolve().parents[1]
        subprocess.run([sys.executable, "-c", program, str(tests), str(folder), *KINDS], check=True)
        digests.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
    assert len(digests[0]) == 2 * len(KINDS)
    assert digests[0] == digests[1]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = draw("training_curves", many_arms(1, 2))
    (svg, _) = save(figure, tmp_path, "curves")
    svg.write_text("old")

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match=r"curves\.svg: cannot be written: No space left on device; choose another"):
        save(figure, tmp_path, "curves")
    assert svg.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "curves.svg"]


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ResultsError, match="cannot be written"):
        save(Figure(), tmp_path / "taken", "curves")


@pytest.mark.parametrize("name", ["../out", "a/b", "/tmp/x", ""])
def test_a_name_is_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="plain file name"):
        save(Figure(), tmp_path, name)
