"""Draw a doodle, or choose a test image as one, and see it routed.

Shapes: B test images, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from dashboard import inference, page, selection, style
from dashboard.charts import gallery
from dashboard.closely import CachedTrialAnalysis
from dashboard.doodle.canvas import canvas
from dashboard.doodle.strokes import Image, draw, parse_strokes
from smoe_ray.spec import CombinedData, DataSpec, DrawingColours, QuickDrawData, SyntheticData

PICTURE = 92
"""Width of a picture, in pixels."""
_INKS: dict[str, DrawingColours] = {"black on white": "black_on_white", "white on black": "white_on_black"}


@st.fragment
@page.boundary()  # a fragment shows what goes wrong in it by itself, as a traceback
def show(trial: CachedTrialAnalysis) -> None:
    """Canvas or test image at the left, what the model makes of it at the right."""
    model = inference.model(trial.record)
    image_HW = None
    left, right = st.columns([1, 2], gap="large")
    with left, page.boundary():
        image_HW = _doodle(trial, model.ink)
    with right, page.boundary():
        if image_HW is None:
            st.info("Draw something: the gate chooses an expert as soon as you lift the pen.")
        else:
            _show_look(trial, inference.look(model, image_HW, trial.embeddings))


def _doodle(trial: CachedTrialAnalysis, ink: DrawingColours | None) -> Image | None:
    if selection.choice("Doodle", ["draw", "test image"], "doodle") == "test image":
        image_BHW: Image = trial.embeddings["image"]
        number = selection.number("Test image", "image", 0, 0, len(image_BHW) - 1, 1)
        st.image(gallery.png(image_BHW[int(number)]), width=2 * PICTURE)
        st.caption(style.markdown(trial.class_names[trial.embeddings["label"][int(number)]]))
        return np.asarray(image_BHW[int(number)])
    if ink is None:
        st.caption("The data of this trial do not say how they are inked.")
        ink = _INKS[selection.choice("Ink", list(_INKS), "ink")]
    drawing = parse_strokes(canvas("canvas", ink))
    if not _drawn_here(trial.record.spec.data):
        st.caption("The pictures of this trial were drawn by others: their lines may be thicker or thinner than yours.")
    return None if drawing is None else draw(drawing, ink)


def _drawn_here(data: DataSpec) -> bool:
    """Whether this project rasterised the data as it rasterises a doodle."""
    if isinstance(data, CombinedData):
        return all(map(_drawn_here, data.parts.values()))
    return isinstance(data, SyntheticData) or (isinstance(data, QuickDrawData) and data.layout == "sketchrnn")


def _show_look(trial: CachedTrialAnalysis, look: inference.Look) -> None:
    """Gate, chosen expert, everybody's attempt, test images like it."""
    chosen = look.expert
    st.markdown(f"The gate chooses **expert {chosen}** with probability {look.gate_E[chosen]:.3f}.")
    _pictures({"as the model sees it": look.image_HW, f"expert {chosen} draws": look.decoded_EHW[chosen]}, 2 * PICTURE)
    page.chart(gallery.gate_bars(look.gate_E, chosen), "gate")
    st.markdown("**Every expert's attempt** and its squared error (sum over 784 pixels)")
    attempts = zip(look.error_E, look.decoded_EHW, strict=True)
    _pictures({f"{expert}: {error:.1f}": image_HW for expert, (error, image_HW) in enumerate(attempts)}, PICTURE)
    st.markdown("**Nearest test images** in the latent space: number, class, and the expert that takes it")
    kept = trial.embeddings
    names = trial.class_names
    words = [f"{place}: {names[kept['label'][place]]}, expert {kept['expert'][place]}" for place in look.nearest_N]
    _pictures(dict(zip(words, kept["image"][look.nearest_N], strict=True)), PICTURE)


def _pictures(image_of: Mapping[str, npt.NDArray[Any]], width: int) -> None:
    """Pictures in a row, or as many rows as it takes, with their captions."""
    with st.container(horizontal=True, gap="small"):
        for caption, image_HW in image_of.items():
            st.image(gallery.png(image_HW), style.markdown(caption), width=width)
