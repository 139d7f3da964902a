"""Maps of the latent space."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.maps import NEIGHBOURS, ColouredMap, Colouring
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL_INCHES = 3.2
_LEGEND_CHARACTERS = 44
_MOST_LEGEND_ENTRIES = 24
_RASTER_DPI = 200


@style.styled
def plot_map(info: ColouredMap) -> Figure:
    """The same map side by side, coloured by expert, by class and, if given, by style."""
    columns = len(info.colourings)
    legend_height = 0.15 + 0.17 * max(map(_legend_rows, info.colourings))
    figure = style.new_figure(width=_PANEL_INCHES * columns, height=_PANEL_INCHES + 0.9 + legend_height)
    # Points are rasterised, also in an SVG: tens of thousands of shapes make it too large to open.
    figure.set_dpi(_RASTER_DPI)
    # Legends have their own axes: those of the maps shrink to an equal aspect after the layout.
    maps, legends = figure.subplots(2, columns, height_ratios=(_PANEL_INCHES, legend_height), squeeze=False)
    for ax, below, colouring in zip(maps, legends, info.colourings, strict=True):
        _plot_colouring(ax, below, info, colouring)
    shaded = [f"{c.title}s" for c in info.colourings if len(c.names) > len(set(c.class_G.tolist()))]
    unnamed = [c for c in info.colourings if len(c.names) > _MOST_LEGEND_ENTRIES]
    style.caption(
        figure,
        f"t-SNE of {len(info.latent_map.xy_B2):,} latent vectors, perplexity {info.latent_map.perplexity:.3g}",
        f"trustworthiness {info.latent_map.trustworthiness:.3f} ({NEIGHBOURS} neighbours)",
        "axes, cluster sizes and distances between clusters are not meaningful",
        *((f"{' and '.join(shaded)}: shades of their most frequent class",) if shaded else ()),
        *(f"{len(c.names)} {c.title}s, too many to name" for c in unnamed),
    )
    return figure


def _plot_colouring(ax: Axes, below: Axes, info: ColouredMap, colouring: Colouring) -> None:
    from matplotlib.lines import Line2D

    colours = _shades(style.colours(info.num_classes), colouring)
    x, y = info.latent_map.xy_B2.T
    size = 2 if len(x) > 3000 else 8
    ax.scatter(x, y, s=size, c=colours[colouring.group_B], linewidths=0, rasterized=True)
    ax.set_title(f"by {colouring.title}")
    ax.set_aspect("equal")
    for axes in (ax, below):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    if len(colouring.names) <= _MOST_LEGEND_ENTRIES:
        handles = [Line2D([], [], linestyle="", marker="o", color=colour) for colour in colours]
        labels = _wrapped(colouring)
        columns = _legend_columns(labels)
        below.legend(handles, labels, loc="upper center", ncols=columns, handletextpad=0, columnspacing=1, borderpad=0)


def _shades(colour_C: list[Any], colouring: Colouring) -> npt.NDArray[np.float64]:
    """One colour per group, (G, 3): that of its class, from dark to light if several groups share a class."""
    from matplotlib.colors import to_rgb

    class_G = colouring.class_G.tolist()
    shades = []
    for group, label in enumerate(class_G):
        alike = class_G.count(label)
        lightness = np.linspace(-0.35, 0.6, alike)[class_G[:group].count(label)] if alike > 1 else 0.0
        target = np.ones(3) if lightness > 0 else np.zeros(3)
        shades.append((1 - abs(lightness)) * np.array(to_rgb(colour_C[label])) + abs(lightness) * target)
    return np.array(shades)


def _wrapped(colouring: Colouring) -> list[str]:
    return [textwrap.fill(name, _LEGEND_CHARACTERS - 6) for name in colouring.names]


def _legend_columns(labels: list[str]) -> int:
    longest = max(len(line) for label in labels for line in label.splitlines())
    return max(1, min(len(labels), _LEGEND_CHARACTERS // (longest + 4)))


def _legend_rows(colouring: Colouring) -> int:
    if len(colouring.names) > _MOST_LEGEND_ENTRIES:
        return 0
    labels = _wrapped(colouring)
    lines = max(label.count("\n") + 1 for label in labels)
    return -(-len(labels) // _legend_columns(labels)) * lines
