"""Charts of a routing comparison: differences, probes, contingency, flow, and maps with linked selection.

Shapes: B images of a map, C classes, E experts.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from smoe_ray.analysis import ArmComparison, Difference, ProbeBar, ProbeBars, Routing
from smoe_ray.analysis.comparison import row_names
from smoe_ray.columns import format_cell

from ... import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from smoe_ray.analysis.curves import FloatArray, IntArray

_ROW = 44
"""Height of a row of labels, in pixels."""
_NAME_CHARACTERS = 30
_MAX_ROWS = 40
_MAX_WRITTEN_CLASSES = 12
_BLUES = ((0, "rgba(0,114,178,0.04)"), (1, "rgba(0,114,178,1)"))
"""From the page's background to full colour, for light and dark themes."""
_FULL = 0.55
"""Share above which a cell is too dark for the page's text colour."""
_LINK_ALPHA = 0.45


def differences(info: ArmComparison) -> go.Figure:
    """Difference of each arm from the reference, one row per cell: estimate and interval; hollow if indistinct."""
    shown = info.differences[:_MAX_ROWS]
    looks = zip(style.colours(len(info.arms)), style.symbols(len(info.arms)), strict=True)
    look_of = dict(zip(info.arms, looks, strict=True))
    figure = style.figure(height=110 + _ROW * len(shown), showlegend=False)
    for row, difference in enumerate(shown):
        colour, symbol = look_of[difference.arm]
        interval = [difference.low, difference.high]
        figure.add_scatter(x=interval, y=[row, row], mode="lines", line={"color": colour, "width": 3}, hoverinfo="skip")
        figure.add_scatter(
            x=[difference.estimate],
            y=[row],
            mode="markers",
            marker={"color": colour, "symbol": symbol if difference.distinguishable else f"{symbol}-open", "size": 12},
            hovertemplate=f"{'<br>'.join(_difference_text(difference))}<extra></extra>",
        )
    figure.add_vline(0, line={"color": style.GREY, "width": 1})
    names = [_wrapped(name) for name in row_names(shown)]
    figure.update_yaxes(
        tickvals=list(range(len(shown))), ticktext=names, range=[len(shown) - 0.5, -0.5], showgrid=False
    )
    measure = f"{info.measure}, {info.gating} gating, {info.unit}" if info.unit else info.metric
    axis = f"{style.escape(measure)}:<br>difference from {style.escape(info.reference)}"
    figure.update_xaxes(title=axis, range=info.x_limits, zeroline=False)
    return figure


def _difference_text(one: Difference) -> Iterator[str]:
    yield style.escape(f"{one.arm} against {one.reference}")
    yield style.escape(one.label)
    yield f"mean {format_cell('mean_arm', one.mean_arm)} against {format_cell('mean_reference', one.mean_reference)}"
    ends = f"{format_cell('low', one.low)} to {format_cell('high', one.high)}"
    yield f"difference {format_cell('estimate', one.estimate)}" + (f" ({ends})" if one.interval != "none" else "")
    yield f"p (Holm) {format_cell('p_holm', one.p_holm)}, Hedges' g {format_cell('effect', one.effect)}"
    yield style.escape(one.verdict)


def probes(info: ProbeBars) -> go.Figure:
    """Accuracy of linear probes, one panel per arm: bars with s.d., controls hatched, chance levels as markers."""
    from plotly.subplots import make_subplots

    count = len(info.panels)
    figure = make_subplots(
        rows=1,
        cols=count,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[_wrapped(p.title) for p in info.panels],
    )
    figure.update_layout(style.figure().layout)
    targets = [bar.target for bar in info.panels[0].bars]
    for column, panel in enumerate(info.panels, start=1):
        _draw_probes(figure, panel.bars, column)
    figure.update_yaxes(
        tickvals=list(range(len(targets))), ticktext=[_wrapped(name, 22) for name in targets], showgrid=False
    )
    figure.update_yaxes(range=[len(targets) - 0.5, -0.5])
    figure.update_xaxes(range=[0, 1.22], tickvals=[0, 0.5, 1], title="accuracy of a linear probe")
    figure.update_layout(height=150 + 2 * _ROW * 3, margin={"t": 90}, legend={"y": 1.16}, bargap=0.35)
    return figure


def _draw_probes(figure: go.Figure, bars: tuple[ProbeBar, ...], column: int) -> None:
    places = list(range(len(bars)))
    figure.add_bar(
        x=[bar.mean for bar in bars],
        y=places,
        orientation="h",
        error_x={"array": [bar.sd for bar in bars], "color": style.GREY},
        marker={
            "color": [style.GREY if bar.control else style.COLOURS[0] for bar in bars],
            "pattern": {"shape": ["/" if bar.control else "" for bar in bars]},
        },
        text=[_bar_text(bar) for bar in bars],
        textposition="outside",
        cliponaxis=False,
        hovertext=[_probe_text(bar) for bar in bars],
        hoverinfo="text",
        showlegend=False,
        row=1,
        col=column,
    )
    for name, field, symbol, colour in (
        ("chance: largest group", "majority", "diamond", style.COLOURS[4]),
        ("chance: permuted groups", "permuted", "x", style.COLOURS[1]),
    ):
        figure.add_scatter(
            x=[getattr(bar, field) for bar in bars],
            y=places,
            mode="markers",
            marker={"symbol": symbol, "color": colour, "size": 9},
            name=name,
            hovertemplate=f"{name}: %{{x:.3f}}<extra></extra>",
            showlegend=column == 1,
            row=1,
            col=column,
        )


def _bar_text(bar: ProbeBar) -> str:
    # The spaces leave room for the end of the interval.
    return "fewer than two groups" if math.isnan(bar.mean) else f"&nbsp;&nbsp;{format_cell('accuracy', bar.mean)}"


def _probe_text(bar: ProbeBar) -> str:
    kind = "control" if bar.control else "probe"
    return f"{style.escape(bar.target)} ({kind}): {format_cell('accuracy', bar.mean, bar.sd)}"


def contingency(info: Routing) -> go.Figure:
    """Images per class and active expert; colours and percentages are shares of the expert's images."""
    import plotly.graph_objects as go

    experts = info.reading_order
    names = [style.escape(name, _NAME_CHARACTERS) for name in info.class_names]
    share = info.class_given_expert_EC[experts]
    figure = style.figure(height=120 + 30 * len(experts))
    figure.add_trace(
        go.Heatmap(
            z=share,
            x=list(range(len(names))),
            y=list(range(len(experts))),
            customdata=info.count_EC[experts],
            zmin=0,
            zmax=1,
            colorscale=_BLUES,
            showscale=len(names) > _MAX_WRITTEN_CLASSES,
            colorbar={"title": {"text": "share of the<br>expert's images"}, "tickformat": ".0%", "thickness": 12},
            hovertext=[[f"expert {expert}, {name}" for name in names] for expert in experts],
            hovertemplate="%{hovertext}<br>%{customdata:,} images, %{z:.1%} of the expert's<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    if len(names) <= _MAX_WRITTEN_CLASSES:
        _write_shares(figure, share)
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names, showgrid=False, zeroline=False, side="top")
    labels = [f"expert {expert}" for expert in experts]
    figure.update_yaxes(tickvals=list(range(len(experts))), ticktext=labels, range=[len(experts) - 0.5, -0.5])
    figure.update_yaxes(showgrid=False, zeroline=False)
    return figure


def _write_shares(figure: go.Figure, share: FloatArray) -> None:
    """Write each share as a percentage, in the page's text colour, or in white on dark cells."""
    for cells, colour in ((share <= _FULL, None), (share > _FULL, "white")):
        rows, columns = cells.nonzero()
        figure.add_scatter(
            x=columns,
            y=rows,
            mode="text",
            text=[f"{one:.0%}" for one in share[cells]],
            textfont={"color": colour},
            hoverinfo="skip",
            showlegend=False,
        )


def flow(info: Routing) -> go.Figure:
    """Sankey diagram: test images from their class (left, its colour) to the expert that they are routed to."""
    import plotly.graph_objects as go

    classes, experts = len(info.class_names), info.reading_order.tolist()
    colours = style.colours(classes)
    links = [
        (c, place, info.count_EC[e, c])
        for c in range(classes)
        for place, e in enumerate(experts)
        if info.count_EC[e, c]
    ]
    source, target, value = zip(*links, strict=True) if links else ((), (), ())
    figure = style.figure(height=max(style.HEIGHT, 60 + 34 * max(classes, len(experts))))
    figure.add_trace(
        go.Sankey(
            arrangement="snap",
            node={
                "label": [*map(style.escape, info.class_names), *(f"expert {expert}" for expert in experts)],
                "color": [*colours, *([style.GREY] * len(experts))],
                "pad": 14,
                "thickness": 14,
                "line": {"width": 0},
                "hovertemplate": "%{label}: %{value:,.0f} images<extra></extra>",
            },
            link={
                "source": source,
                "target": [classes + place for place in target],
                "value": value,
                "color": [style.faint(colours[c], _LINK_ALPHA) for c in source],
                "hovertemplate": "%{source.label} to %{target.label}: %{value:,.0f} images<extra></extra>",
            },
        )
    )
    return figure


class ImageMap(NamedTuple):
    """Test images on a 2-D map, in groups, and which of them are highlighted."""

    xy_B2: FloatArray
    image_B: IntArray
    """Index of each point's image in the test set."""
    group_B: IntArray
    """Index into `names`."""
    names: tuple[str, ...]
    hue_G: IntArray
    """Colour index of each group; groups of one colour differ in their markers."""
    num_hues: int
    hover_B: tuple[str, ...]
    highlighted: frozenset[int] | None
    """Indices in the test set; None: nothing is highlighted."""


def image_map(info: ImageMap) -> go.Figure:
    """Points by group; others than the highlighted ones are faded. A point's `customdata` is its image's index."""
    colours = style.colours(info.num_hues)
    hues = info.hue_G.tolist()
    figure = style.figure(height=460, dragmode="lasso")
    for group, name in enumerate(info.names):
        members = (info.group_B == group).nonzero()[0]
        images = info.image_B[members].tolist()
        highlighted = info.highlighted
        figure.add_scatter(
            x=info.xy_B2[members, 0],
            y=info.xy_B2[members, 1],
            mode="markers",
            name=style.escape(name, _NAME_CHARACTERS),
            customdata=images,
            hovertext=[style.escape(info.hover_B[member]) for member in members],
            hovertemplate="%{hovertext}<extra></extra>",
            marker={"color": colours[hues[group]], "symbol": style.symbols(7)[_mark(hues, group)], "size": 5},
            selectedpoints=None
            if highlighted is None
            else [at for at, image in enumerate(images) if image in highlighted],
            selected={"marker": {"opacity": 1, "size": 7}},
            unselected={"marker": {"opacity": 0.12}},
        )
    figure.update_layout(legend={"itemsizing": "constant"})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return figure


def _mark(hues: list[int], group: int) -> int:
    """Index of the group's marker: its own if each group has its own colour, else its rank within its colour."""
    return group % 7 if len(set(hues)) == len(hues) else hues[:group].count(hues[group]) % 7


def _wrapped(text: str, width: int = _NAME_CHARACTERS) -> str:
    return "<br>".join(map(style.escape, textwrap.wrap(text, width)))
