"""Streamlit component: tells the page which ranges are brushed on the axes of a parallel-coordinates chart.

Streamlit reports selections of points only. Plotly writes the ranges into the chart's data and emits `plotly_restyle`.
"""

from __future__ import annotations

import json
import math
from typing import Any

import streamlit as st

Ranges = list[list[tuple[float, float]]]
"""By axis, the brushed ranges; none: the axis does not filter."""

_KEY = "brush"
_MAX_CHARACTERS = 20_000

# Called when the component appears and after each run of the page. A chart may be drawn later, or anew.
_JS = """
export default function ({ data, setStateValue }) {
  const listen = () => {
    const plot = document.querySelector(`.st-key-${data.chart} .js-plotly-plot`)
    if (!plot?.on || plot.tellsItsBrush) return
    plot.tellsItsBrush = true
    plot.on("plotly_restyle", () => {
      const ranges = plot.data[0].dimensions.map(({ constraintrange: found }) =>
        !found?.length ? [] : Array.isArray(found[0]) ? found : [found])
      setStateValue("ranges", JSON.stringify(ranges))
    })
  }
  listen()
  const timer = setInterval(listen, 250)
  return () => clearInterval(timer)
}
"""

_component = st.components.v2.component("smoe_ray_brush", html="<span></span>", js=_JS)


def listen(chart: str) -> None:
    """Follow the chart with this key; `ranges` returns what is brushed on it."""
    _component(key=_KEY, data={"chart": chart}, default={"ranges": "[]"}, height=1, on_ranges_change=lambda: None)


def ranges() -> Ranges:
    """What was brushed when the page began to run; empty if nothing was, or if it cannot be read."""
    return parse_ranges((st.session_state.get(_KEY) or {}).get("ranges"))


def parse_ranges(sent: Any) -> Ranges:
    """Ranges from the untrusted text that the browser sent."""
    if not isinstance(sent, str) or len(sent) > _MAX_CHARACTERS:
        return []
    try:
        found = [[(float(low), float(high)) for low, high in axis] for axis in json.loads(sent)]
    except (ValueError, TypeError):
        return []
    return found if all(math.isfinite(end) for axis in found for ends in axis for end in ends) else []
