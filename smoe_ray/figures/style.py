"""Common style of the figures: colours, sizes, legends, captions, ticks. matplotlib is imported on first use."""

from __future__ import annotations

import functools
import itertools
import math
import textwrap
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

GREY = "#6b6b6b"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colour-blind-safe palette, without its yellow, which is too faint on white."""

_LOG_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))
"""Tick values per decade, from sparse to dense."""
_MARKERS = "osD^vPX"
_MOST_LEGEND_ENTRIES = 24
_LABEL_INCHES_PER_CHARACTER = 0.075
_CAPTION_INCHES_PER_CHARACTER = 0.064
_UNIT_CHARACTERS = 50

_RC: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "text.parse_math": False,  # a label may contain any character of a study file, including $
}
# matplotlib's style is global to the process, and the dashboard draws in several threads.
_STYLE_LOCK = threading.RLock()

Info = TypeVar("Info")


def styled(plot: Callable[[Info], Figure]) -> Callable[[Info], Figure]:
    """Draw with this module's style regardless of the user's matplotlibrc, and restore the global style."""

    @functools.wraps(plot)
    def draw(info: Info) -> Figure:
        import matplotlib.style

        with _STYLE_LOCK, matplotlib.style.context(["default", _RC]):
            return plot(info)

    return draw


def new_figure(width: float = 6.0, height: float = 4.0) -> Figure:
    """An empty figure, size in inches, not registered with pyplot."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # Room for the outermost tick labels of neighbouring axes.
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08))


def panels(figure: Figure, count: int, columns: int, share: bool = True) -> list[Axes]:
    """`count` axes in rows of `columns`, with shared scales; only the outer ones have tick labels."""
    columns = min(columns, count)
    grid = figure.subplots(-(-count // columns), columns, sharex=share, sharey=share, squeeze=False)
    axes: list[Axes] = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    for above in axes[max(0, count - columns) : count]:
        above.xaxis.set_tick_params(labelbottom=True)
    return axes[:count]


def colours(count: int) -> list[Any]:
    """One colour per arm: the palette or, for more arms, equal steps of a perceptually uniform colormap."""
    return list(COLOURS[:count]) if count <= len(COLOURS) else sequence(count)


def sequence(count: int) -> list[Any]:
    """Colours of an ordered quantity, dark to light."""
    from matplotlib import colormaps

    steps = (step / max(count - 1, 1) for step in range(count))
    return [colormaps["viridis"](0.9 * step) for step in steps]


def markers(count: int) -> list[str]:
    """One marker per arm, so that colour is not the only difference (repeats after seven)."""
    return list(itertools.islice(itertools.cycle(_MARKERS), count))


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend above the axes, in as many columns as fit. The figure grows by its height; the axes keep their size."""
    if not 0 < len(labels) <= _MOST_LEGEND_ENTRIES:
        return
    characters = int(figure.get_figwidth() / _LABEL_INCHES_PER_CHARACTER)
    labels = [textwrap.fill(label, characters - 8) for label in labels]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = max(1, min(len(labels), characters // (longest + 6)))
    rows = -(-len(labels) // columns)
    lines = max(label.count("\n") + 1 for label in labels)
    figure.set_figheight(figure.get_figheight() + 0.18 * rows * lines)
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def title(ax: Axes, text: str, width: float, pad: float | None = None) -> None:
    """A title above the axes, wrapped to `width` inches."""
    lines = (textwrap.fill(line, int(width / _LABEL_INCHES_PER_CHARACTER)) for line in text.splitlines())
    ax.set_title("\n".join(lines), pad=pad)


def caption(figure: Figure, *sentences: str) -> None:
    """Caption below the axes: what was averaged over how many runs."""
    width = int(figure.get_figwidth() / _CAPTION_INCHES_PER_CHARACTER)
    text = "\n".join(textwrap.wrap("; ".join(sentences), width))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=GREY)


def runs_text(n_range: tuple[int, int]) -> str:
    """Number of runs behind a point."""
    low, high = n_range
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def unnamed_text(count: int) -> tuple[str, ...]:
    """Caption if there are too many arms for a legend."""
    return (f"{count} arms, dark to light in the order of their labels",) if count > _MOST_LEGEND_ENTRIES else ()


def cut_text(shown: int, available: int) -> tuple[str, ...]:
    """Caption if not everything is shown."""
    return (f"first {shown} of {available} shown",) if shown < available else ()


def label_y(figure: Figure, axes: Sequence[Axes], columns: int, text: str) -> None:
    """Label the common y axis: on the first axes if there is one row, else once for all rows."""
    if len(axes) <= columns:
        axes[0].set_ylabel(text)
    else:
        figure.supylabel(text, fontsize=9)


def unit_lines(unit: str) -> str:
    """The unit of a loss on as many lines as an axis has room for; several likelihoods have a long one."""
    return textwrap.fill(unit, _UNIT_CHARACTERS)


def spread_text(n_range: tuple[int, int]) -> str:
    """Caption: what points and spreads are, and over how many runs."""
    low, high = n_range
    if high == 1:
        return "single runs (n = 1)"
    return f"mean ± s.d. over runs, {runs_text(n_range)}" + (" (no spread where n = 1)" if low == 1 else "")


def plain_log_axis(axis: Axis, low: float, high: float, whole: bool = False) -> None:
    """Label a logarithmic axis that runs from `low` to `high` with plain numbers (only integers if `whole`)."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)))]
    even_steps = MaxNLocator(4, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high)  # for ranges within a decade
    ticks: list[float] = []
    for candidates in (*([power * step for power in powers for step in steps] for steps in _LOG_STEPS), even_steps):
        ticks = [float(tick) for tick in candidates if low <= tick <= high and (not whole or float(tick).is_integer())]
        if len(ticks) >= 3:
            break
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def short_number(value: float) -> str:
    """A number with a metric suffix: 350k, 1.5M, 17.5k, 20, 0.4."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"
