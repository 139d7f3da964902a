"""Figures of the recommended number of experts: well set at every size, and showing what the info says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from test_plots import assert_well_set

from smoe_ray.analysis.recommendation import Recommendations, recommend
from smoe_ray.figures.export import save
from smoe_ray.figures.recommendation import plot_best_experts, plot_loss_at_amount, plot_surface_fit
from support.planted_results import many_arms, published, table, trial
from support.planted_surface import AMOUNTS, TRUE, planted_runs, planted_study

SMALL = {"amounts": AMOUNTS[2:], "counts": (1, 2, 4, 8, 16), "noise": 0.1}


def study(arms: int) -> pd.DataFrame:
    """Arms whose labels are long and whose optimum moves from far below the studied counts to far above them."""
    studies = [
        planted_study(
            planted_runs(arm, form=TRUE._replace(k0=4.0 * arm / max(arms - 1, 1)), **SMALL),
            f"arm{arm}",
            objective__name="likelihood",
            data__source="many words " * arm,
        )
        for arm in range(arms)
    ]
    return pd.concat(studies, ignore_index=True)


def ask(results: pd.DataFrame, samples: float | None = None) -> Recommendations:
    return recommend(results, samples=samples, replicates=20)


@pytest.fixture(scope="module")
def planted() -> Recommendations:
    return ask(planted_study(planted_runs(**SMALL), objective__name="likelihood"), samples=100_000)


@pytest.mark.parametrize("arms", [1, 2, 5])
def test_the_figures_are_well_set_at_every_size(arms: int) -> None:
    info = ask(study(arms), samples=500_000)
    for plot in (plot_best_experts, plot_loss_at_amount, plot_surface_fit):
        assert_well_set(plot(info))


def test_the_published_runs_are_well_set() -> None:
    info = ask(published())
    for plot in (plot_best_experts, plot_loss_at_amount, plot_surface_fit):
        assert_well_set(plot(info))


@pytest.mark.parametrize(
    "results",
    [
        table(trial("a", [5.0], active=1, configured=1)),
        table(*(trial(name, [5.0], data__source=name) for name in ("a$b$", "x^2_1", "ß" * 90))),
        many_arms(14, 50),
    ],
)
def test_studies_that_cannot_tell_show_their_cells(results: pd.DataFrame) -> None:
    info = ask(results)
    for plot in (plot_best_experts, plot_loss_at_amount):
        figure = plot(info)
        assert_well_set(figure)
        assert all("cannot tell" in ax.get_title(loc="left") for ax in figure.axes)
    assert ("first 12 of 14 shown" in figure.get_supxlabel()) == (len(info.arms) == 14)


def test_the_curve_its_bands_and_the_cells_are_those_of_the_info(planted: Recommendations) -> None:
    figure = plot_best_experts(planted)
    (ax,) = figure.axes
    (arm,) = planted.arms
    assert arm.surface is not None
    curve = arm.surface.curve
    best, second, asked = ax.lines
    assert best.get_ydata().tolist() == curve.best_G.tolist()
    assert second.get_xdata().tolist() == list(AMOUNTS[2:])
    assert second.get_ydata().tolist() == [estimate.best for estimate in arm.surface.gaussian_process_L]
    assert set(asked.get_xdata()) == {100_000}
    cells, tied, interval, _ = ax.collections
    assert cells.get_offsets().tolist() == np.column_stack([arm.cells.amount_C, arm.cells.experts_C]).tolist()
    for band, low_G, high_G in (
        (tied, curve.tied_low_G, curve.tied_high_G),
        (interval, curve.low_G, curve.high_G),
    ):
        box = band.get_paths()[0].get_extents()
        assert (box.y0, box.y1) == (pytest.approx(low_G.min()), pytest.approx(high_G.max()))
    assert ax.get_title(loc="left") == arm.headline
    assert "requested: 100,000 training images; fit to 45 runs" in figure.get_supxlabel()


def test_the_area_of_a_cell_grows_with_its_runs() -> None:
    runs = planted_runs(**SMALL)
    runs = runs[(runs["experts"] != 4) | (runs["seed"] == 0)]
    (ax,) = plot_best_experts(ask(planted_study(runs))).axes
    cells = ax.collections[0]
    area_of = dict(zip(map(tuple, cells.get_offsets().tolist()), cells.get_sizes().tolist(), strict=True))
    assert area_of[AMOUNTS[2], 8] == 3 * area_of[AMOUNTS[2], 4]


def test_the_tied_counts_and_the_cells_beside_the_amount_are_marked(planted: Recommendations) -> None:
    figure = plot_loss_at_amount(planted)
    (ax,) = figure.axes
    (arm,) = planted.arms
    assert arm.surface is not None
    found = arm.surface.forecast
    assert found.best == 6
    (tied,) = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert tied.get_xdata().tolist() == found.count_K[found.tied_K].tolist()
    assert 1 < len(tied.get_xdata()) < len(found.count_K)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[:2] == ["measured at 70,000", "measured at 140,000"]
    assert "tied within 0.1" in labels
    assert f"test loss, hard gating\n{'squared error per image (sum over 784 values)'}" == ax.get_ylabel()


def test_residuals_lie_beside_the_noise_floor(planted: Recommendations) -> None:
    figure = plot_surface_fit(planted.fitted())
    left, right = figure.axes
    (arm,) = planted.arms
    assert arm.surface is not None
    drawn = np.concatenate([points.get_offsets() for points in right.collections])
    assert sorted(drawn[:, 1].tolist()) == sorted(arm.surface.residual_C.tolist())
    drawn = np.concatenate([points.get_offsets() for points in left.collections])
    np.testing.assert_allclose(sorted(drawn[:, 1] - drawn[:, 0]), sorted(arm.surface.residual_C), atol=1e-9)
    assert right.patches[0].get_height() == pytest.approx(2 * arm.surface.fit.noise.sd)
    assert "fit: R² " in figure.get_supxlabel()


def test_an_amount_has_one_colour_in_all_arms() -> None:
    """Also where an arm has not seen every amount."""
    first = planted_study(planted_runs(0, **SMALL), "a", objective__name="blend")
    other = planted_study(planted_runs(1, **{**SMALL, "amounts": AMOUNTS[1:]}), "b", objective__name="expected")
    figure = plot_surface_fit(ask(pd.concat([first, other], ignore_index=True)).fitted())
    colours = [[to_hex(points.get_edgecolor()[0]) for points in ax.collections] for ax in figure.axes]
    assert colours[0] == colours[1] == colours[2][1:] == colours[3][1:]
    assert len(set(colours[2])) == 4
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 4


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    drawn = []
    for run in ("first", "second"):
        paths = save(plot_best_experts(ask(study(1))), tmp_path / run, "best")
        drawn.append([path.read_bytes() for path in paths])
    assert drawn[0] == drawn[1]
