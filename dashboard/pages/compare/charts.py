"""Charts of a comparison: curves of several arms over each other, and a table of images."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np

from smoe_ray.figures.pictures import pixels, size_of

from ... import style
from ...pictures import png

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from .data import Curves, Reconstructions

_BAND = 0.16
"""Opacity of the band of one s.d. around a mean."""
_SIDE = 62
"""Width of a small square image, in pixels."""


def curves(info: Curves, each_trial: bool) -> go.Figure:
    """Mean of each arm with a band of one s.d. over its trials, and on request each trial as a thin line."""
    figure = style.figure(height=350, hovermode="x unified")
    looks = zip(style.colours(len(info.arms)), style.dashes(len(info.arms)), style.symbols(len(info.arms)), strict=True)
    span = 1
    for arm, trials, (colour, dash, symbol) in zip(info.arms, info.trials, looks, strict=True):
        name, span = style.escape(arm.label), max(span, int(arm.x[-1]))
        if (arm.n > 1).any():
            low, high = (np.where(arm.n > 1, edge, arm.mean) for edge in (arm.low, arm.high))
            figure.add_scatter(
                x=np.concatenate([arm.x, arm.x[::-1]]),
                y=np.concatenate([high, low[::-1]]),
                fill="toself",
                fillcolor=style.faint(colour, _BAND),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                legendgroup=name,
                showlegend=False,
            )
        for trial in trials if each_trial and len(trials) > 1 else ():
            figure.add_scatter(
                x=trial.x,
                y=trial.mean,
                mode="lines",
                line={"color": colour, "width": 0.8},
                hoverinfo="skip",
                legendgroup=name,
                showlegend=False,
            )
        figure.add_scatter(
            x=arm.x,
            y=arm.mean,
            name=f"{name} (n = {int(arm.n.max())})",
            legendgroup=name,
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2.2},
            marker={"symbol": symbol, "size": 7},
            customdata=np.stack([arm.sd, arm.n], axis=1),
            hovertemplate=[
                f"%{{y:.4g}} ± {sd:.3g} (n = {n})" if n > 1 else "%{y:.4g}" for sd, n in zip(arm.sd, arm.n, strict=True)
            ],
        )
    figure.update_xaxes(title="epoch", **style.whole_axis(span))
    figure.update_yaxes(
        title="<br>".join(filter(None, (info.heading, style.unit_lines(info.unit)))),
        type="log" if info.is_error else "linear",
    )
    return figure


def images(info: Reconstructions) -> str:
    """An HTML table: the inputs, then one row per trial, below each image its expert and its error."""
    width, height = (round(size) for size in size_of(info.input_NHW, _SIDE))
    look = f"width:{width}px;height:{height}px;image-rendering:pixelated;border:1px solid {style.GREY};display:block"

    def picture(image: np.ndarray, says: str) -> str:
        return f'<img src="{png(pixels(image[None])[0])}" alt="{html.escape(says)}" style="{look}">'

    cell = "padding:0 6px 10px 0;border:0;font-variant-numeric:tabular-nums;vertical-align:top;white-space:nowrap"
    heads = "".join(
        f'<th scope="col" style="{cell};font-weight:400">{picture(image, f"test image {index}")}'
        f"{style.escape(name, 12)}</th>"
        for image, name, index in zip(info.input_NHW, info.class_N, info.index_N, strict=True)
    )
    label = "text-align:left;font-weight:600;padding:4px 0 4px 0;border:0"
    rows = [f'<tr><th scope="row" colspan="{len(info.index_N)}" style="{label}">Input</th></tr><tr>{heads}</tr>']
    for trial in info.trials:
        cells = "".join(
            f'<td style="{cell}">{picture(image, f"{trial.title}, test image {index}")}'
            f"expert {expert}<br>{error:.1f}</td>"
            for image, index, expert, error in zip(
                trial.image_NHW, info.index_N, trial.expert_N, trial.error_N, strict=True
            )
        )
        title = f"{style.escape(trial.title)}: mean error of these images {trial.error_N.mean():.1f}"
        rows.append(
            f'<tr><th scope="row" colspan="{len(info.index_N)}" style="{label}">{title}</th></tr><tr>{cells}</tr>'
        )
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;font-size:0.8rem;border:0">'
        f"{''.join(rows)}</table></div>"
    )
