"""Tuning curves of one expert."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from smoe_ray.analysis.encoding import ExpertTuning

from ... import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ROW_HEIGHT = 190
_COLUMNS = 4


def tuning(found: ExpertTuning, expert: int) -> go.Figure:
    """One panel per parameter: what the gate sends the expert, and how well it decodes, over the parameter's values."""
    from plotly.subplots import make_subplots

    rows = math.ceil(len(found.routing) / _COLUMNS)
    titles = [style.escape(curves.parameter) for curves in found.routing]
    figure = make_subplots(rows, _COLUMNS, subplot_titles=titles, shared_yaxes="all", vertical_spacing=0.4 / rows)
    figure.update_layout(style.figure(height=90 + _ROW_HEIGHT * rows, margin={"t": 70}).layout)
    figure.update_layout(legend={"y": 1.12})
    series = (("gate probability", found.routing), ("relative precision", found.decoding))
    for (name, parameters), colour, dash in zip(series, style.colours(2), style.dashes(2), strict=True):
        for number, curves in enumerate(parameters):
            figure.add_scatter(
                x=curves.value_K,
                y=curves.curves[expert].mean_K,
                error_y={"array": curves.curves[expert].sd_K, "thickness": 1, "width": 2},
                name=name,
                legendgroup=name,
                showlegend=number == 0,
                line={"color": colour, "dash": dash},
                row=1 + number // _COLUMNS,
                col=1 + number % _COLUMNS,
            )
    figure.update_yaxes(autorangeoptions={"clipmin": 0})
    return figure
