"""Survival of experts over training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from smoe_ray.analysis.survival import ExpertSurvival, Survival
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_BANDS = 6


@style.styled
def plot_expert_survival(info: ExpertSurvival) -> Figure:
    """Share of the experts still alive against epoch: one step line per arm, bands of one s.d. over runs."""
    from matplotlib.ticker import MaxNLocator

    figure = style.new_figure(width=7)
    ax = figure.subplots()
    handles = []
    banded = info.n_range[1] > 1 and len(info.arms) <= _MOST_BANDS
    colours, markers = style.colours(len(info.arms)), style.markers(len(info.arms))
    for arm, colour, marker in zip(info.arms, colours, markers, strict=True):
        handles += ax.plot(
            arm.epoch_T, arm.share_T, color=colour, marker=marker, markersize=3.5, drawstyle="steps-post"
        )
        if banded:
            ax.fill_between(arm.epoch_T, arm.low, arm.high, color=colour, alpha=0.15, linewidth=0, step="post")
    ax.set_ylim(0, 1.03)
    ax.set_xlabel("epoch")
    ax.set_ylabel("share of the configured experts\nstill alive")
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    style.legend(figure, handles, [_label_survival(arm) for arm in info.arms])
    style.caption(
        figure,
        "alive: has a test image at that epoch or later; never used: has none at any epoch, neither alive nor dead",
        f"line: Kaplan-Meier estimate over the experts of all runs of an arm ({style.runs_text(info.n_range)})",
        "half-life: first epoch at which half of the experts that were ever used, or fewer, are alive",
        *(("band: ± s.d. over runs",) if banded else ()),
        *style.unnamed_text(len(info.arms)),
    )
    return figure


def _label_survival(arm: Survival) -> str:
    lives = [_epochs(life, arm.epoch_T[-1]) for life in (arm.half_life, arm.half_life_R[0], arm.half_life_R[-1])]
    unit = "epoch" if arm.half_life == 1 else "epochs"
    runs = f"; runs {lives[1]} to {lives[2]}" if lives[1] != lives[2] else ""
    unused = f"; never used {100 * arm.never_used / arm.experts:.0f} %" if arm.never_used else ""
    return f"{arm.label} (half-life {lives[0]} {unit}{runs}{unused})"


def _epochs(life: float, last: float) -> str:
    return f"{life:g}" if math.isfinite(life) else f"> {last:g}"
