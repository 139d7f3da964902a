"""Charts of one trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoe_ray.errors import ResultsError

from ... import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from smoe_ray.analysis.curves import Series, TrialCurves

_COLUMNS = 3


def error_chart(info: TrialCurves) -> go.Figure:
    """Reconstruction errors, or contrastive losses, against epoch, one line per measure."""
    figure = style.figure(hovermode="x unified")
    looks = zip(style.colours(3), style.symbols(3), style.dashes(3), strict=True)
    for series, (colour, symbol, dash) in zip(info.errors, looks, strict=False):
        figure.add_scatter(
            x=series.epoch_T,
            y=series.value_T,
            name=series.label,
            mode="lines+markers",
            line={"color": colour, "dash": dash},
            marker={"symbol": symbol, "size": 7},
            hovertemplate="%{y:.2f}",
        )
    figure.update_xaxes(title="epoch", **style.whole_axis(_epochs(info.errors)))
    figure.update_yaxes(title=f"{info.name}<br>{style.unit_lines(info.unit)}", type="log")
    return figure


def terms_chart(info: TrialCurves) -> go.Figure:
    """Terms of the training loss against epoch, one panel per term with its own axis.

    Raises:
        ResultsError: no term was measured.
    """
    from plotly.subplots import make_subplots

    if not info.terms:
        raise ResultsError("no finite term of the training loss was recorded")
    rows = -(-len(info.terms) // _COLUMNS)
    figure = style.figure(height=60 + 200 * rows, showlegend=False)
    titles = [series.label for series in info.terms]
    grid = make_subplots(rows, _COLUMNS, subplot_titles=titles, figure=figure, horizontal_spacing=0.08)
    for at, series in enumerate(info.terms):
        grid.add_scatter(
            x=series.epoch_T,
            y=series.value_T,
            mode="lines+markers",
            line={"color": style.COLOURS[0]},
            hovertemplate="epoch %{x}: %{y:.4g}<extra></extra>",
            row=at // _COLUMNS + 1,
            col=at % _COLUMNS + 1,
        )
    grid.update_xaxes(automargin=True, **style.whole_axis(2 * _epochs(info.terms)))
    grid.update_annotations(font_size=13)
    return grid


def _epochs(measures: tuple[Series, ...]) -> int:
    return max((int(series.epoch_T[-1]) for series in measures), default=1)
