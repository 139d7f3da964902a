"""Draws a doodle, or takes a test image as one, and shows how the model routes it.

Shapes: B test images, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from smoe_ray.spec import CombinedData, DataSpec, DrawingColours, QuickDrawData, SyntheticData

from ... import page, style, url_state
from ...pictures import png
from ...trial_analysis import CachedTrialAnalysis
from . import charts, inference
from .canvas import canvas
from .strokes import Image, draw, parse_strokes

IMAGE_WIDTH = 92
"""Width of an image, in pixels."""
_INKS: dict[str, DrawingColours] = {"black on white": "black_on_white", "white on black": "white_on_black"}


@st.fragment
@page.boundary()  # a fragment that reruns by itself is outside the page's boundary
def show(trial: CachedTrialAnalysis) -> None:
    """Canvas or test image on the left, the model's output on the right."""
    model = inference.model(trial.record)
    image_HW = None
    left, right = st.columns([1, 2], gap="large")
    with left, page.boundary():
        image_HW = _doodle(trial, model.ink)
    with right, page.boundary():
        if image_HW is None:
            st.info("Draw something: the gate chooses an expert as soon as you lift the pen.")
        else:
            _show_output(trial, inference.route(model, image_HW, trial.embeddings))


def _doodle(trial: CachedTrialAnalysis, ink: DrawingColours | None) -> Image | None:
    if url_state.choice("Doodle", ["draw", "test image"], "doodle") == "test image":
        image_BHW: Image = trial.embeddings["image"]
        number = url_state.number("Test image", "image", 0, 0, len(image_BHW) - 1, 1)
        st.image(png(image_BHW[int(number)]), width=2 * IMAGE_WIDTH)
        st.caption(style.markdown(trial.class_names[trial.embeddings["label"][int(number)]]))
        return np.asarray(image_BHW[int(number)])
    if ink is None:
        st.caption("The data of this trial do not record which colour is the ink.")
        ink = _INKS[url_state.choice("Ink", list(_INKS), "ink")]
    drawing = parse_strokes(canvas("canvas", ink))
    if not _is_rasterised_here(trial.record.spec.data):
        st.caption(
            "This trial's images were rasterised by other software: their lines may be thicker or thinner than yours."
        )
    return None if drawing is None else draw(drawing, ink)


def _is_rasterised_here(data: DataSpec) -> bool:
    """Whether this project rasterised the data as it rasterises a doodle."""
    if isinstance(data, CombinedData):
        return all(map(_is_rasterised_here, data.parts.values()))
    return isinstance(data, SyntheticData) or (isinstance(data, QuickDrawData) and data.layout != "bitmap")


def _show_output(trial: CachedTrialAnalysis, output: inference.Output) -> None:
    """Gate, chosen expert, every expert's reconstruction, nearest test images."""
    chosen = output.expert
    st.markdown(f"The gate chooses **expert {chosen}** with probability {output.gate_E[chosen]:.3f}.")
    _show_images(
        {"model input": output.image_HW, f"expert {chosen} draws": output.decoded_EHW[chosen]}, 2 * IMAGE_WIDTH
    )
    page.chart(charts.gate_bars(output.gate_E, chosen), "gate")
    st.markdown("**Every expert's reconstruction** and its squared error (sum over the pixels)")
    reconstructions = zip(output.error_E, output.decoded_EHW, strict=True)
    _show_images(
        {f"{expert}: {error:.1f}": image_HW for expert, (error, image_HW) in enumerate(reconstructions)}, IMAGE_WIDTH
    )
    st.markdown("**Nearest test images** in the latent space: index, class and chosen expert")
    stored = trial.embeddings
    names = trial.class_names
    words = [
        f"{place}: {names[stored['label'][place]]}, expert {stored['expert'][place]}" for place in output.nearest_N
    ]
    _show_images(dict(zip(words, stored["image"][output.nearest_N], strict=True)), IMAGE_WIDTH)


def _show_images(image_of: Mapping[str, npt.NDArray[Any]], width: int) -> None:
    """Images with captions, in as many rows as needed."""
    with st.container(horizontal=True, gap="small"):
        for caption, image_HW in image_of.items():
            st.image(png(image_HW), style.markdown(caption), width=width)
