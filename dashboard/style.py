"""How every page looks: the figures' colour-blind-safe palette in Plotly's terms, and text of strangers made harmless.

Colours are explicit and read on light and dark alike; fonts, background and grid come from Streamlit's theme.
"""

from __future__ import annotations

import html
import itertools
import re
from typing import TYPE_CHECKING, Any

from smoe_ray.figures import style as figure_style

if TYPE_CHECKING:
    import plotly.graph_objects as go

GREY = "#8a8a8a"
COLOURS = (*figure_style.COLOURS[:-1], GREY)
"""The figures' palette; black, which is lost on a dark page, is a grey."""

HEIGHT = 420
"""Pixels of a chart, unless its content says otherwise."""

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$~:^=&@/])")


def colours(count: int) -> list[str]:
    """One colour per arm: the palette while it lasts, else equal steps of a perceptually uniform map."""
    return list(COLOURS[:count]) if count <= len(COLOURS) else sequence(count)


def sequence(count: int) -> list[str]:
    """Colours of an ordered quantity, dark to light."""
    from plotly.colors import sample_colorscale

    steps = [0.1 + 0.8 * step / max(count - 1, 1) for step in range(count)]
    return list(sample_colorscale("Viridis", steps))


def symbols(count: int) -> list[str]:
    """One marker per arm, so that colour is never the only difference (repeats after seven)."""
    return list(itertools.islice(itertools.cycle(_SYMBOLS), count))


def dashes(count: int) -> list[str]:
    """One kind of line per arm (repeats after six)."""
    return list(itertools.islice(itertools.cycle(_DASHES), count))


def figure(**layout: Any) -> go.Figure:
    """An empty figure with the common layout, over which `layout` goes."""
    import plotly.graph_objects as go

    common: dict[str, Any] = {
        "height": HEIGHT,
        "margin": {"l": 8, "r": 8, "t": 32, "b": 8},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
        "hoverlabel": {"align": "left"},
        "colorway": COLOURS,
    }
    made = go.Figure(layout={**common, **layout})
    made.update_xaxes(automargin=True)
    made.update_yaxes(automargin=True)
    return made


def whole_axis(span: int) -> dict[str, int]:
    """Ticks of a linear axis over `span` whole numbers (epochs), at whole numbers alone."""
    return {
        "tick0": 0,
        "dtick": next(step * 10**power for power in range(9) for step in (1, 2, 5) if span <= 8 * step * 10**power),
    }


def escape(text: object, limit: int = 120) -> str:
    """Text for Plotly (hover, names, tick labels), which would read some HTML: at most `limit` characters, inert."""
    return html.escape(plain(text, limit), quote=False)


def markdown(text: object, limit: int = 2000) -> str:
    """Text for what Streamlit reads as Markdown (messages, captions, tabs, radio options): inert, on one line."""
    return _MARKDOWN.sub(r"\\\1", plain(text, limit))


def plain(text: object, limit: int) -> str:
    """Text on one line, of at most `limit` characters, without what no reader sees."""
    # A few characters more than the limit are enough to know the first of them.
    words = " ".join(str(text)[: 4 * limit].split())
    shown = "".join(character for character in words if character.isprintable())
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
