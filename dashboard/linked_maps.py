"""Maps of several trials side by side: images picked out on one are picked out on all.

Shapes: B mapped images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from dashboard import page, selection, style
from dashboard.charts import gallery
from dashboard.charts.routing import ImageMap, image_map
from dashboard.closely import CachedTrialAnalysis, mapped_images, with_embeddings
from smoe_ray.analysis.maps import NEIGHBOURS
from smoe_ray.results.trial import Arrays

if TYPE_CHECKING:
    from smoe_ray.analysis.curves import FloatArray, IntArray

BY_HAND = "what is circled on a map"
MOST_PICTURES = 24


@st.fragment
@page.boundary()  # a fragment shows what goes wrong in it by itself, as a traceback
def show(trials: Sequence[CachedTrialAnalysis]) -> None:
    """The maps, what is picked out, and of which classes and experts that is."""
    trials = with_embeddings(trials)
    if len({trial.test_set for trial in trials}) > 1:
        st.info("These trials have different test images: a selection would mean nothing on another map. Here is one.")
        trials = trials[:1]
    label_B = trials[0].embeddings["label"]
    place_B = mapped_images(len(label_B))
    left, right = st.columns(2)
    with left:
        by = selection.choice("Coloured by", ["class", "expert"], "colour")
    groups = _groups(trials, place_B)
    with right:
        wanted = selection.one("Picked out", [BY_HAND, *groups], "picked")
    memory = f"circled {' '.join(trial.record.trial_id for trial in trials)}"
    circled: frozenset[int] = st.session_state.get(memory, frozenset())
    picked = groups.get(wanted, circled & frozenset(place_B.tolist()))
    for trial, column in zip(trials, st.columns(2) * 2, strict=False):
        with column, page.boundary():
            key = f"map-{trial.record.trial_id}"
            mapped = trial.sampled_map
            title = f"{trial.title}: {len(place_B):,} of {len(label_B):,} test images"
            trust = f"trustworthiness {mapped.trustworthiness:.3f} ({NEIGHBOURS} neighbours)"
            st.caption(style.markdown(f"{title}, {trust}"))
            figure = image_map(_coloured(trial, mapped.xy_B2, place_B, by, picked or None))
            page.chart(figure, key, on_select=partial(_circle, memory, key), selection_mode=("box", "lasso"))
    st.caption("t-SNE: neighbours mean something; axes, sizes of clusters and distances between them do not.")
    if picked:
        _show_picked(trials, sorted(picked), len(place_B))
        st.button("Pick out nothing", on_click=_forget, args=(memory,))
    else:
        st.caption("Circle points on a map, or choose what to pick out, to see the same test images on every map.")


def _groups(trials: Sequence[CachedTrialAnalysis], place_B: IntArray) -> Mapping[str, frozenset[int]]:
    """Mapped images by class, and by expert of each trial: what can be picked out without a pointer."""
    label_B = trials[0].embeddings["label"][place_B]
    names = trials[0].class_names
    found = {f"class {names[label]}": place_B[label_B == label] for label in np.unique(label_B)}
    for trial in trials:
        expert_B = trial.embeddings["expert"][place_B]
        found |= {f"expert {expert} of {trial.title}": place_B[expert_B == expert] for expert in np.unique(expert_B)}
    return {name: frozenset(images.tolist()) for name, images in found.items()}


def _circle(memory: str, key: str) -> None:
    """Remember what was circled on a map. What is picked out is part of each figure, so all maps are drawn anew."""
    points = st.session_state[key]["selection"]["points"]
    st.session_state[memory] = frozenset(int(np.ravel(point["customdata"])[0]) for point in points)
    st.session_state["picked"] = BY_HAND


def _forget(memory: str) -> None:
    """Pick out nothing."""
    st.session_state[memory] = frozenset()
    st.session_state["picked"] = BY_HAND


def _coloured(
    trial: CachedTrialAnalysis, xy_B2: FloatArray, place_B: IntArray, by: str, picked: frozenset[int] | None
) -> ImageMap:
    kept = trial.embeddings
    label_B, expert_B = kept["label"][place_B], kept["expert"][place_B]
    names = trial.class_names
    hover_B = tuple(
        f"test image {place}: {names[label]}, expert {expert}"
        for place, label, expert in zip(place_B, label_B, expert_B, strict=True)
    )
    classes = np.arange(len(names))
    if by == "class":
        return ImageMap(xy_B2, place_B, label_B, names, classes, len(names), hover_B, picked)
    found = trial.routing
    order = found.reading_order
    hue_G = found.count_EC[order].argmax(axis=1)
    group_of = np.zeros(len(found.share_E), np.int64)
    group_of[order] = np.arange(len(order))
    experts = tuple(f"expert {expert}" for expert in order)
    return ImageMap(xy_B2, place_B, group_of[expert_B], experts, hue_G, len(names), hover_B, picked)


def _show_picked(trials: Sequence[CachedTrialAnalysis], picked: Sequence[int], mapped: int) -> None:
    """How many images, of which classes and experts, and some of them."""
    kept: Arrays = trials[0].embeddings
    st.markdown(f"**{len(picked):,} of {mapped:,} images** are picked out:")
    names = trials[0].class_names
    st.text(f"classes: {_shares([names[label] for label in kept['label'][picked]])}")
    for trial in trials:
        st.text(f"{trial.title}: {_shares([f'expert {expert}' for expert in trial.embeddings['expert'][picked]])}")
    shown = picked[:MOST_PICTURES]
    st.image(gallery.png(gallery.strip(kept["image"][shown])))
    if len(shown) < len(picked):
        st.caption(f"The first {len(shown)} of them.")


def _shares(names: Sequence[str]) -> str:
    """Names by falling share."""
    found, count = np.unique(names, return_counts=True)
    order = np.argsort(-count, kind="stable")
    return ", ".join(f"{found[place]} {count[place] / len(names):.0%}" for place in order)
