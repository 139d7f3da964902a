"""Linked t-SNE maps of several trials: images that are selected on one map are highlighted on all.

Shapes: B mapped images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from smoe_ray.analysis.gallery import stored_images
from smoe_ray.analysis.maps import NEIGHBOURS
from smoe_ray.figures.pictures import size_of, strip
from smoe_ray.results.trial import Arrays

from ... import page, style, url_state
from ...pictures import png
from ...trial_analysis import CachedTrialAnalysis, mapped_images
from .charts import ImageMap, image_map
from .data import with_embeddings

if TYPE_CHECKING:
    from smoe_ray.analysis.curves import FloatArray, IntArray

LASSO = "lasso selection"
MAX_PICTURES = 24
PICTURE_WIDTH = 64
"""Of a small image, in pixels."""


@st.fragment
@page.boundary()  # a fragment that reruns by itself is outside the page's boundary
def show(trials: Sequence[CachedTrialAnalysis]) -> None:
    """The maps, and classes and experts of the highlighted images."""
    trials = with_embeddings(trials)
    if len({trial.test_set for trial in trials}) > 1:
        st.info("These trials have different test images, so their maps cannot be linked; only the first one is shown.")
        trials = trials[:1]
    label_B = trials[0].embeddings["label"]
    place_B = mapped_images(len(label_B))
    left, right = st.columns(2)
    with left:
        by = url_state.choice("Colour by", ["class", "expert"], "colour")
    groups = _groups(trials, place_B)
    with right:
        wanted = url_state.one("Highlighted", [LASSO, *groups], "picked")
    memory = f"lasso {' '.join(trial.record.trial_id for trial in trials)}"
    lassoed: frozenset[int] = st.session_state.get(memory, frozenset())
    highlighted = groups.get(wanted, lassoed & frozenset(place_B.tolist()))
    for trial, column in zip(trials, st.columns(2) * 2, strict=False):
        with column, page.boundary():
            key = f"map-{trial.record.trial_id}"
            mapped = trial.sampled_map
            title = f"{trial.title}: {len(place_B):,} of {len(label_B):,} test images"
            trust = f"trustworthiness {mapped.trustworthiness:.3f} ({NEIGHBOURS} neighbours)"
            st.caption(style.markdown(f"{title}, {trust}"))
            figure = image_map(_coloured(trial, mapped.xy_B2, place_B, by, highlighted or None))
            page.chart(figure, key, on_select=partial(_store_lasso, memory, key), selection_mode=("box", "lasso"))
    st.caption(
        "In t-SNE, only neighbourhoods are meaningful: axes, cluster sizes and distances between clusters are not."
    )
    if highlighted:
        _show_highlighted(trials, sorted(highlighted), len(place_B))
        st.button("Clear selection", on_click=_clear, args=(memory,))
    else:
        st.caption(
            "Lasso points on a map, or choose a class or an expert, to highlight the same test images on every map."
        )


def _groups(trials: Sequence[CachedTrialAnalysis], place_B: IntArray) -> Mapping[str, frozenset[int]]:
    """Mapped images by class, and by expert of each trial: what can be highlighted without a pointer."""
    label_B = trials[0].embeddings["label"][place_B]
    names = trials[0].class_names
    found = {f"class {names[label]}": place_B[label_B == label] for label in np.unique(label_B)}
    for trial in trials:
        expert_B = trial.embeddings["expert"][place_B]
        found |= {f"expert {expert} of {trial.title}": place_B[expert_B == expert] for expert in np.unique(expert_B)}
    return {name: frozenset(images.tolist()) for name, images in found.items()}


def _store_lasso(memory: str, key: str) -> None:
    """Store the lasso selection of a map. Highlights are part of each figure, so all maps are redrawn."""
    points = st.session_state[key]["selection"]["points"]
    st.session_state[memory] = frozenset(int(np.ravel(point["customdata"])[0]) for point in points)
    st.session_state["picked"] = LASSO


def _clear(memory: str) -> None:
    """Clear the selection."""
    st.session_state[memory] = frozenset()
    st.session_state["picked"] = LASSO


def _coloured(
    trial: CachedTrialAnalysis, xy_B2: FloatArray, place_B: IntArray, by: str, highlighted: frozenset[int] | None
) -> ImageMap:
    stored = trial.embeddings
    label_B, expert_B = stored["label"][place_B], stored["expert"][place_B]
    names = trial.class_names
    hover_B = tuple(
        f"test image {place}: {names[label]}, expert {expert}"
        for place, label, expert in zip(place_B, label_B, expert_B, strict=True)
    )
    classes = np.arange(len(names))
    if by == "class":
        return ImageMap(xy_B2, place_B, label_B, names, classes, len(names), hover_B, highlighted)
    found = trial.routing
    order = found.reading_order
    hue_G = found.count_EC[order].argmax(axis=1)
    group_of = np.zeros(len(found.share_E), np.int64)
    group_of[order] = np.arange(len(order))
    experts = tuple(f"expert {expert}" for expert in order)
    return ImageMap(xy_B2, place_B, group_of[expert_B], experts, hue_G, len(names), hover_B, highlighted)


def _show_highlighted(trials: Sequence[CachedTrialAnalysis], highlighted: Sequence[int], mapped: int) -> None:
    """Number of highlighted images, their classes and experts, and some of the images."""
    stored: Arrays = trials[0].embeddings
    st.markdown(f"**{len(highlighted):,} of {mapped:,} images** are highlighted:")
    names = trials[0].class_names
    st.text(f"classes: {_shares([names[label] for label in stored['label'][highlighted]])}")
    for trial in trials:
        st.text(f"{trial.title}: {_shares([f'expert {expert}' for expert in trial.embeddings['expert'][highlighted]])}")
    shown = highlighted[:MAX_PICTURES]
    images = stored_images(stored)[shown]
    st.image(
        [png(strip(image[None])) for image in images],
        width=round(size_of(images, PICTURE_WIDTH)[0]),
        alt=[f"test image {place}: {names[stored['label'][place]]}" for place in shown],
    )
    if len(shown) < len(highlighted):
        st.caption(f"The first {len(shown)} of them are shown.")


def _shares(names: Sequence[str]) -> str:
    """Names by decreasing share."""
    found, count = np.unique(names, return_counts=True)
    order = np.argsort(-count, kind="stable")
    return ", ".join(f"{found[place]} {count[place] / len(names):.0%}" for place in order)
