"""Style of all pages: the figures' colour-blind-safe palette for Plotly, and escaping of untrusted text.

Colours are explicit and legible on light and dark backgrounds; fonts, background and grid come from Streamlit's theme.
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
"""The figures' palette, with grey instead of black, which is invisible on a dark page."""

HEIGHT = 420
"""Default height of a chart, in pixels."""

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$~:^=&@/])")


def colours(count: int) -> list[str]:
    """One colour per arm: the palette if it is large enough, else equal steps of a perceptually uniform colour map."""
    return list(COLOURS[:count]) if count <= len(COLOURS) else sequence(count)


def sequence(count: int) -> list[str]:
    """Colours of an ordered quantity, dark to light."""
    from plotly.colors import sample_colorscale

    steps = [0.1 + 0.8 * step / max(count - 1, 1) for step in range(count)]
    return list(sample_colorscale("Viridis", steps))


def faint(colour: str, opacity: float) -> str:
    """One of these colours, which lets what is behind it shine through; `opacity` from 0 to 1."""
    from plotly.colors import hex_to_rgb, unlabel_rgb

    red, green, blue = hex_to_rgb(colour) if colour.startswith("#") else unlabel_rgb(colour)
    return f"rgba({red:.0f},{green:.0f},{blue:.0f},{opacity})"


def symbols(count: int) -> list[str]:
    """One marker per arm, so that arms never differ by colour alone (repeats after seven)."""
    return list(itertools.islice(itertools.cycle(_SYMBOLS), count))


def dashes(count: int) -> list[str]:
    """One line style per arm (repeats after six)."""
    return list(itertools.islice(itertools.cycle(_DASHES), count))


def figure(**layout: Any) -> go.Figure:
    """An empty figure with the common layout, updated by `layout`."""
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
    """Axis options that put ticks of a linear axis over `span` integers (epochs) at integers only."""
    return {
        "tick0": 0,
        "dtick": next(step * 10**power for power in range(9) for step in (1, 2, 5) if span <= 8 * step * 10**power),
    }


def escape(text: object, limit: int = 120) -> str:
    """Escape text for Plotly (hover, names, tick labels), which renders some HTML; at most `limit` characters."""
    return html.escape(plain(text, limit), quote=False)


def unit_lines(unit: str) -> str:
    """The unit of a loss for the title of an axis, its parenthesis on a line of its own."""
    return escape(unit).replace(" (", "<br>(")


def markdown(text: object, limit: int = 2000) -> str:
    """Escape text where Streamlit renders Markdown (messages, captions, tabs, radio options); on one line."""
    return _MARKDOWN.sub(r"\\\1", plain(text, limit))


def plain(text: object, limit: int) -> str:
    """Text on one line, without unprintable characters, at most `limit` characters long."""
    # Whitespace and unprintable characters may shrink it, so a multiple of the limit is taken.
    words = " ".join(str(text)[: 4 * limit].split())
    shown = "".join(character for character in words if character.isprintable())
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
