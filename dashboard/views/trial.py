"""Trial: one trial's spec, curves, terms of the loss, cost, place and error, and all of it to take away."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import pandas as pd
import streamlit as st

from dashboard import load, overview, page, selection, style
from dashboard.charts.trial import reconstruction_chart, terms_chart
from smoe_ray.analysis.curves import trial_curves
from smoe_ray.errors import ResultsError
from smoe_ray.figures import FIGURES, render
from smoe_ray.results import TrialRecord

FIGURES_OF_TRIAL = {"training_curves": "Curves", "usage_over_epochs": "Usage"}
_ENDINGS: tuple[Literal["svg", "png"], ...] = ("svg", "png")


def body(study: str) -> None:
    """The chosen trial, part by part."""
    titles = overview.titles(study)
    if not titles:
        st.info("No trial of this study has started yet.", icon=":material/info:")
        return
    trial_id = selection.one("Trial", list(titles), "trial", words=titles)
    found = load.results(study)
    rows = found.table[found.table["trial_id"] == trial_id]
    record, last = found.records[trial_id], dict(rows.iloc[-1])
    summary = overview.trials(study)
    outcome(record, summary[summary["trial_id"] == trial_id].iloc[0])
    with page.section("Curves"):
        page.chart(reconstruction_chart(trial_curves(rows, trial_id)), f"{trial_id}-reconstruction")
    with page.section("Terms of the training loss"):
        page.chart(terms_chart(trial_curves(rows, trial_id)), f"{trial_id}-terms")
    left, right = st.columns(2)
    with left, page.section("Cost, place and time"):
        facts = overview.facts(record, last)
        st.dataframe(pd.DataFrame({"": facts.keys(), " ": facts.values()}), hide_index=True)
    with right, page.section("Take away"):
        downloads(record, rows)
    with page.section("Spec"):
        st.code(overview.again(record), language="yaml", height=400)


def outcome(record: TrialRecord, row: pd.Series[Any]) -> None:
    """What became of the trial, and why."""
    with st.container(horizontal=True):
        st.metric("status", record.status)
        st.metric("epochs", overview.number(row, "epoch"))
        st.metric("test loss", overview.number(row, "test.reconstruction", "{:.2f}"), help="squared error per image")
        st.metric("soft gating", overview.number(row, "test.reconstruction_soft", "{:.2f}"))
        st.metric("gap", overview.number(row, "gap", "{:.2f}"), help="what choosing one expert costs against blending")
        active, configured = (overview.number(row, f"experts.{name}") for name in ("active", "configured"))
        st.metric("active experts", f"{active} of {configured}")
    if record.reason:
        st.info(style.markdown(f"Stopped early: {record.reason}"), icon=":material/content_cut:")
    if record.error:
        st.error(style.markdown(f"{record.error_kind or 'Error'}: {record.error}"), icon=":material/error:")
    if record.traceback:
        with st.expander("Traceback"):
            st.code(record.traceback[-20_000:], language=None)


def downloads(record: TrialRecord, rows: pd.DataFrame) -> None:
    """Epochs as CSV, figures as SVG and PNG (drawn when asked for), the spec as a study of its own."""
    name = f"{record.study}-{record.trial_id}"
    with st.container(horizontal=True):
        st.download_button(
            "Epochs (CSV)", lambda: rows.to_csv(index=False), f"{name}.csv", "text/csv", on_click="ignore"
        )
        study = overview.again(record)
        st.download_button("Run again (YAML)", study, f"{name}.yaml", "application/yaml", on_click="ignore")
    for kind, label in FIGURES_OF_TRIAL.items():
        with page.boundary(), st.container(horizontal=True):
            try:
                info = FIGURES[kind].info(rows)
            except ResultsError:  # it has failed, or has not got that far: there is nothing to take away
                continue
            for ending in _ENDINGS:
                file = f"{name}-{kind.replace('_', '-')}.{ending}"
                draw = partial(drawn, kind, info, ending)
                st.download_button(f"{label} ({ending.upper()})", draw, file, on_click="ignore")
    st.caption("Run again: save the YAML, then `smoe-ray check FILE` and `smoe-ray run FILE --out OUT`.")


def drawn(kind: str, info: Any, ending: Literal["svg", "png"]) -> bytes:
    """The figure as a file."""
    return render(FIGURES[kind].plot(info), ending)


page.show("trial", "What did one trial do, where did it run, and what did it cost?", body)
