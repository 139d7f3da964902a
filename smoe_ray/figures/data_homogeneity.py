"""One expert on homogeneous, on heterogeneous and on more data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoe_ray.analysis.data_homogeneity import Condition, Homogeneity
from smoe_ray.figures import style
from smoe_ray.figures.comparison import ROW_INCHES, draw_forest, verdict_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS_INCHES = 4.2


@style.styled
def plot_homogeneity(info: Homogeneity) -> Figure:
    """Test loss of each condition, runs as points next to mean and s.d. over seeds; below, all differences."""
    forest_inches = 1.3 + ROW_INCHES * len(info.differences)
    figure = style.new_figure(width=10, height=_POINTS_INCHES + forest_inches)
    grid = figure.add_gridspec(2, 2, height_ratios=(_POINTS_INCHES, forest_inches), width_ratios=(4, 5))
    ax = figure.add_subplot(grid[0, :])
    alone = sorted({name for condition in info.conditions for name in condition.classes_alone})
    look_of = dict(zip(alone, zip(style.colours(len(alone)), style.markers(len(alone)), strict=True), strict=True))
    handle_of = {}
    for place, condition in enumerate(info.conditions):
        for member in condition.members:
            name = member.classes[0] if len(member.classes) == 1 else "several classes"
            colour, marker = look_of.get(name, (style.GREY, "."))
            (handle_of[name],) = ax.plot(
                [place + 0.12] * len(member.loss_R), member.loss_R, color=colour, marker=marker, linestyle="none"
            )
        mean = ax.errorbar(place, condition.mean, condition.sd, color="black", marker="_", markersize=14, capsize=3)
    ax.set_xlim(-0.5, len(info.conditions) - 0.5)
    ax.set_xticks(range(len(info.conditions)), [_label(condition) for condition in info.conditions])
    ax.grid(visible=False, axis="x")
    ax.set_ylabel(f"test loss, {info.gating} gating\n{style.unit_lines(info.unit)}")
    forest, words = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
    labels = [f"{difference.arm}\nagainst {difference.reference}" for difference in info.differences]
    draw_forest(forest, words, info.differences, labels, [("black", "o")] * len(labels))
    forest.set_xlim(info.x_limits)
    forest.set_xlabel(f"difference in test loss\n{style.unit_lines(info.unit)}")
    style.legend(figure, [mean, *handle_of.values()], ["mean ± s.d. over seeds", *handle_of])
    style.caption(
        figure,
        "one expert; points: single runs, each tested on its own classes",
        *((f"missing from the one-class mean: {len(info.untested)} classes",) if info.untested else ()),
        *verdict_text(info.differences, info.alpha),
    )
    return figure


def _label(condition: Condition) -> str:
    left_out = f"\n{condition.left_out} left out" if condition.left_out else ""
    return (
        f"{condition.label.replace(', ', chr(10))}\n{condition.steps:,.0f} steps\nn = {len(condition.loss_R)}{left_out}"
    )
