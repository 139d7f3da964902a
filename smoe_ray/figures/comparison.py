"""Differences between arms with their intervals and verdicts, as a forest plot."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from smoe_ray.analysis.comparison import ArmComparison, Difference, row_names
from smoe_ray.columns import count
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_INCHES = 0.36
"""Height of one difference: two lines of small print."""

_MOST_ROWS = 40
_COLUMNS = ((0.0, "runs"), (0.17, "difference (interval)"), (0.56, "p"), (0.68, "verdict"))
"""Columns of text next to the intervals: position, as a fraction of the width, and heading."""
_LABEL_CHARACTERS, _LABEL_LINES = 26, 2
_VERDICT_CHARACTERS = 27
_WIDE = 4.0
"""An interval that ends farther from zero than this many times the usual one is cut: it would hide the others."""


@style.styled
def plot_comparison(info: ArmComparison) -> Figure:
    """Difference of every arm from the reference, one row per cell: interval, numbers and verdict."""
    shown = info.differences[:_MOST_ROWS]
    is_one_cell = len({difference.label for difference in shown}) == 1 < len(shown)
    # Rows that differ in their arms alone are named by them, where that fits, and need no legend.
    has_arms = is_one_cell and all(len(textwrap.wrap(one.arm, _LABEL_CHARACTERS)) <= _LABEL_LINES for one in shown)
    names = row_names(shown) if has_arms else [difference.label for difference in shown]
    figure = style.new_figure(width=10, height=1.3 + ROW_INCHES * len(shown))
    forest, words = figure.subplots(1, 2, width_ratios=(4, 5))
    colour_of = dict(zip(info.arms, style.colours(len(info.arms)), strict=True))
    marker_of = dict(zip(info.arms, style.markers(len(info.arms)), strict=True))
    handles = draw_forest(
        forest,
        words,
        shown,
        [textwrap.fill(name, _LABEL_CHARACTERS) for name in names],
        [(colour_of[difference.arm], marker_of[difference.arm]) for difference in shown],
    )
    cut = _cut(forest, shown, info.x_limits)
    measure = f"{info.measure}, {info.gating} gating" if info.unit else info.metric
    unit = f"\n{style.unit_lines(info.unit)}" if info.unit else ""
    forest.set_xlabel(textwrap.fill(f"{measure}: difference from {info.reference}", 60) + unit)
    handle_of = {difference.arm: handle for difference, handle in zip(shown, handles, strict=True)}
    if not has_arms:
        style.legend(figure, list(handle_of.values()), list(handle_of))
    style.caption(
        figure,
        *verdict_text(info.differences, info.alpha),
        *(("arrow: it goes on beyond the axis",) if cut else ()),
        *(("runs left out: no run of the same seed in the other arm",) if any(row.left_out for row in shown) else ()),
        *((f"cells with runs of only one arm left out: {len(info.one_sided)}",) if info.one_sided else ()),
        *((f"unfinished trials left out: {info.unfinished}",) if info.unfinished else ()),
        *style.cut_text(len(shown), len(info.differences)),
        *(() if has_arms else style.unnamed_text(len(handle_of))),
    )
    return figure


def _cut(forest: Axes, differences: Sequence[Difference], limits: tuple[float, float]) -> bool:
    """Set the limits of the axis; whether some intervals go beyond them, with an arrow where they do."""
    ends = [(one.estimate,) * 2 if one.interval == "none" else (one.low, one.high) for one in differences]
    reaches = [max(map(abs, each)) for each in ends]
    usual = [reach for reach in reaches if reach <= _WIDE * statistics.median(reaches)] if reaches else []
    if len(usual) == len(reaches):
        forest.set_xlim(limits)
        return False
    end = 1.05 * max(usual)
    low, high = max(limits[0], -end), min(limits[1], end)
    forest.set_xlim(low, high)
    for row, (lowest, highest) in enumerate(ends):
        for place, marker, is_beyond in ((low, "<", lowest < low), (high, ">", highest > high)):
            if is_beyond:
                forest.plot(place, row, color=style.GREY, marker=marker, markersize=5, clip_on=False, linestyle="none")
    return True


def verdict_text(differences: Sequence[Difference], alpha: float) -> tuple[str, ...]:
    """Caption: what the intervals are and how they relate to the verdicts."""
    methods = {difference.interval for difference in differences}
    kinds = [
        name for name, method in (("Student's t", "t"), ("studentised bootstrap", "bootstrap")) if method in methods
    ]
    tested = sum(difference.interval != "none" for difference in differences)
    if not tested:
        return ("nothing was tested: too few runs, or no spread between them",)
    corrected = f", corrected for {tested} differences (Holm)" if tested > 1 else ""
    return (
        f"interval ({' or '.join(kinds)}) excludes zero exactly if the verdict is lower or higher",
        f"at most {100 * alpha:g} % chance of any false verdict{corrected}",
    )


def draw_forest(
    forest: Axes,
    words: Axes,
    differences: Sequence[Difference],
    labels: Sequence[str],
    looks: Sequence[tuple[Any, str]],
) -> list[Any]:
    """Intervals on `forest`, one labelled row each, and their numbers on `words`; hollow: not distinguishable.

    Args:
        forest: left axes.
        words: right axes, of the same height.
        differences: one per row, from the top.
        labels: of the rows, at most two lines each.
        looks: colour and marker of each row.

    Returns:
        The drawn points, one per row.
    """
    handles = []
    forest.axvline(0, color=style.GREY, linewidth=1)
    for head, place in ((head, place) for place, head in _COLUMNS):
        words.text(place, -1, head, fontsize=7.5, color=style.GREY, va="center")
    for row, (difference, (colour, marker)) in enumerate(zip(differences, looks, strict=True)):
        forest.hlines(row, difference.low, difference.high, color=colour, linewidth=1.5)
        fill = colour if difference.distinguishable else "white"
        handles += forest.plot(
            difference.estimate, row, color=colour, marker=marker, markerfacecolor=fill, linestyle="none"
        )
        for (place, _), text in zip(_COLUMNS, _words(difference), strict=True):
            words.text(place, row, text, fontsize=7.5, va="center", linespacing=0.95)
    for ax in (forest, words):
        ax.set_ylim(len(differences) - 0.5, -1.5)
    forest.set_yticks(range(len(labels)), labels, fontsize=8)
    forest.grid(visible=False, axis="y")
    words.set(xlim=(0, 1), xticks=[], yticks=[])
    words.set_axis_off()
    return handles


def _words(difference: Difference) -> tuple[str, str, str, str]:
    runs = count(difference.n_arm, "pair") if difference.paired else f"{difference.n_arm} vs {difference.n_reference}"
    runs += f"\n({difference.left_out} left out)" if difference.left_out else ""
    verdict = textwrap.fill(difference.verdict, _VERDICT_CHARACTERS)
    if difference.interval == "none":
        return runs, _number(difference.estimate), "", verdict
    interval = f"{_number(difference.low)} to {_number(difference.high)}"
    p = "< 0.001" if difference.p_holm < 0.001 else f"{difference.p_holm:.3f}"
    return runs, f"{_number(difference.estimate)} ({interval})", p, verdict


def _number(value: float) -> str:
    return f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")
