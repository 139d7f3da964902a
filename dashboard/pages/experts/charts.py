"""Images that experts reconstruct, and charts of them: swap matrix, latent interpolation, gate probabilities.

Shapes: E experts, N images of a strip, R inputs, S steps of a path, H W pixels; images are (H, W) where
they are grey, else (C, H, W).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis import ExpertBlock, LatentPath, SwapMatrix
from smoe_ray.figures.pictures import Pixels, size_of, strip

from ... import style
from ...pictures import png

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TILE = 52
"""Height of a small image in a figure, in pixels."""
_PITCH = 1.4
"""Height of an image and the number below it, in images."""


def block_strip(block: ExpertBlock) -> Pixels:
    """Inputs of an expert above its reconstructions, if there are any."""
    return np.concatenate([strip(images) for images in block.rows])


def swap_matrix(info: SwapMatrix) -> go.Figure:
    """One row per input, one column per decoding expert; chosen experts framed, lowest errors in bold."""
    import plotly.graph_objects as go

    rows, columns = info.error_RE.shape
    left = -1.4
    tops = [_PITCH * row for row in range(rows)]
    aspect = _aspect(info.image_RHW)
    _, tile = size_of(info.image_RHW, _TILE)
    figure = style.figure(height=int(130 + tile * _PITCH * rows), margin={"t": 60})
    for row, top in enumerate(tops):
        _place(figure, strip(info.image_RHW[row : row + 1]), left, top, 1)
        _place(figure, strip(info.decoded_REHW[row]), 0, top, columns)
        frame = {"x0": row, "x1": row + 1, "y0": top, "y1": top + 1}
        figure.add_shape(type="rect", **frame, line={"color": style.COLOURS[1], "width": 3})
    best = info.best_R.tolist()
    # Text only: it carries the numbers and their hover texts.
    figure.add_trace(
        go.Scatter(
            x=[column + 0.5 for _ in tops for column in range(columns)],
            y=[top + 1.18 for top in tops for _ in range(columns)],
            mode="text",
            text=[
                f"<b>{error:.1f}</b>" if column == best[row] else f"{error:.1f}"
                for row in range(rows)
                for column, error in enumerate(info.error_RE[row])
            ],
            hovertext=[
                f"input of expert {info.expert_E[row]}, decoded by expert {expert}:<br>squared error {error:.2f}"
                for row in range(rows)
                for expert, error in zip(info.expert_E, info.error_RE[row], strict=True)
            ],
            hoverinfo="text",
            showlegend=False,
        )
    )
    names = [str(e) if alive else f"{e}<br>unused" for e, alive in zip(info.expert_E, info.alive_E, strict=True)]
    _bare(figure, left, columns, _PITCH * rows, aspect)
    figure.update_xaxes(tickvals=[left + 0.5, *(c + 0.5 for c in range(columns))], ticktext=["input", *names])
    figure.update_xaxes(side="top", title="decoded by expert")
    figure.update_yaxes(tickvals=[top + 0.5 for top in tops], ticktext=list(map(str, info.expert_E[:rows])))
    figure.update_yaxes(title="chosen expert")
    return figure


def path(info: LatentPath) -> go.Figure:
    """Images along a straight path, by the chosen expert and by the blend of all; gate probabilities below."""
    steps = len(info.expert_S)
    figure = style.figure(height=430)
    _place(figure, strip(info.chosen_SHW), 0, 0, steps)
    _place(figure, strip(info.blend_SHW), 0, 1, steps)
    met = sorted({info.start, info.end, *info.expert_S.tolist()})
    looks = list(zip(style.colours(len(met)), style.symbols(len(met)), style.dashes(len(met)), strict=True))
    middles = [step + 0.5 for step in range(steps)]
    for expert, gate_S in enumerate(info.gate_SE.T):
        named = expert in met
        colour, symbol, dash = looks[met.index(expert)] if named else (style.GREY, "circle", "solid")
        figure.add_scatter(
            x=middles,
            y=gate_S,
            yaxis="y2",
            mode="lines+markers" if named else "lines",
            name=f"expert {expert}",
            line={"color": colour, "width": 2 if named else 0.7, "dash": dash},
            marker={"symbol": symbol, "size": 8},
            hovertemplate=f"expert {expert}: %{{y:.3f}}<extra></extra>",
            showlegend=named,
        )
    _bare(figure, 0, steps, 2, _aspect(info.chosen_SHW))
    figure.update_xaxes(tickvals=middles, ticktext=[str(expert) for expert in info.expert_S])
    figure.update_xaxes(side="top", title="chosen expert")
    figure.update_layout(
        legend={"y": -0.02, "yanchor": "top"},
        yaxis={"tickvals": [0.5, 1.5], "ticktext": ["chosen", "blend"], "domain": [0.5, 1]},
        yaxis2={"domain": [0, 0.44], "range": [-0.03, 1.05], "title": "gate probability", "tickvals": [0, 0.5, 1]},
    )
    return figure


def gate_bars(gate_E: npt.NDArray[np.float32], chosen: int) -> go.Figure:
    """Gate probability of each expert; the chosen one is hatched and labelled."""
    experts = list(range(len(gate_E)))
    figure = style.figure(height=230, showlegend=False, bargap=0.25, margin={"t": 8})
    figure.add_bar(
        x=experts,
        y=gate_E,
        text=[f"{probability:.3f}" for probability in gate_E],
        textposition="outside",
        cliponaxis=False,
        marker={
            "color": [style.COLOURS[1 if expert == chosen else 0] for expert in experts],
            "pattern": {"shape": ["/" if expert == chosen else "" for expert in experts]},
        },
        hovertemplate="expert %{x}: %{y:.4f}<extra></extra>",
    )
    ticks = [f"<b>{expert}<br>chosen</b>" if expert == chosen else str(expert) for expert in experts]
    figure.update_xaxes(tickvals=experts, ticktext=ticks, title="expert", showgrid=False)
    figure.update_yaxes(title="gate probability", range=[0, 1.1], tickvals=[0, 0.5, 1])
    return figure


def _place(figure: go.Figure, pixels: Pixels, left: float, top: float, width: float) -> None:
    """Put a strip of unit squares into the figure's first axes."""
    figure.add_layout_image(
        source=png(pixels), xref="x", yref="y", x=left, y=top, sizex=width, sizey=1, sizing="stretch", layer="above"
    )


def _aspect(image: npt.NDArray[Any]) -> float:
    """Height of an image (..., H, W) of width 1."""
    return float(np.divide(*image.shape[-2:]))


def _bare(figure: go.Figure, left: float, right: float, bottom: float, aspect: float) -> None:
    """Set up the first axes for images in unit squares, which look `aspect` as high as wide: y downwards, no grid."""
    common: dict[str, Any] = {"showgrid": False, "zeroline": False, "ticks": "", "fixedrange": True}
    figure.update_xaxes(range=[left, right], constrain="domain", constraintoward="left", **common)
    figure.update_layout(
        yaxis={"range": [bottom, 0], "scaleanchor": "x", "scaleratio": aspect, "constrain": "domain", **common}
    )
    figure.update_layout(yaxis={"constraintoward": "top"})
