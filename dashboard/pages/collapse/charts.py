"""Charts of collapse: experts in use over training, their survival, collapse rates, and the phase diagram."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from smoe_ray.analysis import CollapseRate, Curve, ExpertSurvival, PhaseDiagram, PhasePanel, TrialUsage
from smoe_ray.analysis.experts import QUANTILES, InUse, TrialInUse
from smoe_ray.columns import count, format_cell
from smoe_ray.figures.experts import LEAST_NAMED_SHARE
from smoe_ray.figures.style import short_number

from ... import style

if TYPE_CHECKING:
    import numpy.typing as npt
    import plotly.graph_objects as go

_BANDS = ((0, 6, 0.12, "all trials"), (1, 5, 0.2, "90 % of the trials"), (2, 4, 0.3, "half of the trials"))
"""Of each band: rows of its two quantiles, opacity and name; the median is the row in the middle."""
_MEDIAN = QUANTILES.index(0.5)
_RHO = "\N{GREEK SMALL LETTER RHO}"
_THEORY = f"theory: min(1, 0.60 {_RHO}), no measurement"
_RHO_TICKS = (0, 0.5, 1, 1.5, 2, 5, 10, 100, 1000, 10_000)
_LINEAR_TO, _DECADE = 2.0, 4 / 3
_ASIDE = 0.03
_MANY_POINTS = 500
"""With more points, WebGL draws them."""
_ROW = 40
"""Height of a row of labels, in pixels."""


def usage(trial: TrialUsage) -> go.Figure:
    """Share of the test images of each expert of a trial over epochs, stacked and numbered; grey: dead at the end."""
    figure = style.figure(height=360, showlegend=False)
    palette = style.COLOURS[:6]
    for place, (expert, state) in enumerate(zip(trial.expert_E, trial.state_E, strict=True)):
        figure.add_scatter(
            x=trial.epoch_T,
            y=trial.share_ET[place],
            stackgroup="experts",
            mode="lines",
            line={"width": 0.6, "color": style.GREY},
            fillcolor=palette[place % len(palette)] if state == "alive" else style.GREY,
            name=f"expert {expert}" if state == "alive" else f"expert {expert} ({state})",
            hovertemplate="%{y:.1%}",
        )
    last_E = trial.share_ET[:, -1]
    for expert, top, share in zip(trial.expert_E, last_E.cumsum(), last_E, strict=True):
        if np.isfinite(top) and share >= LEAST_NAMED_SHARE:  # colours repeat after six, numbers do not
            figure.add_annotation(
                x=trial.epoch_T[-1], y=top - share / 2, text=str(expert), xanchor="left", showarrow=False
            )
    figure.update_xaxes(title="epoch", showgrid=False, **style.whole_axis(2 * int(trial.epoch_T[-1])))
    figure.update_yaxes(title="share of test images", range=[0, 1], tickformat=".0%", showgrid=False)
    return figure


def in_use(measures: Sequence[InUse]) -> go.Figure:
    """One panel per measure: quantile bands and median over all trials, and the selected trials as lines."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=len(measures), shared_yaxes=True, horizontal_spacing=0.1)
    figure.update_layout(style.figure(height=440).layout)
    for column, measure in enumerate(measures, start=1):
        where: dict[str, Any] = {"row": 1, "col": column}
        for low, high, opacity, name in _BANDS:
            edge = {"x": measure.epoch_T, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", **where}
            figure.add_scatter(**edge, y=measure.quantile_QT[low], showlegend=False)
            figure.add_scatter(
                **edge,
                y=measure.quantile_QT[high],
                fill="tonexty",
                fillcolor=f"rgba(0,114,178,{opacity})",
                name=name,
                showlegend=column == 1,
            )
        _add_median(figure, measure, where, shown=column == 1)
        count = len(measure.trials)
        looks = zip(style.colours(count + 1)[1:], style.dashes(count), style.symbols(count), strict=True)
        for trial, (colour, dash, symbol) in zip(measure.trials, looks, strict=True):
            _add_trial(figure, trial, {"color": colour, "dash": dash, "width": 2}, symbol, where, shown=column == 1)
        figure.update_yaxes(title={"text": measure.title, "standoff": 0}, showticklabels=True, **where)
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(range=[0, 1.04], tickformat=".0%")
    return figure


def _add_median(figure: go.Figure, measure: InUse, where: dict[str, Any], shown: bool) -> None:
    quantiles = ", ".join(f"{100 * quantile:g} %: %{{customdata[{row}]:.0%}}" for row, quantile in enumerate(QUANTILES))
    figure.add_scatter(
        x=measure.epoch_T,
        y=measure.quantile_QT[_MEDIAN],
        mode="lines" if len(measure.epoch_T) > 1 else "markers",
        line={"color": style.COLOURS[0], "width": 2.5},
        name="median",
        legendgroup="median",
        showlegend=shown,
        customdata=np.vstack([measure.quantile_QT, measure.n_T]).T,
        hovertemplate=f"epoch %{{x}}, %{{customdata[{len(QUANTILES)}]:,}} trials<br>{quantiles}<extra></extra>",
        **where,
    )


def _add_trial(
    figure: go.Figure, trial: TrialInUse, line: dict[str, Any], symbol: str, where: dict[str, Any], shown: bool
) -> None:
    name = style.escape(f"{trial.label}, seed {trial.seed}")
    figure.add_scatter(
        x=trial.epoch_T,
        y=trial.share_T,
        mode="lines+markers",
        line=line,
        marker={"symbol": symbol, "size": 6},
        name=name,
        legendgroup=trial.trial_id,
        showlegend=shown,
        customdata=trial.count_T,
        hovertemplate=f"epoch %{{x}}: %{{customdata:.3g}} experts, %{{y:.0%}}<extra>{name}</extra>",
        **where,
    )


def survival(info: ExpertSurvival, labels: Collection[str]) -> go.Figure:
    """Share of the configured experts still alive against epoch, one step line per arm in `labels`."""
    figure = style.figure(height=420)
    arms = [arm for arm in info.arms if arm.label in labels]
    looks = zip(style.colours(len(arms)), style.dashes(len(arms)), strict=True)
    for arm, (colour, dash) in zip(arms, looks, strict=True):
        name = style.escape(arm.label)
        figure.add_scatter(
            x=arm.epoch_T,
            y=arm.share_T,
            error_y={"array": arm.sd_T, "thickness": 1, "width": 2},
            mode="lines+markers",
            line={"color": colour, "dash": dash, "shape": "hv"},
            marker={"size": 5},
            name=f"{name} (half-life {_epochs(arm.half_life, arm.epoch_T[-1])})",
            hovertemplate=f"epoch %{{x}}: %{{y:.0%}} alive<extra>{name}, {arm.experts} experts: "
            f"{arm.alive} alive, {arm.dead} dead, {arm.never_used} never used</extra>",
        )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title="share of the configured experts still alive", range=[0, 1.04], tickformat=".0%")
    return figure


def _epochs(life: float, last: float) -> str:
    return count(life, "epoch") if math.isfinite(life) else f"> {last:g} epochs"


def rates(found: Sequence[CollapseRate]) -> go.Figure:
    """Share of runs that collapse with its Wilson interval, one row per arm."""
    figure = style.figure(height=110 + _ROW * len(found), showlegend=False)
    places = list(range(len(found)))
    share = np.array([rate.share for rate in found])
    figure.add_scatter(
        x=share,
        y=places,
        error_x={
            "array": np.array([rate.high for rate in found]) - share,
            "arrayminus": share - np.array([rate.low for rate in found]),
            "thickness": 2,
            "width": 5,
        },
        mode="markers",
        marker={"size": 11, "color": style.COLOURS[1]},
        hovertext=[
            f"{style.escape(rate.label)}<br>{rate.collapsed} of {rate.n} runs: {format_cell('share', rate.share)} "
            f"(95 % {format_cell('share_low', rate.low)} to {format_cell('share_high', rate.high)})"
            for rate in found
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    names = [f"{style.escape(rate.label, 50)} ({rate.collapsed} of {rate.n})" for rate in found]
    figure.update_yaxes(tickvals=places, ticktext=names, range=[len(found) - 0.5, -0.5], showgrid=False)
    figure.update_xaxes(title="share of the runs that collapse", range=[-0.03, 1.03], tickformat=".0%", zeroline=False)
    return figure


def phase(info: PhaseDiagram) -> go.Figure:
    """Share of experts in use against rho, mean and s.d. over runs; runs without an entropy term in a margin.

    The rho axis is linear where the theoretical curve rises and logarithmic beyond.
    """
    from plotly.subplots import make_subplots

    has_rho, has_margin = bool(info.panels[0].curves), bool(info.panels[0].margin)
    widths = [4] * has_rho + [1] * has_margin
    figure = make_subplots(
        rows=1,
        cols=len(widths) * len(info.panels),
        shared_yaxes=True,
        column_widths=widths * len(info.panels),
        horizontal_spacing=0.07,
    )
    figure.update_layout(style.figure(height=460).layout)
    looks = zip(style.colours(len(info.labels)), style.symbols(len(info.labels)), strict=True)
    look_of = dict(zip(info.labels, looks, strict=True))
    named: set[str] = set()
    for number, panel in enumerate(info.panels):
        first = 1 + number * len(widths)
        figure.update_yaxes(title={"text": panel.title, "standoff": 0}, showticklabels=True, row=1, col=first)
        if has_rho:
            if number == 0:
                _add_theory(figure, info)
            _add_over_rho(figure, panel, look_of, named, first, is_bent=info.theory_rho[-1] > _LINEAR_TO)
            figure.update_xaxes(range=[-0.1, _place(info.theory_rho[-1])], row=1, col=first)
        if has_margin:
            _add_margin(figure, panel, look_of, named, first + has_rho)
    figure.update_yaxes(range=[0, 1.08], tickformat=".0%")
    return figure


def _add_theory(figure: go.Figure, info: PhaseDiagram) -> None:
    figure.add_scatter(
        x=_place(info.theory_rho),
        y=info.theory_share,
        mode="lines",
        line={"color": style.GREY, "dash": "dash"},
        name=_THEORY,
        hoverinfo="skip",
        row=1,
        col=1,
    )


def _add_over_rho(
    figure: go.Figure,
    panel: PhasePanel,
    look_of: dict[str, tuple[str, str]],
    named: set[str],
    column: int,
    is_bent: bool,
) -> None:
    ticks = np.array(_RHO_TICKS, float)
    for number, curve in enumerate(panel.curves):
        # Offset horizontally, as studies share a few values of rho.
        aside = _ASIDE * (number - (len(panel.curves) - 1) / 2)
        _add_points(figure, curve, _place(curve.x) + aside, _RHO, look_of, named, column)
    if is_bent:
        figure.add_vline(_LINEAR_TO, line={"color": style.GREY, "width": 1, "dash": "dot"}, row=1, col=column)
    scale = f"<br>(linear to {_LINEAR_TO:g}, logarithmic beyond the dotted line)" if is_bent else ""
    figure.update_xaxes(
        title=f"{_RHO} = 2 λ_balance / λ_entropy{scale}",
        tickvals=_place(ticks),
        ticktext=[short_number(tick) for tick in _RHO_TICKS],
        row=1,
        col=column,
    )


def _add_margin(
    figure: go.Figure, panel: PhasePanel, look_of: dict[str, tuple[str, str]], named: set[str], column: int
) -> None:
    for curve in panel.margin:
        _add_points(figure, curve, curve.x, "", look_of, named, column)
    figure.update_xaxes(
        title=f"no entropy<br>term (no {_RHO})",
        showticklabels=False,
        showgrid=False,
        range=[-0.7, len(panel.margin) - 0.3],
        row=1,
        col=column,
    )


def _add_points(
    figure: go.Figure,
    curve: Curve,
    place: npt.NDArray[Any],
    of: str,
    look_of: dict[str, tuple[str, str]],
    named: set[str],
    column: int,
) -> None:
    import plotly.graph_objects as go

    colour, symbol = look_of[curve.label]
    name = style.escape(curve.label)
    scatter = go.Scattergl if len(curve.x) > _MANY_POINTS else go.Scatter
    figure.add_trace(
        scatter(
            x=place,
            y=curve.mean,
            error_y={"array": curve.sd, "thickness": 1.2, "width": 3},
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9},
            name=name,
            legendgroup=name,
            showlegend=curve.label not in named,
            hovertext=[
                f"{name}<br>{f'{of} = {x:.4g}: ' if of else ''}{mean:.0%}{_spread(sd)} of E, n = {n}"
                for x, mean, sd, n in zip(curve.x, curve.mean, curve.sd, curve.n, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        ),
        row=1,
        col=column,
    )
    named.add(curve.label)


def _spread(sd: float) -> str:
    return "" if math.isnan(sd) else f" ± {sd:.0%}"


def _place(rho: npt.ArrayLike) -> npt.NDArray[Any]:
    """Axis coordinate of rho."""
    rho = np.asarray(rho, float)
    return np.where(rho <= _LINEAR_TO, rho, _LINEAR_TO + _DECADE * np.log10(np.maximum(rho, _LINEAR_TO) / _LINEAR_TO))
