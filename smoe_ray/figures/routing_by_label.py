"""Test loss of label-routed and of unsupervised arms, run by run."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from smoe_ray.analysis import LabelRouting
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_CELLS = 4
_MOST_ARMS = 30
_ROW_INCHES = 0.32
_LABEL_CHARACTERS = 40


@style.styled
def plot_label_routing(info: LabelRouting) -> Figure:
    """One panel per cell: runs and mean of each label-routed arm, then of each unsupervised one with a line across."""
    cells = info.cells[:_MOST_CELLS]
    labels = (*info.baselines, *info.arms)[:_MOST_ARMS]
    figure = style.new_figure(width=3.4 + 2.8 * len(cells), height=1.9 + _ROW_INCHES * len(labels))
    panels = figure.subplots(1, len(cells), squeeze=False, sharey=True)[0]
    colour_of = dict(zip(info.arms, style.colours(len(info.arms)), strict=True))
    for ax, cell in zip(panels, cells, strict=True):
        if len(info.cells) > 1:
            ax.set_title(cell)
        for row, label in enumerate(labels):
            _draw_runs(ax, row, info, cell, label, colour_of.get(label, style.GREY))
        ax.axhline(len(info.baselines) - 0.5, color=style.GREY, linewidth=0.8, linestyle=":")
        ax.set_yticks(range(len(labels)), [textwrap.shorten(label, _LABEL_CHARACTERS) for label in labels], fontsize=8)
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel(f"{info.measure}, {info.gating} gating\n{style.unit_lines(info.unit)}")
    style.caption(
        figure,
        "small: runs, large: their mean, with a line across for each unsupervised arm",
        *style.cut_text(len(cells), len(info.cells)),
    )
    return figure


def _draw_runs(ax: Axes, row: int, info: LabelRouting, cell: str, label: str, colour: object) -> None:
    runs = info.runs.get((cell, label), np.empty(0))
    marker = "s" if label in info.baselines else "o"
    ax.plot(runs, np.full(len(runs), row), color=colour, marker=marker, markersize=3, alpha=0.6, linestyle="none")
    if len(runs):
        ax.plot(runs.mean(), row, color=colour, marker=marker, markersize=8, markerfacecolor="none", linestyle="none")
        if label in info.arms:
            ax.axvline(runs.mean(), color=colour, linewidth=0.9, zorder=0)
