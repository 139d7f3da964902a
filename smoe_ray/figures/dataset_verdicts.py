"""Test loss and active experts against configured experts, one column of panels per dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from smoe_ray.analysis import DatasetVerdict
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_DATASETS = 6
_PANEL_INCHES = 3.0


@style.styled
def plot_dataset_verdict(info: DatasetVerdict) -> Figure:
    """Above the test loss, on a scale of its own for each dataset, with the verdict as title; below active experts."""
    from matplotlib.ticker import MaxNLocator

    shown = info.datasets[:_MOST_DATASETS]
    has_active = any(verdict.active is not None for verdict in info.verdicts)
    width = max(6.0, 0.8 + _PANEL_INCHES * len(shown))
    figure = style.new_figure(width=width, height=5.6 if has_active else 3.4)
    rows = 2 if has_active else 1
    grid = figure.subplots(rows, len(shown), squeeze=False, height_ratios=(3, 2)[:rows], sharex="col")
    looks = zip(style.colours(len(info.arms)), style.markers(len(info.arms)), strict=True)
    look_of = dict(zip(info.arms, looks, strict=True))
    handle_of: dict[str, Any] = {}
    for column, name in zip(grid.T, shown, strict=True):
        verdicts = [verdict for verdict in info.verdicts if verdict.dataset == name]
        words = (f"{verdict.arm}: {verdict.in_words}" for verdict in verdicts)
        style.title(column[0], "\n".join([name, *words]), width=width / len(shown) - 0.4)
        for verdict in verdicts:
            colour, marker = look_of[verdict.arm]
            loss = verdict.loss
            look: dict[str, Any] = {"color": colour, "capsize": 2, "elinewidth": 0.9}
            handle_of[verdict.arm] = column[0].errorbar(
                loss.x, loss.mean, loss.sd, marker=marker, markerfacecolor="white", **look
            )
            at = loss.x == verdict.best.experts
            column[0].plot(loss.x[at], loss.mean[at], color=colour, marker=marker, linestyle="none", zorder=3)
            if verdict.active is not None:
                active = verdict.active
                column[1].errorbar(active.x, active.mean, active.sd, marker=marker, **look)
        counts = np.unique(np.concatenate([verdict.loss.x for verdict in verdicts]))
        if has_active:
            column[1].plot(counts, counts, color=style.GREY, linestyle=":", linewidth=1)
        column[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        column[-1].set_xlabel("configured experts")
    grid[0, 0].set_ylabel(f"test loss, {info.gating} gating\n{info.error}")
    if has_active:
        grid[1, 0].set_ylabel("active experts")
    style.legend(figure, list(handle_of.values()), list(handle_of))
    style.caption(
        figure,
        style.spread_text(info.n_range),
        "filled: lowest mean",
        *(("dotted: all experts active",) if has_active else ()),
        *(("loss: sum over the values of an image",) if info.unit is None else ()),
        "scales differ between datasets: compare shapes, not levels",
        f"at most {100 * info.alpha:g} % chance of any false verdict within a dataset (Holm)",
        *((info.caution[0].lower() + info.caution[1:],) if info.caution else ()),
        *style.cut_text(len(shown), len(info.datasets)),
    )
    return figure
