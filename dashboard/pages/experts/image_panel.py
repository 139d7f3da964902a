"""Shows how the model routes one image: a doodle, a test image, or one that is uploaded.

Shapes: B test images, E experts, H W pixels; images are (H, W) where they are grey, else (C, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from smoe_ray.analysis.gallery import stored_images
from smoe_ray.data.dataset import shape_in_words
from smoe_ray.figures.pictures import size_of, strip
from smoe_ray.results import TrialRecord
from smoe_ray.spec import CombinedData, DataSpec, DrawingColours, QuickDrawData, SyntheticData

from ... import page, style, url_state
from ...pictures import png
from ...trial_analysis import CachedTrialAnalysis
from . import charts, inference, uploads
from .canvas import canvas
from .strokes import Image, draw, ink_of_doodles, parse_strokes

IMAGE_WIDTH = 92
"""Width of a small image, in pixels."""
MAX_WIDTH = 240
"""Of any image: what the left column has room for."""


@st.fragment
@page.boundary()  # a fragment that reruns by itself is outside the page's boundary
def show(trial: CachedTrialAnalysis) -> None:
    """The image on the left, the model's output on the right."""
    model = inference.model(trial.record)
    ink = ink_of_doodles(trial.record)
    sources = ["test image", "upload"] if ink is None else ["draw", "test image", "upload"]
    image_HW = None
    left, right = st.columns([1, 2], gap="large")
    with left, page.boundary():
        source = url_state.choice("Image" if ink is None else "Doodle", sources, "doodle")
        if source == "test image":
            image_HW = _test_image(trial)
        elif source == "upload":
            image_HW = _uploaded(trial.record)
        elif ink is not None:
            image_HW = _doodle(trial.record.spec.data, ink)
    with right, page.boundary():
        if image_HW is not None:
            _show_output(trial, inference.route(model, image_HW, trial.embeddings))
        elif source == "draw":
            st.info("Draw something: the gate chooses an expert as soon as you lift the pen.")


def _test_image(trial: CachedTrialAnalysis) -> Image:
    image_BHW = stored_images(trial.embeddings)
    number = int(url_state.number("Test image", "image", 0, 0, len(image_BHW) - 1, 1))
    image_HW = np.asarray(image_BHW[number])
    _show_images({trial.class_names[trial.embeddings["label"][number]]: image_HW}, 2 * IMAGE_WIDTH)
    return image_HW


def _uploaded(record: TrialRecord) -> Image | None:
    """The image of a file that the reader sends, once there is one."""
    file = st.file_uploader("Image file", uploads.IMAGE_SUFFIXES, key="file")
    wanted = shape_in_words(uploads.shape(record))
    st.caption(f"It becomes an image as the model was trained on: {wanted}, stretched to fit.")
    return None if file is None else uploads.as_trained_on(file.getvalue(), record)


def _doodle(data: DataSpec, ink: DrawingColours) -> Image | None:
    drawing = parse_strokes(canvas("canvas", ink))
    if not _is_rasterised_here(data):
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
    st.markdown("**Every expert's reconstruction** and its squared error (sum over all values of the image)")
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
    """Images with captions, in as many rows as needed; small ones are `width` pixels wide."""
    with st.container(horizontal=True, gap="small"):
        for caption, image_HW in image_of.items():
            shown = min(round(size_of(image_HW, width)[0]), MAX_WIDTH)
            st.image(png(strip(image_HW[None])), style.markdown(caption), width=shown)
