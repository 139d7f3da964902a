"""Test loss over data, updates and experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smoe_ray.analysis import Diagonal, LossAgainstSamplesPerExpert, LossSurface
from smoe_ray.analysis.scaling import EFFORT_NAME
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.styled
def plot_loss_surface(info: LossSurface) -> Figure:
    """Cells on the log-log plane coloured by mean test loss, interpolation as filled contours, dashed diagonals."""
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    columns = min(3, len(info.surfaces))
    rows = -(-len(info.surfaces) // columns)
    figure = style.new_figure(width=6 if columns == 1 else 1 + 3 * columns, height=4 if rows == 1 else 3 * rows)
    levels = MaxNLocator(12).tick_values(*info.loss_range)
    colouring: dict[str, Any] = {"cmap": "viridis", "norm": Normalize(levels[0], levels[-1])}
    axes = style.panels(figure, len(info.surfaces), columns)
    points = None
    for ax, surface in zip(axes, info.surfaces, strict=True):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlim(info.x_limits)
        ax.set_ylim(info.experts_limits)
        ax.grid(visible=False)
        if surface.grid is not None:
            ax.contourf(surface.grid.x_G, surface.grid.experts_G, surface.grid.loss_GG, levels=levels, **colouring)
        for diagonal in info.diagonals:
            _plot_diagonal(ax, diagonal, info)
        points = ax.scatter(
            surface.x_C,
            surface.experts_C,
            c=surface.mean_C,
            s=26,
            edgecolors="white",
            linewidths=0.7,
            zorder=3,
            **colouring,
        )
        if len(axes) > 1:
            style.title(ax, surface.label, width=2.5, pad=16)
    style.plain_log_axis(axes[0].xaxis, *info.x_limits)
    style.plain_log_axis(axes[0].yaxis, *info.experts_limits, whole=True)
    effort = EFFORT_NAME[info.effort]
    interpolated = any(surface.grid is not None for surface in info.surfaces)
    for ax in axes[-columns:]:
        ax.set_xlabel(effort)
    style.label_y(figure, axes, columns, f"{info.counted} experts")
    assert points is not None
    bar = figure.colorbar(points, ax=axes, pad=0.08, aspect=30)
    bar.set_label(f"mean test loss, {info.gating} gating\n{style.unit_lines(info.unit)}")
    style.caption(
        figure,
        f"points: mean over runs, {style.runs_text(info.n_range)}",
        *(("colour between them: linear interpolation on the log-log plane",) if interpolated else ()),
        f"dashed: equal {effort} per {info.counted} expert",
        *style.cut_text(len(info.surfaces), info.num_available),
    )
    return figure


def _plot_diagonal(ax: Axes, diagonal: Diagonal, info: LossSurface) -> None:
    ax.plot(diagonal.x, diagonal.experts, color=style.GREY, linestyle="--", linewidth=0.8)
    leaves_at_top = diagonal.experts[1] == info.experts_limits[1]
    ax.annotate(
        style.short_number(diagonal.per_expert),
        (diagonal.x[1], diagonal.experts[1]),
        xytext=(0, 2) if leaves_at_top else (3, 0),
        textcoords="offset points",
        ha="center" if leaves_at_top else "left",
        va="bottom" if leaves_at_top else "center",
        fontsize=7,
        color=style.GREY,
    )


@style.styled
def plot_loss_against_samples_per_expert(info: LossAgainstSamplesPerExpert) -> Figure:
    """Mean and s.d. of the test loss against training images per active expert, one curve per amount of data."""
    columns = min(3, len(info.panels))
    rows = -(-len(info.panels) // columns)
    figure = style.new_figure(width=6 if columns == 1 else 1 + 2.6 * columns, height=4 if rows == 1 else 2.6 * rows)
    axes = style.panels(figure, len(info.panels), columns)
    look_of = dict(
        zip(
            info.amounts,
            zip(style.sequence(len(info.amounts)), style.markers(len(info.amounts)), strict=True),
            strict=True,
        )
    )
    line_of = {}
    for ax, panel in zip(axes, info.panels, strict=True):
        ax.set_xscale("log")
        ax.set_xlim(info.x_limits)
        if len(axes) > 1:
            style.title(ax, panel.title, width=2.3)
        for curve in panel.curves:
            colour, marker = look_of[curve.label]
            line_of[curve.label] = ax.errorbar(
                curve.x, curve.mean, curve.sd, color=colour, marker=marker, capsize=2, elinewidth=0.9
            )
    style.plain_log_axis(axes[0].xaxis, *info.x_limits)
    for ax in axes[-columns:]:
        ax.set_xlabel(f"{EFFORT_NAME[info.effort]} per {info.counted} expert")
    style.label_y(figure, axes, columns, f"test loss, {info.gating} gating\n{style.unit_lines(info.unit)}")
    shown = [amount for amount in info.amounts if amount in line_of]
    style.legend(figure, [line_of[amount] for amount in shown], shown)
    style.caption(figure, style.spread_text(info.n_range), *style.cut_text(len(info.panels), info.num_available))
    return figure
