"""Training curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoe_ray.analysis import TrainingCurves
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style.styled
def plot_training_curves(info: TrainingCurves) -> Figure:
    """Reconstruction error, or contrastive loss, against epoch: one panel per measure, one line per arm, bands of one
    s.d. over seeds.
    """
    from matplotlib.ticker import MaxNLocator

    figure = style.new_figure(width=6 if len(info.panels) == 1 else 8)
    axes = style.panels(figure, len(info.panels), columns=3)
    colour_of = dict(zip(info.arms, style.colours(len(info.arms)), strict=True))
    line_of = {}
    for ax, panel in zip(axes, info.panels, strict=True):
        ax.set_title(panel.title)
        ax.set_xlabel("epoch")
        ax.set_yscale("log")
        ax.set_ylim(info.error_limits)
        for curve in panel.curves:
            colour = colour_of[curve.label]
            # A single evaluation has no line: show it by a marker.
            marker = "o" if len(curve.x) == 1 else None
            (line_of[curve.label],) = ax.plot(curve.x, curve.mean, color=colour, marker=marker)
            ax.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    axes[0].set_ylabel(f"{info.name}\n{style.unit_lines(info.unit)}")
    axes[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.plain_log_axis(axes[0].yaxis, *info.error_limits)
    shown = [arm for arm in info.arms if arm in line_of]
    style.legend(figure, [line_of[arm] for arm in shown], shown)
    style.caption(figure, style.spread_text(info.n_range), *style.unnamed_text(len(shown)))
    return figure
