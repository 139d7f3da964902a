"""Routing comparisons: do arms differ in loss, in how experts divide the classes, in their latent spaces?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from smoe_ray.analysis import ArmComparison, probe_bars
from smoe_ray.errors import ResultsError
from smoe_ray.report import tables

from ... import page, style, trial_analysis, url_state
from ...study_tables import readable
from . import PAGE, charts, data, linked_maps

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

MAX_COMPARED = 4
NOT_FINISHED = "is no arm with a finished trial here (any more)"
PROBE_NOTE = (
    "Expert assignments, like both controls, are deterministic functions of the latent vector that the probe reads, "
    "so compare each bar with the controls rather than with an accuracy of 1."
)


def body(study: str) -> None:
    """Two or more arms side by side."""
    place = st.container()
    trials_of = trial_analysis.finished_trials(study)
    if len(trials_of) < 2:
        raise ResultsError(
            f"{study}: a comparison needs two arms with finished trials; this study has {len(trials_of)}"
        )
    label_of = {arm: label for arm, label in data.arm_ids(study).items() if label in trials_of}
    chosen = url_state.several(
        "Arms", list(label_of), "arms", list(label_of)[:2], words=label_of, limit=MAX_COMPARED, gone=NOT_FINISHED
    )
    arms = [label_of[arm] for arm in chosen]
    if len(arms) < 2:
        st.info("Select at least two arms.")
        return
    left, right = st.columns(2)
    with left:
        default = chosen[arms.index(data.baseline(trials_of, arms))]
        reference = label_of[url_state.one("Reference arm", chosen, "reference", default, words=label_of)]
    with right:
        seeds = sorted({seed for arm in arms for seed in trials_of[arm]})
        seed = int(url_state.one("Seed of the trials below", list(map(str, seeds)), "seed"))
    trials = [trials_of[arm].get(seed) or next(iter(trials_of[arm].values())) for arm in arms]
    with page.section("Difference in test loss"):
        show_difference(data.compare(study, tuple(arms), reference), place)
    with page.section("Experts and classes"):
        show_routing(trials)
    with page.section("Linear probes of the latent space"):
        if url_state.switch("Fit linear probes and their controls (seconds to a minute per arm)", "probes"):
            show_probes(trials)
    with page.section("t-SNE maps of the latent space"):
        if url_state.switch("Compute t-SNE maps (a few seconds per arm)", "maps"):
            linked_maps.show(trials)


def show_difference(compared: ArmComparison, place: DeltaGenerator) -> None:
    """Verdict in words, at `place`; intervals, and their numbers."""
    if compared.metric == "test.psnr":
        st.caption("The losses of these arms have different units, so their PSNR is compared: higher is better.")
    with place:
        for sentence in data.verdict(compared):
            page.answer(sentence)
    page.chart(charts.differences(compared), "differences")
    with st.expander("Numbers"):
        st.dataframe(readable(tables.differences(compared.differences)), hide_index=True)


def show_routing(trials: Sequence[trial_analysis.CachedTrialAnalysis]) -> None:
    """Agreement scores, then a contingency heatmap or a flow diagram per arm."""
    trials = data.with_embeddings(trials)
    st.dataframe(readable(data.agreements(trials)), hide_index=True)
    shape = url_state.choice("Show as", ["Heatmap", "Flow"], "routing")
    for trial, column in zip(trials, st.columns(2) * 2, strict=False):
        with column, page.boundary():
            st.caption(style.markdown(trial.title))
            draw = charts.contingency if shape == "Heatmap" else charts.flow
            page.chart(draw(trial.routing), f"routing-{trial.record.trial_id}")


def show_probes(trials: Sequence[trial_analysis.CachedTrialAnalysis]) -> None:
    """Accuracies with chance levels and controls."""
    measured = {trial.title: [trial.separability] for trial in data.with_embeddings(trials)}
    page.chart(charts.probes(probe_bars(measured)), "linear-probes")
    st.caption(PROBE_NOTE)


def show() -> None:
    """The page."""
    page.show(PAGE, body)
