"""Charts of the test loss over data, updates and experts, and of the recommended number of experts."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from smoe_ray.analysis import (
    Baseline,
    BestCurve,
    Curve,
    Forecast,
    Grid,
    LossAgainstExperts,
    LossAgainstSamplesPerExpert,
    LossSurface,
    Recommendation,
    Surface,
)
from smoe_ray.analysis.expert_forecast import TIED_WITHIN
from smoe_ray.analysis.scaling import EFFORT_NAME
from smoe_ray.columns import format_cell
from smoe_ray.figures.style import short_number
from smoe_ray.published import SOURCE

from ... import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FIT, _SECOND = style.COLOURS[1], style.COLOURS[3]
_PUBLISHED = f"published, {SOURCE}"
_TICKS = [step * 10.0**power for power in range(-2, 10) for step in (1, 2, 5)]
_LOG = {"type": "log", "tickvals": _TICKS, "ticktext": [short_number(tick) for tick in _TICKS]}


def plane(
    info: LossSurface, grid: Grid | None = None, best: BestCurve | None = None, published: Surface | None = None
) -> go.Figure:
    """Cells of the first surface on the log-log plane, coloured by mean test loss, over a surface.

    Args:
        info: one surface, its limits and diagonals.
        grid: the surface to draw below the cells; by default the interpolated one.
        best: optimal number of experts against the amount, drawn with its interval and the tied numbers.
        published: published cells, as hollow grey diamonds.
    """
    surface = info.surfaces[0]
    effort = EFFORT_NAME[info.effort]
    figure = style.figure(height=520)
    low, high = info.loss_range
    title = {"text": f"mean {_loss(info.gating, info.unit)}"}
    figure.update_layout(
        coloraxis={
            "colorscale": "Viridis",
            "cmin": low,
            "cmax": high,
            "colorbar": {"title": title, "thickness": 14, "x": 1.06},
        },
        legend={"y": 1.07},
    )
    drawn = grid or surface.grid
    if drawn is not None:
        # No contours: plotly.js does not terminate for them on logarithmic axes.
        figure.add_heatmap(
            x=drawn.x_G,
            y=drawn.experts_G,
            z=drawn.loss_GG,
            coloraxis="coloraxis",
            hoverongaps=False,
            name="fitted" if grid else "interpolated",
            hovertemplate=f"%{{x:,.3s}} {effort}, %{{y:.3g}} experts: %{{z:.2f}}",
        )
    for diagonal in info.diagonals:
        figure.add_scatter(
            x=diagonal.x,
            y=diagonal.experts,
            mode="lines+text",
            line={"color": style.GREY, "width": 1, "dash": "dash"},
            text=["", short_number(diagonal.per_expert)],
            textposition="top center" if diagonal.experts[1] == info.experts_limits[1] else "middle right",
            textfont={"color": style.GREY, "size": 11},
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
        )
    if best is not None:
        _add_best(figure, best, effort)
    if published is not None:
        _add_cells(figure, published, effort, {"color": style.GREY, "symbol": "diamond-open", "size": 9}, _PUBLISHED)
    look = {"color": surface.mean_C, "coloraxis": "coloraxis", "size": 12, "line": {"color": style.GREY, "width": 1.5}}
    _add_cells(figure, surface, effort, look, "mean of a cell")
    figure.update_xaxes(_LOG, title=effort, showgrid=False)
    figure.update_yaxes(_LOG, title=f"{info.counted} experts", showgrid=False)
    if published is None:
        figure.update_xaxes(range=_in_logarithms(info.x_limits))
        figure.update_yaxes(range=_in_logarithms(info.experts_limits))
    return figure


def _add_cells(figure: go.Figure, cells: Surface, effort: str, marker: dict[str, Any], name: str) -> None:
    figure.add_scatter(
        x=cells.x_C,
        y=cells.experts_C,
        mode="markers",
        marker=marker,
        name=name,
        hovertext=[
            f"{x:,.0f} {effort}, {experts} experts<br>{_measured(mean, sd, n)}"
            for x, experts, mean, sd, n in zip(
                cells.x_C, cells.experts_C, cells.mean_C, cells.sd_C, cells.n_C, strict=True
            )
        ],
        hovertemplate=f"%{{hovertext}}<extra>{name if name == _PUBLISHED else ''}</extra>",
    )


def _add_best(figure: go.Figure, best: BestCurve, effort: str) -> None:
    _add_band(figure, best.amount_G, best.low_G, best.high_G, "its 95 % interval")
    for edge_G, shown in ((best.tied_low_G, True), (best.tied_high_G, False)):
        figure.add_scatter(
            x=best.amount_G,
            y=edge_G,
            mode="lines",
            line={"color": _FIT, "width": 1.5, "dash": "dot"},
            name=f"tied within {TIED_WITHIN:g}",
            showlegend=shown,
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=best.amount_G,
        y=best.best_G,
        mode="lines",
        line={"color": _FIT, "width": 3},
        name="optimal number K*, fitted",
        customdata=list(zip(best.low_G, best.high_G, strict=True)),
        hovertemplate=f"%{{x:,.3s}} {effort}: K* %{{y:.1f}} "
        "(95 % %{customdata[0]:.1f} to %{customdata[1]:.1f})<extra></extra>",
    )


def _add_band(figure: go.Figure, x: Any, low: Any, high: Any, name: str) -> None:
    """Fill between two curves, in the colour of the fit."""
    edge = {"mode": "lines", "line": {"color": _FIT, "width": 0}, "hoverinfo": "skip", "x": x, "legendgroup": name}
    figure.add_scatter(**edge, y=low, showlegend=False)
    figure.add_scatter(**edge, y=high, fill="tonexty", fillcolor="rgba(213,94,0,0.35)", name=name)


def against_experts(
    info: LossAgainstExperts, labels: Collection[str], published: LossAgainstExperts | None = None
) -> go.Figure:
    """Mean and s.d. of the test loss at each number of experts, the supervised baseline as a band.

    Args:
        info: curves of all arms.
        labels: which of them are drawn.
        published: published curves, drawn in grey.
    """
    figure = style.figure(height=460)
    curves = [curve for curve in info.curves if curve.label in labels]
    unit = f"{info.experts} experts"
    for curve, colour, symbol in zip(curves, style.colours(len(curves)), style.symbols(len(curves)), strict=True):
        _add_curve(figure, curve, colour, symbol, unit)
    for baseline, dash in zip(info.baselines, style.dashes(len(info.baselines)), strict=True):
        figure.add_hrect(baseline.low, baseline.high, fillcolor=style.GREY, opacity=0.2, line_width=0)
        _add_baseline(figure, baseline, baseline.label, info.x_limits, dash)
    if published is not None:
        for curve in published.curves:
            _add_published(figure, curve, unit, "dot")
        for baseline in published.baselines:
            _add_baseline(figure, baseline, f"{_PUBLISHED}: {baseline.label}", published.x_limits, "dot")
    figure.update_xaxes(title=unit, **({} if published else {"range": info.x_limits}))
    figure.update_yaxes(title=_loss(info.gating, info.unit))
    return figure


def _add_baseline(figure: go.Figure, baseline: Baseline, label: str, x: tuple[float, float], dash: str) -> None:
    name = f"{style.escape(label)} (n = {baseline.n})"
    figure.add_scatter(
        x=x,
        y=[baseline.mean, baseline.mean],
        mode="lines",
        line={"color": style.GREY, "dash": dash},
        name=name,
        hovertemplate=f"{name}: {format_cell('loss', baseline.mean, baseline.sd)}<extra></extra>",
    )


def per_expert(info: LossAgainstSamplesPerExpert, published: Sequence[Curve] = ()) -> go.Figure:
    """Mean and s.d. of the test loss against images (or steps) per expert, one curve per amount; first panel."""
    figure = style.figure(height=460)
    (panel, *_) = info.panels
    count = len(info.amounts)
    look_of = dict(zip(info.amounts, zip(style.sequence(count), style.symbols(count), strict=True), strict=True))
    unit = f"{EFFORT_NAME[info.effort]} per {info.counted} expert"
    for curve in panel.curves:
        _add_curve(figure, curve, *look_of[curve.label], unit)
    for curve, dash in zip(published, style.dashes(len(published)), strict=True):
        _add_published(figure, curve, unit, dash)
    figure.update_xaxes(_LOG, title=unit, **({} if published else {"range": _in_logarithms(info.x_limits)}))
    figure.update_yaxes(title=_loss(info.gating, info.unit))
    return figure


def _add_curve(figure: go.Figure, curve: Curve, colour: str, symbol: str, unit: str, dash: str = "solid") -> None:
    name = style.escape(curve.label)
    figure.add_scatter(
        x=curve.x,
        y=curve.mean,
        error_y={"array": curve.sd, "thickness": 1.2, "width": 3},
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 1.8},
        marker={"color": colour, "symbol": symbol, "size": 8},
        name=name,
        hovertext=[
            f"{name}<br>{x:,.6g} {unit}<br>{_measured(mean, sd, n)}"
            for x, mean, sd, n in zip(curve.x, curve.mean, curve.sd, curve.n, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _add_published(figure: go.Figure, curve: Curve, unit: str, dash: str) -> None:
    labelled = curve._replace(label=f"{_PUBLISHED}: {curve.label}")
    _add_curve(figure, labelled, style.GREY, "diamond-open", unit, dash)


def at_amount(arm: Recommendation, gating: str, unit_of_loss: str) -> go.Figure:
    """Loss against experts at a given amount: fit with interval, tied numbers, Gaussian process, nearest cells."""
    figure = style.figure(height=420)
    unit = f"{arm.counted} experts"
    for curve, symbol in zip(arm.measured, style.symbols(len(arm.measured)), strict=True):
        measured = curve._replace(label=f"measured at {curve.label}")
        _add_curve(figure, measured, style.GREY, f"{symbol}-open", unit, "dot")
    if arm.surface is not None:
        _add_forecast(figure, arm.surface.forecast, unit)
    figure.update_xaxes(_LOG, title=unit)
    figure.update_yaxes(title=_loss(gating, unit_of_loss))
    return figure


def _add_forecast(figure: go.Figure, found: Forecast, unit: str) -> None:
    _add_band(figure, found.count_K, found.low_K, found.high_K, "its 95 % interval")
    fit, second = {"color": _FIT, "width": 2}, {"color": _SECOND, "width": 2, "dash": "dash"}
    figure.add_scatter(
        x=found.count_K,
        y=found.loss_K,
        mode="lines",
        line=fit,
        name="fitted surface",
        customdata=list(zip(found.low_K, found.high_K, found.chance_K, strict=True)),
        hovertemplate=f"%{{x}} {unit}: %{{y:.2f}} (95 % %{{customdata[0]:.2f}} to %{{customdata[1]:.2f}})"
        "<br>best in %{customdata[2]:.0%} of the replicates<extra>fitted surface</extra>",
    )
    figure.add_scatter(
        x=found.count_K[found.tied_K],
        y=found.loss_K[found.tied_K],
        mode="markers",
        marker={"color": _FIT, "symbol": "circle-open", "size": 8, "line": {"width": 2}},
        name=f"tied within {TIED_WITHIN:g}",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=found.count_K,
        y=found.gaussian_process.loss_K,
        mode="lines",
        line=second,
        name="Gaussian process",
        hovertemplate=f"%{{x}} {unit}: %{{y:.2f}}<extra>Gaussian process</extra>",
    )


def _measured(mean: float, sd: float, n: int) -> str:
    return f"test loss {format_cell('loss', mean, sd)}, n = {n}"


def _loss(gating: str, unit: str) -> str:
    return f"test loss, {style.escape(gating)} gating<br>{style.unit_lines(unit)}"


def _in_logarithms(limits: tuple[float, float]) -> list[float]:
    return [math.log10(limit) for limit in limits]
