"""How the test loss scales with data, optimizer steps and experts.

C cells: distinct pairs of (training images or steps, experts). G x G points of an interpolation grid.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.curves import FloatArray, IntArray, Panel, log_limits, n_range, summarise
from smoe_ray.analysis.datasets import require_one_dataset
from smoe_ray.analysis.experts import NUM_EXPERTS, unsupervised_outcomes
from smoe_ray.analysis.outcomes import loss_unit, require, test_gating
from smoe_ray.analysis.surface_fit import Cells, SurfaceFit
from smoe_ray.columns import count

Effort = Literal["images", "steps"]
Counted = Literal["active", "configured"]

EFFORT_NAME: dict[Effort, str] = {"images": "training images", "steps": "optimizer steps"}
EFFORT_COLUMN: dict[Effort, str] = {"images": "data.train_images", "steps": "cost.steps"}
DATA_PATHS = ("data.fraction", "data.train_per_class")
_GRID_POINTS = 200
_LEAST_RATIO = 4.0


class Grid(NamedTuple):
    """Test loss on the log-log plane."""

    x_G: FloatArray
    experts_G: FloatArray
    loss_GG: FloatArray
    """Rows follow `experts_G`, columns `x_G`."""


class Surface(NamedTuple):
    """Outcomes of one arm by cell. Arrays have shape (C,)."""

    label: str
    x_C: FloatArray
    experts_C: IntArray
    mean_C: FloatArray
    sd_C: FloatArray
    """Sample standard deviation (ddof = 1) over the cell's runs; NaN where n = 1."""
    n_C: IntArray
    grid: Grid | None
    """Interpolated linearly, NaN outside the convex hull of the cells. None if the cells span no area: fewer than
    three, or collinear."""


class Diagonal(NamedTuple):
    """Line of constant x / experts, clipped to the axis limits."""

    per_expert: float
    x: tuple[float, float]
    experts: tuple[float, float]


class LossSurface(NamedTuple):
    """Test loss (error per image) over training images or steps and experts, one surface per arm."""

    effort: Effort
    counted: Counted
    gating: str
    unit: str
    """Of the losses: see `loss_unit`."""
    surfaces: tuple[Surface, ...]
    diagonals: tuple[Diagonal, ...]
    x_limits: tuple[float, float]
    experts_limits: tuple[float, float]
    loss_range: tuple[float, float]
    n_range: tuple[int, int]
    num_available: int
    """Number of surfaces without the limit."""


def loss_surface(
    results: pd.DataFrame, effort: Effort = "images", limit: int = 12, experts: Counted = "active"
) -> LossSurface:
    """Mean test loss of finished trials over the (data, experts) plane (arXiv:2509.10025, Fig. 6).

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        effort: the x axis: training images of the trial, or its optimizer steps.
        limit: maximum number of surfaces, in the order of arms.
        experts: count the experts that stayed active, as the paper does, or those configured.

    Raises:
        ResultsError: there is no finished trial, all are supervised, or they are of several datasets.
    """
    column, count = EFFORT_COLUMN[effort], f"experts.{experts}"
    require(results, (column, count))
    require_one_dataset(results, "loss surface")
    outcomes = unsupervised_outcomes(results, "loss surface")
    label_of = arms(outcomes, ignored_paths(effort))
    outcomes = _of_first_arms(outcomes.assign(arm=outcomes["trial_id"].map(label_of)), label_of, limit)
    surfaces = tuple(_surface(str(arm), runs, column, count) for arm, runs in outcomes.groupby("arm", observed=True))
    x = np.concatenate([surface.x_C for surface in surfaces])
    counts = np.concatenate([surface.experts_C for surface in surfaces])
    loss = np.concatenate([surface.mean_C for surface in surfaces])
    x_limits, experts_limits = log_limits(x, _LEAST_RATIO), log_limits(counts, _LEAST_RATIO)
    return LossSurface(
        effort,
        experts,
        test_gating(outcomes),
        loss_unit(outcomes),
        surfaces,
        _diagonals(x / counts, x_limits, experts_limits),
        x_limits,
        experts_limits,
        _loss_range(loss),
        n_range(surface.n_C for surface in surfaces),
        len(label_of.cat.categories),
    )


def ignored_paths(effort: Effort) -> tuple[str, ...]:
    """Spec paths on the axes of the plane, which therefore do not separate arms."""
    return (NUM_EXPERTS, *DATA_PATHS) + (("training.budget",) if effort == "steps" else ())


def _surface(label: str, runs: pd.DataFrame, column: str, count: str) -> Surface:
    cells = runs.groupby([column, count], sort=True)["test.reconstruction"].agg(["mean", "std", "count"])
    x_C = cells.index.get_level_values(0).to_numpy(np.float64)
    experts_C = cells.index.get_level_values(1).to_numpy(np.int64)
    mean_C = cells["mean"].to_numpy(np.float64)
    return Surface(
        label,
        x_C,
        experts_C,
        mean_C,
        cells["std"].to_numpy(np.float64),
        cells["count"].to_numpy(np.int64),
        interpolate_log_log(x_C, experts_C, mean_C),
    )


def interpolate_log_log(x_C: FloatArray, experts_C: IntArray, loss_C: FloatArray) -> Grid | None:
    """Interpolate linearly between cells in (ln x, ln experts), on their Delaunay triangulation.

    Returns:
        A grid over the extent of the cells, or None if they span no area.
    """
    from scipy.interpolate import LinearNDInterpolator

    plane_C2 = np.log(np.column_stack([x_C, experts_C]))
    if np.linalg.matrix_rank(plane_C2 - plane_C2[0], tol=1e-9) < 2:
        return None
    x_G = np.geomspace(x_C.min(), x_C.max(), _GRID_POINTS)
    experts_G = np.geomspace(experts_C.min(), experts_C.max(), _GRID_POINTS)
    # rescale: the axes have different extents, and the triangulation should not depend on their units.
    interpolator = LinearNDInterpolator(plane_C2, loss_C, rescale=True)
    return Grid(x_G, experts_G, interpolator(np.log(x_G)[None, :], np.log(experts_G)[:, None]))


def fitted_grid(fit: SurfaceFit, cells: Cells) -> Grid:
    """The fitted surface over the extent of its cells."""
    x_G = np.geomspace(cells.amount_C.min(), cells.amount_C.max(), _GRID_POINTS)
    experts_G = np.geomspace(cells.experts_C.min(), cells.experts_C.max(), _GRID_POINTS)
    return Grid(x_G, experts_G, fit.loss(x_G[None, :], experts_G[:, None]))


def _of_first_arms(outcomes: pd.DataFrame, label_of: pd.Series[str], limit: int) -> pd.DataFrame:
    return outcomes[outcomes["arm"].isin(label_of.cat.categories[:limit])]


def _loss_range(loss: FloatArray) -> tuple[float, float]:
    """Smallest and largest loss, widened to differ by at least 1 %: a colour bar needs a range."""
    low, high = float(loss.min()), float(loss.max())
    room = max(0.0, 0.01 * high - (high - low)) / 2
    return low - room, high + room


def _diagonals(
    per_expert_C: FloatArray, x_limits: tuple[float, float], experts_limits: tuple[float, float]
) -> tuple[Diagonal, ...]:
    """Lines of equal x per expert at 1 (or 1, 2, 5) times powers of ten, within the range of the cells."""
    decades = 10.0 ** np.arange(np.floor(np.log10(per_expert_C.min())), np.ceil(np.log10(per_expert_C.max())) + 1)
    levels = _within(decades, per_expert_C)
    if len(levels) < 3:
        levels = _within((decades[:, None] * (1.0, 2.0, 5.0)).ravel(), per_expert_C)
    diagonals = []
    for level in map(float, levels):
        low = max(experts_limits[0], x_limits[0] / level)
        high = min(experts_limits[1], x_limits[1] / level)
        diagonals.append(Diagonal(level, (low * level, high * level), (low, high)))
    return tuple(diagonals)


def _within(levels: FloatArray, values: FloatArray) -> FloatArray:
    within: FloatArray = levels[(levels >= values.min()) & (levels <= values.max())]
    return within


class LossAgainstSamplesPerExpert(NamedTuple):
    """Test loss (error per image) against training images (or steps) per expert; one panel per arm."""

    effort: Effort
    counted: Counted
    gating: str
    unit: str
    """Of the losses: see `loss_unit`."""
    amounts: tuple[str, ...]
    """Labels of the amounts of training, ascending, in the order of colours. A curve's label is one of them."""
    panels: tuple[Panel, ...]
    x_limits: tuple[float, float]
    n_range: tuple[int, int]
    num_available: int
    """Number of panels without the limit."""


def loss_against_samples_per_expert(
    results: pd.DataFrame, limit: int = 12, effort: Effort = "images", experts: Counted = "active"
) -> LossAgainstSamplesPerExpert:
    """Test loss of finished trials against training images / active experts (arXiv:2509.10025, Fig. 7).

    One curve per number of training images, i.e. per fraction of the data; a single one is enough.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        limit: maximum number of panels, in the order of arms.
        effort: numerator: training images, or optimizer steps.
        experts: divide by the experts that stayed active, as the paper does, or by those configured.

    Raises:
        ResultsError: there is no finished trial, all are supervised, or they are of several datasets.
    """
    column, count = EFFORT_COLUMN[effort], f"experts.{experts}"
    require(results, (column, count))
    require_one_dataset(results, "loss against samples per expert")
    outcomes = unsupervised_outcomes(results, "loss against samples per expert")
    label_of = arms(outcomes, ignored_paths(effort))
    outcomes = outcomes.assign(arm=outcomes["trial_id"].map(label_of), per_expert=outcomes[column] / outcomes[count])
    outcomes = _of_first_arms(outcomes, label_of, limit)
    amount_of = {amount: _amount(runs, effort) for amount, runs in outcomes.groupby(column, sort=True)}
    panels = []
    for arm, of_arm in outcomes.groupby("arm", observed=True):
        curves = [
            summarise(runs, amount_of[amount], "per_expert", "test.reconstruction")
            for amount, runs in of_arm.groupby(column, sort=True)
        ]
        panels.append(Panel(str(arm), tuple(curves)))
    return LossAgainstSamplesPerExpert(
        effort,
        experts,
        test_gating(outcomes),
        loss_unit(outcomes),
        tuple(amount_of.values()),
        tuple(panels),
        log_limits(outcomes["per_expert"].to_numpy(), _LEAST_RATIO),
        n_range(curve.n for panel in panels for curve in panel.curves),
        len(label_of.cat.categories),
    )


def _amount(runs: pd.DataFrame, effort: Effort) -> str:
    if effort == "steps":
        return count(runs["cost.steps"].iloc[0], "step")
    images = count(runs["data.train_images"].iloc[0], "image")
    fractions = runs.get("config.data.fraction")
    return images if fractions is None or fractions.nunique() != 1 else f"{images} ({100 * fractions.iloc[0]:g} %)"
