"""Streamlit component: a canvas to draw on with mouse, pen or finger."""

from __future__ import annotations

import streamlit as st

from smoe_ray.spec import DrawingColours

from .strokes import CANVAS_UNITS, MAX_POINTS, MAX_STROKES

_HTML = """
<canvas width="640" height="640" role="img"></canvas>
<div class="buttons">
  <button type="button" class="undo">Undo</button>
  <button type="button" class="clear">Clear</button>
  <span class="full" role="status"></span>
</div>
"""

_CSS = """
canvas {
  display: block; box-sizing: border-box; width: 100%; max-width: 320px; aspect-ratio: 1;
  border: 1px solid var(--st-border-color); border-radius: var(--st-base-radius);
  cursor: crosshair; touch-action: none;
}
.buttons { display: flex; gap: 0.5rem; align-items: center; margin-top: 0.5rem; }
button {
  font: inherit; font-family: var(--st-font); color: var(--st-text-color); background: var(--st-background-color);
  border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius);
  padding: 0.25rem 0.75rem; min-height: 2.5rem; cursor: pointer;
}
button:hover:enabled { color: var(--st-primary-color); border-color: var(--st-primary-color); }
button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
button:disabled { opacity: 0.4; cursor: not-allowed; }
.full { font-family: var(--st-font); color: var(--st-text-color); font-size: 0.875rem; }
"""

# Called when the component appears and after each run of the page. Strokes are kept on the element, so that one drawn
# while the page runs is not lost; only a new element takes the strokes from the page's memory.
_JS = """
const LEAST_STEP = 3  // canvas units between two points of a stroke

export default function ({ parentElement, data, setStateValue }) {
  const canvas = parentElement.querySelector("canvas")
  const undo = parentElement.querySelector(".undo")
  const clear = parentElement.querySelector(".clear")
  const full = parentElement.querySelector(".full")
  canvas.strokes ??= remembered()
  const strokes = () => canvas.strokes
  const points = () => strokes().reduce((sum, stroke) => sum + stroke.length, 0)
  const isFull = () => points() >= data.max_points || strokes().length >= data.max_strokes

  function remembered() {
    try { return JSON.parse(data.drawing) } catch { return [] }
  }

  function paint() {
    const white = data.ink === "white_on_black"
    const pen = canvas.getContext("2d")
    const scale = canvas.width / data.units
    pen.fillStyle = white ? "#000" : "#fff"
    pen.fillRect(0, 0, canvas.width, canvas.height)
    pen.strokeStyle = white ? "#fff" : "#000"
    pen.lineWidth = canvas.width * 3 / 56  // as the raster: 3 pixels of 56
    pen.lineCap = pen.lineJoin = "round"
    for (const stroke of strokes()) {
      pen.beginPath()
      pen.moveTo(stroke[0][0] * scale, stroke[0][1] * scale)
      for (const [x, y] of stroke) pen.lineTo(x * scale + 0.01, y * scale)  // a line of length zero would be invisible
      pen.stroke()
    }
    undo.disabled = clear.disabled = !strokes().length
    full.textContent = isFull() ? "The canvas is full." : ""
    const count = strokes().length
    canvas.ariaLabel = "Drawing area, " + (count === 1 ? "1 stroke" : count + " strokes")
  }

  function send() {
    paint()
    setStateValue("drawing", JSON.stringify(strokes()))
  }

  function place(event) {
    const box = canvas.getBoundingClientRect()
    const units = (offset, length) => Math.round(Math.min(Math.max(offset / length, 0), 1) * data.units)
    return [units(event.clientX - box.left, box.width), units(event.clientY - box.top, box.height)]
  }

  canvas.onpointerdown = (event) => {
    if (event.button || !event.isPrimary || isFull()) return
    canvas.setPointerCapture(event.pointerId)
    strokes().push([place(event)])
    canvas.drawing = true
    paint()
  }
  canvas.onpointermove = (event) => {
    if (!canvas.drawing || !event.isPrimary || points() >= data.max_points) return
    const stroke = strokes().at(-1)
    const [x, y] = place(event)
    if (Math.hypot(x - stroke.at(-1)[0], y - stroke.at(-1)[1]) < LEAST_STEP) return
    stroke.push([x, y])
    paint()
  }
  canvas.onpointerup = canvas.onpointercancel = () => {
    if (!canvas.drawing) return
    canvas.drawing = false
    send()
  }
  undo.onclick = () => { strokes().pop(); send() }
  clear.onclick = () => { canvas.strokes = []; send() }
  paint()
}
"""

_component = st.components.v2.component("smoe_ray_doodle", html=_HTML, css=_CSS, js=_JS)


def canvas(key: str, ink: DrawingColours) -> object:
    """Show the canvas and return its strokes for `parse_strokes`: untrusted input of any type.

    Args:
        key: identifies the drawing, which is kept while other pages are shown.
        ink: colours of the canvas.
    """
    memory = f"{key}-kept"
    shown = _component(
        key=key,
        data={
            "ink": ink,
            "units": CANVAS_UNITS,
            "max_points": MAX_POINTS,
            "max_strokes": MAX_STROKES,
            "drawing": st.session_state.get(memory, "[]"),
        },
        default={"drawing": st.session_state.get(memory, "[]")},
        width=320,
        on_drawing_change=lambda: None,
    )
    # Streamlit drops the value of a widget that a page does not show.
    st.session_state[memory] = shown["drawing"]
    kept: object = shown["drawing"]
    return kept
