"""The numbers behind the figures, against answers known beforehand."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from smoe_ray.analysis import (
    last_evaluated,
    loss_against_experts,
    loss_against_samples_per_expert,
    loss_surface,
    training_curves,
    usage_over_epochs,
)
from smoe_ray.analysis.arm_labels import coarse_arms
from smoe_ray.analysis.outcomes import with_soft_loss
from smoe_ray.analysis.scaling import fitted_grid
from smoe_ray.analysis.surface_fit import cells_of, check_runs, fit_surface
from smoe_ray.errors import ResultsError
from smoe_ray.published import read_file
from support.planted_results import dying, published, table, trial
from support.planted_surface import loss_of, planted_runs

NAN = float("nan")


@pytest.fixture(scope="module")
def published_runs() -> pd.DataFrame:
    return published()


# --- which rows count -------------------------------------------------------------------------------------------------


def test_the_outcome_is_the_last_evaluated_epoch_of_a_finished_trial() -> None:
    results = table(
        trial("a", [9.0, 7.0, NAN]), trial("b", [5.0, 4.0], status="running"), trial("c", [3.0], status="failed")
    )
    shuffled = results.sample(frac=1, random_state=0)
    outcomes = last_evaluated(shuffled)
    assert outcomes[["trial_id", "epoch", "test.reconstruction"]].values.tolist() == [["a", 2, 7.0]]


@pytest.mark.parametrize("info", [loss_against_experts, loss_surface, loss_against_samples_per_expert, last_evaluated])
def test_without_a_finished_trial_the_error_counts_statuses(info) -> None:
    results = table(
        trial("a", [1.0, 2.0], status="running"),
        trial("b", [1.0], status="running"),
        trial("c", [1.0], status="failed"),
    )
    with pytest.raises(ResultsError, match=r"study 'planted': no finished trial \(2 running, 1 failed\)"):
        info(results)
    with pytest.raises(ResultsError, match="no trial has reported"):
        info(results.iloc[:0])


@pytest.mark.parametrize("info", [loss_against_experts, loss_surface, loss_against_samples_per_expert])
def test_supervised_trials_alone_make_no_figure_of_experts(info) -> None:
    with pytest.raises(ResultsError, match="every finished trial is supervised"):
        info(table(trial("a", [1.0], routing="supervised")))


@pytest.mark.parametrize("info", [training_curves, usage_over_epochs])
def test_failed_trials_alone_are_not_shown(info) -> None:
    with pytest.raises(ResultsError, match=r"no trial to show \(1 failed\)"):
        info(table(trial("a", [1.0, 2.0], status="failed", usage=[[1.0], [1.0]])))


@pytest.mark.parametrize(
    ("info", "column"),
    [
        (training_curves, "train.reconstruction"),
        (loss_against_experts, "experts.active"),
        (loss_surface, "data.train_images"),
        (loss_against_samples_per_expert, "data.train_images"),
        (usage_over_epochs, "experts.usage"),
    ],
)
def test_an_absent_column_is_named(info, column: str) -> None:
    results = table(trial("a", [1.0, 2.0], usage=[[1.0], [1.0]])).drop(columns=column)
    with pytest.raises(ResultsError, match=f"column '{column}' is absent"):
        info(results)


# --- training curves --------------------------------------------------------------------------------------------------


def test_training_curves_mean_spread_and_count() -> None:
    results = table(
        trial("a", [10.0, 4.0], seed=0, objective__name="blend"),
        trial("b", [14.0, NAN, 6.0], seed=1, objective__name="blend", status="running"),
        trial("c", [3.0], objective__name="likelihood"),
        trial("d", [99.0], seed=2, objective__name="blend", status="failed"),
    )
    info = training_curves(results)
    assert info.arms == ("blend", "likelihood")
    assert [panel.title for panel in info.panels] == ["test, hard gating", "test, soft gating", "training"]
    blend, likelihood = info.panels[0].curves
    assert blend.x.tolist() == [1, 2, 3]
    assert blend.mean.tolist() == [12.0, 4.0, 6.0]
    np.testing.assert_allclose(blend.sd, [np.sqrt(8.0), NAN, NAN])
    np.testing.assert_allclose(blend.low, [12 - np.sqrt(8.0), NAN, NAN])
    np.testing.assert_allclose(blend.high, [12 + np.sqrt(8.0), NAN, NAN])
    assert blend.n.tolist() == [2, 1, 1]
    assert likelihood.mean.tolist() == [3.0]
    assert info.panels[1].curves[0].mean.tolist() == [11.0, 3.0, 5.0]
    assert info.panels[2].curves[0].mean.tolist() == [24.0, 8.0, 12.0]
    assert info.n_range == (1, 2)
    assert info.error_limits[0] < 2.0  # least soft error
    assert info.error_limits[1] > 24 + 2 * np.sqrt(8.0)


def test_the_gating_of_the_evaluation_is_named_and_shown_once() -> None:
    info = training_curves(table(trial("a", [1.0], evaluation__gating="soft")))
    assert [panel.title for panel in info.panels] == ["test, soft gating", "training"]
    assert info.panels[0].curves[0].mean.tolist() == [1.0]


def test_before_the_first_epoch_there_are_no_curves() -> None:
    with pytest.raises(ResultsError, match="no trial has a reconstruction error yet"):
        training_curves(table(trial("a", [NAN], status="running")))


# --- loss against experts ---------------------------------------------------------------------------------------------


def test_runs_are_grouped_by_active_experts_whatever_was_configured() -> None:
    results = table(
        trial("a", [9.0, 2.0], active=3, configured=5),
        trial("b", [4.0], active=3, configured=10),
        trial("c", [7.0], active=1, configured=5),
        trial("s0", [10.0], active=5, routing="supervised"),
        trial("s1", [12.0], active=5, routing="supervised", seed=1),
    )
    info = loss_against_experts(results)
    (curve,) = info.curves
    assert curve.x.tolist() == [1, 3]
    assert curve.mean.tolist() == [7.0, 3.0]
    np.testing.assert_allclose(curve.sd, [NAN, np.sqrt(2.0)])
    assert curve.n.tolist() == [1, 2]
    assert info.n_range == (1, 2)
    (baseline,) = info.baselines
    assert (baseline.label, baseline.mean, baseline.n) == ("supervised, E=10", 11.0, 2)
    np.testing.assert_allclose([baseline.low, baseline.high], [11 - np.sqrt(2.0), 11 + np.sqrt(2.0)])
    assert info.x_limits[0] < 1
    assert info.x_limits[1] > 3

    (configured,) = loss_against_experts(results, experts="configured").curves
    assert configured.x.tolist() == [5, 10]
    assert configured.mean.tolist() == [4.5, 4.0]


def test_a_search_may_be_read_by_coarse_arms() -> None:
    results = table(
        *(
            trial(f"{name}{rate}", [loss + rate], objective__name=name, training__learning_rate=float(rate))
            for name, loss in (("blend", 5.0), ("likelihood", 3.0))
            for rate in (1, 2)
        )
    )
    label_of = coarse_arms(results, ("objective.name",))
    assert label_of.cat.categories.tolist() == ["blend", "likelihood"]
    info = loss_against_experts(results, label_of=label_of)
    assert [(curve.label, curve.mean.tolist(), curve.n.tolist()) for curve in info.curves] == [
        ("blend", [6.5], [2]),
        ("likelihood", [4.5], [2]),
    ]


def test_each_arm_has_its_curve() -> None:
    results = table(
        *(
            trial(f"{name}{active}", [loss], active=active, configured=active, objective__name=name)
            for name, loss in (("blend", 5.0), ("likelihood", 3.0))
            for active in (1, 2)
        )
    )
    info = loss_against_experts(results)
    assert [(curve.label, curve.mean.tolist()) for curve in info.curves] == [
        ("blend", [5.0, 5.0]),
        ("likelihood", [3.0, 3.0]),
    ]
    assert info.baselines == ()


def test_published_loss_against_experts(published_runs: pd.DataFrame) -> None:
    """Reference numbers of SCIENCE.md 2, which come from the same runs."""
    info = loss_against_experts(published_runs[published_runs["config.data.fraction"] == 1.0])
    (curve,) = info.curves
    at = dict(zip(curve.x.tolist(), zip(curve.mean, curve.sd, curve.n, strict=True), strict=True))
    assert at[1][0] == pytest.approx(17.72, abs=0.005)
    assert at[1][1] == pytest.approx(0.14, abs=0.01)
    assert at[5][0] == pytest.approx(15.96, abs=0.005)
    assert at[5][2] == 7
    assert at[7][0] == pytest.approx(15.69, abs=0.005)
    assert at[7][2] == 2
    assert at[23][0] == pytest.approx(16.43, abs=0.005)
    (baseline,) = info.baselines
    assert (baseline.mean, baseline.sd) == (pytest.approx(16.56, abs=0.005), pytest.approx(0.10, abs=0.005))
    assert baseline.n == 5


# --- scaling ----------------------------------------------------------------------------------------------------------


def plane(images: float, active: float) -> float:
    """Linear in the logarithms."""
    return 30.0 - 2.0 * np.log(images) + 0.5 * np.log(active)


def test_interpolation_is_exact_where_the_loss_is_linear_in_the_logarithms() -> None:
    results = table(
        *(
            trial(f"{images}-{active}", [plane(images, active)], images=images, active=active)
            for images in (100, 700, 5000)
            for active in (1, 3, 4, 20)
        )
    )
    (surface,) = loss_surface(results).surfaces
    grid = surface.grid
    assert grid is not None
    expected = plane(grid.x_G[None, :], grid.experts_G[:, None])
    inside = np.isfinite(grid.loss_GG)
    assert inside[1:-1, 1:-1].all()
    np.testing.assert_allclose(grid.loss_GG[inside], expected[inside], rtol=1e-12)
    assert (grid.x_G[0], grid.x_G[-1]) == pytest.approx((100, 5000))
    assert (grid.experts_G[0], grid.experts_G[-1]) == pytest.approx((1, 20))


def test_outside_the_cells_nothing_is_interpolated() -> None:
    corners = [(100, 1), (1000, 1), (100, 10)]
    (surface,) = loss_surface(
        table(*(trial(f"{i}-{a}", [plane(i, a)], images=i, active=a) for i, a in corners))
    ).surfaces
    assert surface.grid is not None
    assert np.isfinite(surface.grid.loss_GG[5, 5])
    assert np.isnan(surface.grid.loss_GG[-1, -1])


def test_cells_hold_mean_spread_and_count() -> None:
    results = table(
        trial("a", [9.0, 2.0], images=100, active=2, seed=0),
        trial("b", [4.0], images=100, active=2, seed=1),
        trial("c", [5.0], images=900, active=3),
        trial("s", [50.0], images=900, active=3, routing="supervised"),
    )
    info = loss_surface(results)
    (surface,) = info.surfaces
    assert surface.x_C.tolist() == [100, 900]
    assert surface.experts_C.tolist() == [2, 3]
    assert surface.mean_C.tolist() == [3.0, 5.0]
    np.testing.assert_allclose(surface.sd_C, [np.sqrt(2.0), NAN])
    assert surface.n_C.tolist() == [2, 1]
    assert info.loss_range == (3.0, 5.0)
    assert info.n_range == (1, 2)


@pytest.mark.parametrize(
    "cells",
    [[(100, 2)], [(100, 2), (900, 3)], [(100, 2), (200, 4), (400, 8), (800, 16)], [(100, 1), (100, 2), (100, 3)]],
)
def test_cells_on_one_line_are_not_interpolated(cells: list[tuple[int, int]]) -> None:
    results = table(*(trial(f"{i}-{a}", [1.0], images=i, active=a) for i, a in cells))
    info = loss_surface(results)
    assert info.surfaces[0].grid is None
    # Limits still span something to draw on.
    assert info.x_limits[0] < info.x_limits[1]
    assert info.experts_limits[0] < info.experts_limits[1]
    assert info.loss_range[0] < 1.0 < info.loss_range[1]


def test_diagonals_have_equal_samples_per_expert_and_stay_on_the_plane(published_runs: pd.DataFrame) -> None:
    info = loss_surface(published_runs)
    assert [diagonal.per_expert for diagonal in info.diagonals] == [1e3, 1e4, 1e5]
    for diagonal in info.diagonals:
        ratio = np.divide(diagonal.x, diagonal.experts)
        np.testing.assert_allclose(ratio, diagonal.per_expert)
        assert info.x_limits[0] <= diagonal.x[0] * (1 + 1e-12)
        assert diagonal.x[1] <= info.x_limits[1] * (1 + 1e-12)
        assert info.experts_limits[0] <= diagonal.experts[0] < diagonal.experts[1] <= info.experts_limits[1]


def test_steps_may_stand_in_for_images() -> None:
    results = table(trial("a", [3.0, 2.0], images=400), trial("b", [5.0, 4.0, 1.0], images=400))
    assert loss_surface(results, effort="steps").surfaces[0].x_C.tolist() == [8, 12]


def test_configured_experts_may_be_counted() -> None:
    results = table(
        trial("a", [3.0], images=400, active=2, configured=8), trial("b", [5.0], images=400, active=2, configured=4)
    )
    active, configured = loss_surface(results), loss_surface(results, experts="configured")
    assert (active.counted, configured.counted) == ("active", "configured")
    assert active.surfaces[0].experts_C.tolist() == [2]
    assert configured.surfaces[0].experts_C.tolist() == [4, 8]
    assert configured.surfaces[0].mean_C.tolist() == [5.0, 3.0]
    assert [diagonal.per_expert for diagonal in configured.diagonals] == [50, 100]


def test_the_soft_loss_may_stand_in_for_the_hard_one() -> None:
    results = table(trial("a", [9.0, 4.0], evaluation__gating="hard"), trial("b", [3.0], active=2))
    soft = with_soft_loss(results)
    assert results["test.reconstruction"].tolist() == [9.0, 4.0, 3.0]  # the given table is as it was
    info = loss_surface(soft)
    assert info.gating == "soft"
    assert info.surfaces[0].mean_C.tolist() == [2.0, 3.0]  # the planted soft loss is 1 below
    assert len(info.surfaces) == 1
    with pytest.raises(ResultsError, match=r"no trial has test\.reconstruction_soft"):
        with_soft_loss(results.assign(**{"test.reconstruction_soft": NAN}))


def test_the_fitted_grid_is_the_fit_over_the_extent_of_the_cells() -> None:
    runs = check_runs(planted_runs(noise=0.0))
    fit, cells = fit_surface(runs, replicates=2), cells_of(runs)
    grid = fitted_grid(fit, cells)
    assert (grid.x_G[0], grid.x_G[-1]) == pytest.approx((17_500, 350_000))
    assert (grid.experts_G[0], grid.experts_G[-1]) == pytest.approx((1, 20))
    # noise-free runs: the fit is the planted surface
    np.testing.assert_allclose(grid.loss_GG, loss_of(grid.x_G[None, :], grid.experts_G[:, None]), rtol=1e-3)


def test_published_surface_matches_the_published_cells(published_runs: pd.DataFrame) -> None:
    cells = pd.read_csv(io.BytesIO(read_file("loss_surface_cells.csv")))
    cells = cells.sort_values(["train_samples_total", "active_experts"])
    (surface,) = loss_surface(published_runs).surfaces
    assert surface.x_C.tolist() == cells["train_samples_total"].tolist()
    assert surface.experts_C.tolist() == cells["active_experts"].tolist()
    assert surface.n_C.tolist() == cells["n"].tolist()
    np.testing.assert_allclose(surface.mean_C, cells["mean"], atol=1e-5)
    # The authors leave the spread of a single run at zero or empty; ours is NaN there.
    several = surface.n_C > 1
    np.testing.assert_allclose(surface.sd_C[several], cells["std_sample"].to_numpy()[several], atol=1e-5)
    assert np.isnan(surface.sd_C[~several]).all()


def test_arms_have_surfaces_of_their_own_and_the_limit_holds() -> None:
    results = table(*(trial(f"{beta}", [float(beta)], training__beta=float(beta)) for beta in range(1, 6)))
    info = loss_surface(results, limit=2)
    assert [(surface.label, surface.mean_C.tolist()) for surface in info.surfaces] == [("β=1", [1.0]), ("β=2", [2.0])]
    assert info.num_available == 5
    panels = loss_against_samples_per_expert(results, limit=3)
    assert [panel.title for panel in panels.panels] == ["β=1", "β=2", "β=3"]
    assert panels.num_available == 5


def test_samples_per_expert() -> None:
    results = table(
        trial("a", [6.0], images=100, active=4, data__fraction=0.1),
        trial("b", [8.0], images=100, active=4, data__fraction=0.1, seed=1),
        trial("c", [5.0], images=100, active=1, data__fraction=0.1),
        trial("d", [3.0], images=1000, active=10, data__fraction=1.0),
    )
    info = loss_against_samples_per_expert(results)
    (panel,) = info.panels
    assert info.amounts == ("100 images (10 %)", "1,000 images (100 %)")
    few, all_of_it = panel.curves
    assert few.x.tolist() == [25.0, 100.0]
    assert few.mean.tolist() == [7.0, 5.0]
    np.testing.assert_allclose(few.sd, [np.sqrt(2.0), NAN])
    assert few.n.tolist() == [2, 1]
    assert (all_of_it.label, all_of_it.x.tolist(), all_of_it.mean.tolist()) == ("1,000 images (100 %)", [100.0], [3.0])


def test_steps_per_configured_expert() -> None:
    results = table(
        trial("a", [6.0, 5.0], images=400, active=2, configured=4, training__budget="2 epochs"),
        trial("b", [8.0], images=400, active=2, configured=4, training__budget="1 epochs"),
    )
    info = loss_against_samples_per_expert(results, effort="steps", experts="configured")
    assert (info.effort, info.counted) == ("steps", "configured")
    assert info.amounts == ("4 steps", "8 steps")
    (panel,) = info.panels
    assert [(curve.label, curve.x.tolist(), curve.mean.tolist()) for curve in panel.curves] == [
        ("4 steps", [1.0], [8.0]),
        ("8 steps", [2.0], [5.0]),
    ]


def test_one_fraction_is_enough_for_samples_per_expert(published_runs: pd.DataFrame) -> None:
    info = loss_against_samples_per_expert(published_runs[published_runs["config.data.fraction"] == 0.05])
    assert info.amounts == ("17,500 images (5 %)",)
    assert info.panels[0].curves[0].x.max() == 17_500


# --- usage ------------------------------------------------------------------------------------------------------------


def test_usage_is_sorted_by_the_final_share() -> None:
    usage = [[0.2, 0.3, 0.5], None, [0.6, 0.0, 0.4]]
    info = usage_over_epochs(table(trial("a", [3.0, NAN, 1.0], active=[3, 0, 2], usage=usage, seed=4)))
    (shown,) = info.trials
    assert shown.epoch_T.tolist() == [1, 3]
    assert shown.expert_E.tolist() == [0, 2, 1]
    assert shown.share_ET.tolist() == [[0.2, 0.6], [0.5, 0.4], [0.3, 0.0]]
    assert shown.state_E.tolist() == ["alive", "alive", "dead"]
    assert shown.active_T.tolist() == [3, 2]
    assert shown.effective_T == pytest.approx([2.7, 1.8])
    assert (shown.trial_id, shown.seed, info.num_available) == ("a", 4, 1)


def test_usage_shows_the_first_finished_seed_of_each_arm_or_every_trial() -> None:
    usage = dying(4, 2, epochs=3)
    results = table(
        trial("b0", [1.0] * 3, seed=0, usage=usage, objective__name="blend", status="running"),
        trial("b2", [1.0] * 3, seed=2, usage=usage, objective__name="blend"),
        trial("b1", [1.0] * 3, seed=1, usage=usage, objective__name="blend"),
        trial("l0", [1.0] * 3, seed=0, usage=usage, objective__name="likelihood", status="running"),
    )
    assert [shown.trial_id for shown in usage_over_epochs(results).trials] == ["b1", "l0"]
    every = usage_over_epochs(results, each="trial", limit=3)
    assert [shown.trial_id for shown in every.trials] == ["b0", "b1", "b2"]
    assert every.num_available == 4


def test_usage_accepts_the_arrays_that_parquet_gives() -> None:
    results = table(trial("a", [1.0, 2.0], usage=[[0.5, 0.5], [1.0, 0.0]]))
    results["experts.usage"] = results["experts.usage"].map(np.asarray)
    assert usage_over_epochs(results).trials[0].share_ET.tolist() == [[0.5, 1.0], [0.5, 0.0]]


def test_usage_needs_two_evaluated_epochs() -> None:
    with pytest.raises(ResultsError, match="no trial has two evaluated epochs"):
        usage_over_epochs(table(trial("a", [1.0, NAN], usage=[[1.0], None])))


# --- lightness --------------------------------------------------------------------------------------------------------


def test_analysis_and_the_registry_of_figures_load_neither_torch_nor_ray_nor_matplotlib() -> None:
    program = (
        "import sys, smoe_ray.figures; print({'torch', 'ray', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
