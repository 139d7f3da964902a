"""Charts of the loss surface hold the numbers of their infos, and nothing that a stranger wrote runs in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from smoe_ray.analysis import loss_against_experts, loss_against_samples_per_expert, loss_surface, recommend_from_runs
from smoe_ray.analysis.recommendation import Recommendation
from smoe_ray.analysis.scaling import fitted_grid
from smoe_ray.published import read_published
from smoe_ray_dashboard.pages.loss_surface import charts
from support.planted_results import table, trial
from support.planted_surface import AMOUNTS, planted_runs, planted_study

SCRIPT = "<script>alert(1)</script><b>bold"


@pytest.fixture(scope="module")
def study() -> pd.DataFrame:
    return planted_study(planted_runs(noise=0.1), objective__name="blend")


@pytest.fixture(scope="module")
def recommended() -> Recommendation:
    return recommend_from_runs(planted_runs(noise=0.1), AMOUNTS[-1], replicates=40)


def traces(figure: go.Figure, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name is not None and trace.name.startswith(name)]


def trace(figure: go.Figure, name: str) -> Any:
    (found,) = traces(figure, name)
    return found


# --- the plane --------------------------------------------------------------------------------------------------------


def test_cells_stand_where_they_are_with_n_mean_and_spread(study: pd.DataFrame) -> None:
    info = loss_surface(study)
    figure = charts.plane(info)
    cells, surface = trace(figure, "mean of a cell"), info.surfaces[0]
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")
    np.testing.assert_array_equal(cells.x, surface.x_C)
    np.testing.assert_array_equal(cells.y, surface.experts_C)
    np.testing.assert_array_equal(cells.marker.color, surface.mean_C)
    assert cells.hovertext[0] == (
        f"17,500 training images, 1 experts<br>test loss {surface.mean_C[0]:.2f} ± {surface.sd_C[0]:.2f}, n = 3"
    )
    np.testing.assert_array_equal(trace(figure, "interpolated").z, surface.grid.loss_GG)


def test_diagonals_are_dashed_and_labelled(study: pd.DataFrame) -> None:
    info = loss_surface(study)
    dashed = [one for one in charts.plane(info).data if one.type == "scatter" and one.line.dash == "dash"]
    assert [(tuple(one.x), tuple(one.y)) for one in dashed] == [(line.x, line.experts) for line in info.diagonals]
    assert [one.text[1] for one in dashed] == ["1k", "10k", "100k"]


def test_the_fitted_surface_and_the_best_count_with_its_interval(
    study: pd.DataFrame, recommended: Recommendation
) -> None:
    assert recommended.surface is not None
    best, grid = recommended.surface.curve, fitted_grid(recommended.surface.fit, recommended.cells)
    figure = charts.plane(loss_surface(study), grid, best)
    np.testing.assert_array_equal(trace(figure, "fitted").z, grid.loss_GG)
    assert not traces(figure, "interpolated")
    line = trace(figure, "optimal number")
    np.testing.assert_array_equal(line.x, best.amount_G)
    np.testing.assert_array_equal(line.y, best.best_G)
    np.testing.assert_array_equal(np.array(line.customdata).T, [best.low_G, best.high_G])
    np.testing.assert_array_equal(trace(figure, "its 95 %").y, best.high_G)
    np.testing.assert_array_equal([one.y for one in traces(figure, "tied")], [best.tied_low_G, best.tied_high_G])


def test_published_cells_are_drawn_apart_and_named(study: pd.DataFrame) -> None:
    published = loss_surface(read_published()).surfaces[0]
    info = loss_surface(study)
    alone, both = charts.plane(info), charts.plane(info, published=published)
    assert not traces(alone, "published")
    overlay = trace(both, "published, arXiv:2509.10025")
    np.testing.assert_array_equal(overlay.x, published.x_C)
    assert overlay.marker.symbol == "diamond-open"
    np.testing.assert_array_equal(trace(both, "mean of").x, trace(alone, "mean of").x)


def test_a_single_cell_makes_a_plane() -> None:
    figure = charts.plane(loss_surface(table(trial("a", [3.0], images=100, active=2))))
    assert trace(figure, "mean of a cell").hovertext == ("100 training images, 2 experts<br>test loss 3.00, n = 1",)
    assert not traces(figure, "interpolated")


# --- curves -----------------------------------------------------------------------------------------------------------


def test_loss_against_experts_with_the_baseline_as_a_band() -> None:
    info = loss_against_experts(
        table(
            *(
                trial(f"{name}{active}{seed}", [loss + seed], active=active, seed=seed, objective__name=name)
                for name, loss in (("blend", 5.0), ("likelihood", 3.0))
                for active in (1, 4)
                for seed in (0, 1)
            ),
            *(trial(f"s{seed}", [8.0 + seed], seed=seed, routing="supervised") for seed in (0, 1)),
        )
    )
    figure = charts.against_experts(info, ["blend", "likelihood"])
    for curve in info.curves:
        drawn = trace(figure, curve.label)
        np.testing.assert_array_equal(drawn.x, curve.x)
        np.testing.assert_array_equal(drawn.y, curve.mean)
        np.testing.assert_array_equal(drawn.error_y.array, curve.sd)
        assert drawn.hovertext[0].endswith(f"1 active experts<br>test loss {curve.mean[0]:.2f} ± 0.71, n = 2")
    assert tuple(trace(figure, "supervised").y) == (8.5, 8.5)
    (band,) = figure.layout.shapes
    assert (band.y0, band.y1) == (info.baselines[0].low, info.baselines[0].high)
    assert not traces(charts.against_experts(info, ["blend"]), "likelihood")
    published = loss_against_experts(read_published())
    overlaid = charts.against_experts(info, ["blend"], published)
    assert len(traces(overlaid, "published, arXiv:2509.10025")) == len(published.curves) + len(published.baselines)
    assert not traces(figure, "published")


def test_loss_against_samples_per_expert_has_a_curve_an_amount(study: pd.DataFrame) -> None:
    info = loss_against_samples_per_expert(study)
    figure = charts.per_expert(info)
    assert [one.name for one in figure.data] == list(info.amounts)
    for drawn, curve in zip(figure.data, info.panels[0].curves, strict=True):
        np.testing.assert_array_equal(drawn.x, curve.x)
        np.testing.assert_array_equal(drawn.y, curve.mean)
        np.testing.assert_array_equal(drawn.error_y.array, curve.sd)
    assert figure.layout.xaxis.title.text == "training images per active expert"


def test_loss_at_the_asked_amount(recommended: Recommendation) -> None:
    assert recommended.surface is not None
    found = recommended.surface.forecast
    figure = charts.at_amount(recommended, "hard", "squared error per image (sum over 784 values)")
    fitted = trace(figure, "fitted surface")
    np.testing.assert_array_equal(fitted.y, found.loss_K)
    np.testing.assert_array_equal(np.array(fitted.customdata).T, [found.low_K, found.high_K, found.chance_K])
    np.testing.assert_array_equal(trace(figure, "tied").x, found.count_K[found.tied_K])
    np.testing.assert_array_equal(trace(figure, "Gaussian").y, found.gaussian_process.loss_K)
    np.testing.assert_array_equal(trace(figure, "measured at 350,000").y, recommended.measured[0].mean)


def test_without_a_fit_the_measured_cells_remain() -> None:
    small = recommend_from_runs(planted_runs(counts=(2, 4)), AMOUNTS[-1])
    assert [one.name for one in charts.at_amount(small, "hard", "").data] == ["measured at 350,000"]


# --- hostile text -----------------------------------------------------------------------------------------------------


def test_labels_of_strangers_are_inert() -> None:
    results = table(trial("a", [3.0], objective__name=SCRIPT), trial("b", [4.0], objective__name="blend"))
    info = loss_against_experts(results)
    told = str(charts.against_experts(info, [curve.label for curve in info.curves]).to_dict())
    assert "<script" not in told
    assert "<b>" not in told
