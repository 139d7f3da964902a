"""The recommended number of experts: against the amount, at one amount, and the underlying fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from smoe_ray.analysis.expert_forecast import TIED_WITHIN, FittedSurface, Forecast
from smoe_ray.analysis.recommendation import Recommendation, Recommendations
from smoe_ray.analysis.scaling import EFFORT_NAME
from smoe_ray.columns import count
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_PANELS = 12
_MOST_FITS = 4
_FIT, _GAUSSIAN_PROCESS = style.COLOURS[:2]
_RUN_AREA = 5
"""Marker area per run, in points squared."""


@style.styled
def plot_best_experts(info: Recommendations) -> Figure:
    """Studied cells, and the best expert count against the amount with its interval and tied counts."""
    arms, figure, axes, columns = _panels(info)
    handles: dict[str, Any] = {}
    for ax, arm in zip(axes, arms, strict=True):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlim(info.amount_limits)
        ax.set_ylim(info.experts_limits)
        cells = arm.cells
        area_C = _RUN_AREA * cells.n_C
        handles["studied cell"] = ax.scatter(
            cells.amount_C, cells.experts_C, s=area_C, facecolors="none", edgecolors=style.GREY, linewidths=0.7
        )
        if arm.surface is not None:
            handles |= _plot_curve(ax, arm.surface)
        handles["requested"] = ax.axvline(arm.amount, color="black", linestyle=":", linewidth=1)
    style.plain_log_axis(axes[0].xaxis, *info.amount_limits)
    style.plain_log_axis(axes[0].yaxis, *info.experts_limits, whole=True)
    for ax in axes[-columns:]:
        ax.set_xlabel(EFFORT_NAME[arms[0].effort])
    style.label_y(figure, axes, columns, f"{arms[0].counted} experts")
    style.legend(figure, list(handles.values()), list(handles))
    style.caption(figure, f"area of a circle: runs in the cell, {style.runs_text(info.n_range)}", *_notes(info, arms))
    return figure


def _plot_curve(ax: Axes, surface: FittedSurface) -> dict[str, Any]:
    curve = surface.curve
    tied = ax.fill_between(
        curve.amount_G, curve.tied_low_G, curve.tied_high_G, color=_FIT, alpha=0.15, linewidth=0, zorder=0
    )
    interval = ax.fill_between(
        curve.amount_G, curve.low_G, curve.high_G, color=_FIT, alpha=0.35, linewidth=0, zorder=0.5
    )
    (best,) = ax.plot(curve.amount_G, curve.best_G, color=_FIT)
    lows, bests, highs = zip(
        *((estimate.interval[0], estimate.best, estimate.interval[1]) for estimate in surface.gaussian_process_L),
        strict=True,
    )
    ax.vlines(surface.level_L, lows, highs, color=_GAUSSIAN_PROCESS, linewidth=1)
    (process,) = ax.plot(surface.level_L, bests, "D", color=_GAUSSIAN_PROCESS)
    return {
        "best, fitted surface": best,
        "its 95 % interval": interval,
        f"tied within {TIED_WITHIN:g}": tied,
        "Gaussian process, 95 %": process,
    }


@style.styled
def plot_loss_at_amount(info: Recommendations) -> Figure:
    """Loss against experts at the requested amount: fit with interval, tied counts, Gaussian process, nearest cells."""
    arms, figure, axes, columns = _panels(info, share=not info.several_datasets)
    handles: dict[str, Any] = {}
    for ax, arm in zip(axes, arms, strict=True):
        ax.set_xscale("log")
        ax.set_xlim(info.experts_limits)
        style.plain_log_axis(ax.xaxis, *info.experts_limits, whole=True)
        for curve, marker in zip(arm.measured, style.markers(len(arm.measured)), strict=True):
            handles[f"measured at {curve.label}"] = ax.errorbar(
                curve.x, curve.mean, curve.sd, color=style.GREY, linestyle="", marker=marker, capsize=2, elinewidth=0.9
            )
        if arm.surface is not None:
            handles |= _plot_forecast(ax, arm.surface.forecast)
    for ax in axes[-columns:]:
        ax.set_xlabel(f"{arms[0].counted} experts")
    style.label_y(figure, axes, columns, f"test loss, {info.gating} gating\n{style.unit_lines(info.unit)}")
    style.legend(figure, list(handles.values()), list(handles))
    style.caption(
        figure,
        f"grey: {style.spread_text(info.measured_n_range)}",
        *_notes(info, arms),
    )
    return figure


def _plot_forecast(ax: Axes, found: Forecast) -> dict[str, Any]:
    band = ax.fill_between(found.count_K, found.low_K, found.high_K, color=_FIT, alpha=0.3, linewidth=0)
    (fitted,) = ax.plot(found.count_K, found.loss_K, color=_FIT)
    (tied,) = ax.plot(
        found.count_K[found.tied_K], found.loss_K[found.tied_K], "o", color=_FIT, markerfacecolor="white", markersize=5
    )
    (process,) = ax.plot(found.count_K, found.gaussian_process.loss_K, color=_GAUSSIAN_PROCESS, linestyle="--")
    best = ax.axvline(found.best, color=_FIT, linestyle=":", linewidth=1)
    return {
        "fitted surface": fitted,
        "its 95 % interval": band,
        f"tied within {TIED_WITHIN:g}": tied,
        "best": best,
        "Gaussian process": process,
    }


@style.styled
def plot_surface_fit(info: Recommendations) -> Figure:
    """Measured cell means against the fitted surface, and residuals against experts; one row per arm.

    Args:
        info: from `Recommendations.fitted`, so that every arm has a surface.
    """
    arms = info.arms[:_MOST_FITS]
    figure = style.new_figure(width=8, height=1 + 2.7 * len(arms))
    grid = figure.subplots(len(arms), 2, squeeze=False)
    surfaces = [arm.surface for arm in arms if arm.surface is not None]
    levels = sorted({level for surface in surfaces for level in surface.level_L.tolist()})
    colour_of = dict(zip(levels, style.sequence(len(levels)), strict=True))
    handles: dict[str, Any] = {}
    for (left, right), arm, surface in zip(grid, arms, surfaces, strict=True):
        handles |= _plot_cells(left, right, arm, surface, colour_of)
        left.set_ylabel("measured cell mean")
        right.set_ylabel("measured minus fitted")
        right.set_xlim(info.experts_limits)
        style.plain_log_axis(right.xaxis, *info.experts_limits, whole=True)
        if len(info.arms) > 1:
            style.title(left, arm.label, width=3.2)
    grid[-1, 0].set_xlabel("fitted")
    grid[-1, 1].set_xlabel(f"{arms[0].counted} experts")
    style.legend(figure, list(handles.values()), list(handles))
    style.caption(
        figure,
        f"test loss, {info.gating} gating, {info.unit}",
        "grey: noise floor, ± pooled s.d. of the runs of a cell",
        f"area of a circle: runs in the cell, {style.runs_text(info.n_range)}",
        *style.cut_text(len(arms), len(info.arms)),
        *(arms[0].evidence[:1] if len(info.arms) == 1 else ()),
    )
    return figure


def _plot_cells(
    left: Axes, right: Axes, arm: Recommendation, surface: FittedSurface, colour_of: dict[float, Any]
) -> dict[str, Any]:
    cells, noise = arm.cells, surface.fit.noise.sd
    right.axhspan(-noise, noise, color=style.GREY, alpha=0.15, linewidth=0)
    right.axhline(0, color=style.GREY, linewidth=1)
    right.set_xscale("log")
    left.axline((surface.fitted_C[0], surface.fitted_C[0]), slope=1, color=style.GREY, linewidth=1)
    handles = {}
    for place, level in enumerate(surface.level_L.tolist()):
        at = surface.level_C == place
        look: dict[str, Any] = {
            "s": _RUN_AREA * cells.n_C[at],
            "facecolors": "none",
            "edgecolors": [colour_of[level]],
        }
        left.scatter(surface.fitted_C[at], cells.mean_C[at], **look)
        label = f"{style.short_number(level)} {EFFORT_NAME[arm.effort]}"
        handles[label] = right.scatter(cells.experts_C[at], surface.residual_C[at], **look)
    return handles


def _panels(info: Recommendations, share: bool = True) -> tuple[Sequence[Recommendation], Figure, list[Axes], int]:
    """Axes for the first arms, titled with their recommendations."""
    arms = info.arms[:_MOST_PANELS]
    columns = min(3, len(arms))
    rows = -(-len(arms) // columns)
    figure = style.new_figure(width=6 if columns == 1 else 1 + 2.6 * columns, height=4 if rows == 1 else 2.8 * rows)
    axes = style.panels(figure, len(arms), columns, share)
    for ax, arm in zip(axes, arms, strict=True):
        label = f"{arm.label}\n" if len(info.arms) > 1 else ""
        style.title(ax, f"{label}{arm.headline}", width=5 if columns == 1 else 2.3)
    return arms, figure, axes, columns


def _notes(info: Recommendations, arms: Sequence[Recommendation]) -> tuple[str, ...]:
    """Caption: the requested amount, the number of fitted runs, and whether there are more arms than panels."""
    amounts = sorted({arm.amount for arm in arms})
    requested = f"requested: {' or '.join(f'{amount:,.0f}' for amount in amounts)} {EFFORT_NAME[arms[0].effort]}"
    runs = (f"fit to {count(arms[0].num_runs, 'run')}",) if len(info.arms) == 1 and arms[0].surface is not None else ()
    return (requested, *runs, *style.cut_text(len(arms), len(info.arms)))
