"""Experts against classes, and linear probes of the latent space."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from smoe_ray.analysis.expert_routing import Routing
from smoe_ray.analysis.latent_separability import ProbeBar, ProbeBars
from smoe_ray.columns import count
from smoe_ray.errors import ResultsError
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_WRITTEN_COLUMNS = 10
_MOST_NAME_CHARACTERS = 30
_MOST_LEVEL_CHARACTERS = 9


@style.styled
def plot_routing(info: Routing) -> Figure:
    """Heatmap of P(class | expert), one row per active expert; shares of experts on the right, of classes above."""
    experts = info.reading_order
    if not len(experts):
        raise ResultsError("routing: there are no images; evaluate on at least one test image")
    names = list(map(_shortened, info.class_names))
    written = len(names) <= _MOST_WRITTEN_COLUMNS
    longest = max(map(len, names))
    level = longest <= _MOST_LEVEL_CHARACTERS and written
    cells_width = len(names) * (0.65 if written else 0.25)
    cells_height = max(1.2, 0.27 * len(experts))
    figure = style.new_figure(
        width=max(5.5, 3 + cells_width), height=1.9 + cells_height + (0 if level else 0.075 * longest)
    )
    (above, corner), (cells, right) = figure.subplots(
        2, 2, sharex="col", sharey="row", width_ratios=(max(cells_width, 2), 1), height_ratios=(0.5, cells_height)
    )
    corner.remove()
    image = cells.imshow(info.class_given_expert_EC[experts], aspect="auto", cmap="Blues", vmin=0, vmax=1)
    cells.set_xticks(range(len(names)), names, rotation=0 if level else 90)
    cells.set_yticks(range(len(experts)), [f"{info.block} {expert}" for expert in experts])
    if written:
        _write_cells(cells, info)
    above.bar(range(len(names)), info.class_share_C, color=style.GREY, width=0.7)
    above.set_ylabel("share of\nimages")
    right.barh(range(len(experts)), info.share_E[experts], color=style.GREY, height=0.7)
    right.set_xlabel("share of images")
    cells.tick_params(length=0)
    for ax in (above, cells, right):
        ax.grid(visible=False)
    above.tick_params(labelbottom=False, length=0)
    right.tick_params(labelleft=False, length=0)
    figure.colorbar(image, ax=right, label=f"share of the\n{info.block}'s images", aspect=15, pad=0.15)
    style.caption(figure, *_routing_sentences(info))
    return figure


def _shortened(name: str) -> str:
    """Beginning and end of a long name: names of styles share their beginnings."""
    return name if len(name) <= _MOST_NAME_CHARACTERS else f"{name[:16]}…{name[-12:]}"


def _write_cells(ax: Axes, info: Routing) -> None:
    """Nonzero shares in per cent; white on dark cells."""
    for row, expert in enumerate(info.reading_order):
        for column, share in enumerate(info.class_given_expert_EC[expert]):
            if share > 0:
                colour = "white" if share > 0.55 else "black"
                ax.text(column, row, f"{share:.0%}", color=colour, fontsize=8, ha="center", va="center")


def _routing_sentences(info: Routing) -> list[str]:
    agreement = info.agreement
    scores = {
        "NMI": agreement.nmi,
        "AMI": agreement.ami,
        "ARI": agreement.ari,
        "Cramer's V": agreement.cramers_v,
        "purity": agreement.purity,
        "matched accuracy": agreement.matched_accuracy,
    }
    return [
        count(int(info.count_EC.sum()), "image"),
        f"{info.active} of {len(info.share_E)} {info.block}s are active and shown, exp(entropy) {info.effective:.2f}",
        ", ".join(f"{name} {_score_text(score)}" for name, score in scores.items()),
    ]


def _score_text(score: float) -> str:
    return "undefined" if math.isnan(score) else f"{score:.3f}"


@style.styled
def plot_probes(info: ProbeBars) -> Figure:
    """Accuracy of linear probes with spread and chance levels, one panel per arm; controls in grey."""
    columns = min(3, len(info.panels))
    rows = -(-len(info.panels) // columns)
    width = 6 if columns == 1 else 2 + 2.6 * columns
    figure = style.new_figure(width=width, height=2.6 if rows == 1 else 2.3 * rows)
    axes = style.panels(figure, len(info.panels), columns)
    handles: dict[str, Any] = {}
    for ax, panel in zip(axes, info.panels, strict=True):
        trials = f"\nn = {panel.trials}" if info.spread == "trials" else ""
        style.title(ax, panel.title + trials, width=4 if columns == 1 else 2.3)
        for row, bar in enumerate(panel.bars):
            handles |= _plot_probe(ax, row, bar)
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
    names = [textwrap.fill(bar.target, 24) for bar in info.panels[0].bars]
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    axes[0].set_xlim(0, 1.2)  # room for the numbers
    axes[0].set_xticks([0, 0.25, 0.5, 0.75, 1])
    for ax in axes[-columns:]:
        ax.set_xlabel("accuracy of a linear probe")
    style.legend(figure, list(handles.values()), list(handles))
    left_out = f"up to {count(info.left_out_images, 'image')} of groups with fewer than five images left out"
    style.caption(
        figure,
        f"mean ± s.d. over {info.spread}",
        "controls are deterministic functions of the latent vector, as experts are: compare experts with them",
        *((left_out,) if info.left_out_images else ()),
        *style.cut_text(len(info.panels), info.num_available),
    )
    return figure


def _plot_probe(ax: Axes, row: int, bar: ProbeBar) -> dict[str, Any]:
    """One bar; returns its legend handles by label."""
    if math.isnan(bar.mean):
        ax.text(0.02, row, "fewer than two groups", color=style.GREY, fontsize=8, va="center")
        return {}
    colour = "#b5b5b5" if bar.control else style.COLOURS[0]
    drawn = ax.barh(row, bar.mean, xerr=bar.sd, color=colour, height=0.62, error_kw={"capsize": 2, "elinewidth": 0.9})
    (majority,) = ax.plot([bar.majority], [row], "D", color=style.COLOURS[4], markersize=5)
    (permuted,) = ax.plot([bar.permuted], [row], "x", color="black", markersize=6, markeredgewidth=1.3)
    ax.text(bar.high + 0.02, row, f"{bar.mean:.3f}", fontsize=8, va="center")
    return {
        "control" if bar.control else "probe": drawn,
        "chance: largest group": majority,
        "chance: permuted groups": permuted,
    }
