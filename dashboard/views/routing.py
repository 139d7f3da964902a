"""Routing comparisons: do arms differ in loss, in how experts divide the classes, in their latent spaces?"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import closely, linked_maps, page, selection, style
from dashboard.charts import routing as charts
from smoe_ray.analysis import ArmComparison, probe_bars
from smoe_ray.errors import ResultsError
from smoe_ray.report import tables

MOST_COMPARED = 4
READING = (
    "An expert is a deterministic function of the latent vector that the probe reads, and so are both controls: "
    "what counts is the lead over them, not the height of a bar."
)


def body(study: str) -> None:
    """Two or more arms side by side."""
    trials_of = closely.finished_trials(study)
    if len(trials_of) < 2:
        raise ResultsError(f"{study}: a comparison needs two arms with a finished trial, there are {len(trials_of)}")
    arms = selection.several("Arms", list(trials_of), "arms", list(trials_of)[:2], most=MOST_COMPARED)
    if len(arms) < 2:
        st.info("Choose two or more arms.")
        return
    left, right = st.columns(2)
    with left:
        reference = selection.one("Compared with", arms, "reference", closely.baseline(trials_of, arms))
    with right:
        seeds = sorted({seed for arm in arms for seed in trials_of[arm]})
        seed = int(selection.one("Seed of the trials looked at closely", list(map(str, seeds)), "seed"))
    trials = [trials_of[arm].get(seed) or next(iter(trials_of[arm].values())) for arm in arms]
    with page.section("Difference in test loss"):
        show_difference(closely.compare(study, tuple(arms), reference))
    with page.section("Experts against classes"):
        show_routing(trials)
    with page.section("How well experts and classes are read from the latent space"):
        if selection.switch("Fit linear probes and their controls (seconds to a minute an arm)", "probes"):
            show_probes(trials)
    with page.section("Maps of the latent space"):
        if selection.switch("Compute t-SNE maps (some seconds an arm)", "maps"):
            linked_maps.show(trials)


def show_difference(compared: ArmComparison) -> None:
    """Verdict in words, intervals, and the numbers behind them."""
    for sentence in closely.verdict(compared):
        st.markdown(style.markdown(sentence))
    page.chart(charts.differences(compared), "differences")
    with st.expander("Numbers"):
        st.dataframe(closely.readable(tables.differences(compared.differences)), hide_index=True)


def show_routing(trials: Sequence[closely.CachedTrialAnalysis]) -> None:
    """Scores of agreement, then contingency or flow, a panel an arm."""
    trials = closely.with_embeddings(trials)
    st.dataframe(closely.readable(closely.agreements(trials)), hide_index=True)
    shape = selection.choice("Shown as", ["Heatmap", "Flow"], "routing")
    for trial, column in zip(trials, st.columns(2) * 2, strict=False):
        with column, page.boundary():
            st.caption(style.markdown(trial.title))
            draw = charts.contingency if shape == "Heatmap" else charts.flow
            page.chart(draw(trial.routing), f"routing-{trial.record.trial_id}")


def show_probes(trials: Sequence[closely.CachedTrialAnalysis]) -> None:
    """Accuracies with chance levels and controls."""
    measured = {trial.title: [trial.separability] for trial in closely.with_embeddings(trials)}
    page.chart(charts.probes(probe_bars(measured)), "linear-probes")
    st.caption(READING)


page.show("routing", "Do arms differ in loss, in what their experts take, in their latent spaces?", body)
