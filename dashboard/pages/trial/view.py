"""Trial: one trial's spec, curves, loss terms, cost, host and error, and their downloads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import pandas as pd
import streamlit as st

from smoe_ray.analysis.curves import trial_curves
from smoe_ray.analysis.outcomes import loss_unit
from smoe_ray.analysis.posterior import posterior_warning
from smoe_ray.columns import COLUMNS, TEST
from smoe_ray.errors import ResultsError
from smoe_ray.figures import FIGURES, render
from smoe_ray.results import TrialRecord, to_csv

from ... import load, notes, page, progress, study_tables, style, url_state
from . import PAGE, data
from .charts import error_chart, terms_chart

FIGURES_OF_TRIAL = {"training_curves": "Curves", "usage_over_epochs": "Usage"}
_ENDINGS: tuple[Literal["svg", "png"], ...] = ("svg", "png")


def body(study: str) -> None:
    """All sections of the selected trial."""
    titles = data.titles(study)
    if not titles:
        st.info("No trial of this study has started yet.", icon=":material/info:")
        return
    trial_id = url_state.one("Trial", list(titles), "trial", words=titles, stays=True)
    found = load.results(study)
    rows = found.table[found.table["trial_id"] == trial_id]
    record, last = found.records[trial_id], dict(rows.iloc[-1])
    summary = study_tables.trials(study)
    row = summary[summary["trial_id"] == trial_id].iloc[0]
    with page.boundary():
        page.answer(data.answer(study, trial_id))
    with st.container(horizontal=True, vertical_alignment="center"):
        notes.show(notes.of(study).of(trial_id))
        notes.form(study, [trial_id])
    outcome(record, row, last, loss_unit(rows), posterior_warning(rows))
    with page.section("Curves"):
        page.chart(error_chart(trial_curves(rows, trial_id)), f"{trial_id}-reconstruction")
    with page.section("Terms of the training loss"):
        page.chart(terms_chart(trial_curves(rows, trial_id)), f"{trial_id}-terms")
    left, right = st.columns(2)
    with left, page.section("Cost, host and time"):
        facts = data.facts(record, last)
        st.dataframe(pd.DataFrame({"": facts.keys(), " ": facts.values()}), hide_index=True)
    with right, page.section("Downloads"):
        downloads(record, rows)
    with page.section("Spec"):
        st.code(data.rerun_yaml(record), language="yaml")


_OF_ROUTING = {
    "test.regret": "test loss above that of each image's best expert: what the gate's choice costs",
    "experts.max_violation": "largest load over mean load, less 1: 0 where every expert has as many test images",
    "experts.label_accuracy": "share of the test images that went to the expert of their class",
    "experts.nmi": "how much the expert of a test image tells of its class: 0 nothing, 1 all",
}


def outcome(record: TrialRecord, row: pd.Series[Any], last: Mapping[str, Any], unit: str, warning: str | None) -> None:
    """Status of the trial, its main numbers, a warning about them, and why it stopped or failed."""
    with st.container(horizontal=True):
        st.metric("status", record.status)
        total = f" of {progress.epochs_of(record)}" if record.status == "running" and record.data else ""
        st.metric("epochs", f"{data.number(row, 'epoch')}{total}")
        if record.spec.model.reconstructs:
            for name in ("test.reconstruction", "test.reconstruction_soft"):
                st.metric(COLUMNS[name].heading, data.number(row, name), help=unit)
            st.metric(
                "gap",
                data.number(row, "gap"),
                help="hard minus soft gating: the cost of choosing one expert instead of blending all",
            )
            st.metric(COLUMNS["test.psnr"].heading, data.number(row, "test.psnr"), help=COLUMNS["test.psnr"].unit)
        else:
            for column in (one for one in TEST if one.family == record.spec.model.family):
                st.metric(column.heading, data.number(row, column.name), help=column.unit)
        active, configured = (data.number(row, f"experts.{name}") for name in ("active", "configured"))
        st.metric("active experts", f"{active} of {configured}")
        for name, help_text in _OF_ROUTING.items():
            if data.is_measured(last, name):  # label accuracy: only where routing is by label
                st.metric(COLUMNS[name].heading, data.number(last, name), help=help_text)
        if record.spec.model.reconstructs:
            st.metric(COLUMNS["test.kl"].heading, data.number(row, "test.kl"), help=COLUMNS["test.kl"].unit)
            st.metric(COLUMNS["latent.active"].heading, data.latents(last))
    if warning:
        st.warning(style.markdown(warning), icon=":material/warning:")
    if record.status == "running" and load.is_abandoned(record):
        st.warning("No process is training it: it was interrupted. To resume, run the study again.")
    if record.reason:
        st.info(style.markdown(f"Stopped early: {record.reason}"), icon=":material/content_cut:")
    if record.error:
        st.error(style.markdown(f"{record.error_kind or 'Error'}: {record.error}"), icon=":material/error:")
    if record.traceback:
        with st.expander("Traceback"):
            st.code(record.traceback[-20_000:], language=None)


def downloads(record: TrialRecord, rows: pd.DataFrame) -> None:
    """Epochs as CSV, figures as SVG and PNG (rendered on click), the spec as a study that runs this trial alone."""
    name = f"{record.study}-{record.trial_id}"
    with st.container(horizontal=True):
        st.download_button("Epochs (CSV)", lambda: to_csv(rows), f"{name}.csv", "text/csv", on_click="ignore")
        study = data.rerun_yaml(record)
        st.download_button("Run again (YAML)", study, f"{name}.yaml", "application/yaml", on_click="ignore")
    for kind, label in FIGURES_OF_TRIAL.items():
        with page.boundary(), st.container(horizontal=True):
            try:
                info = FIGURES[kind].info(rows)
            except ResultsError:  # it failed, or has not got that far: there is no figure to download
                continue
            for ending in _ENDINGS:
                file = f"{name}-{kind.replace('_', '-')}.{ending}"
                draw = partial(drawn, kind, info, ending)
                st.download_button(f"{label} ({ending.upper()})", draw, file, on_click="ignore")
    st.caption("Run again: save the YAML, then `smoe-ray check FILE` and `smoe-ray run FILE --out OUT`.")


def drawn(kind: str, info: Any, ending: Literal["svg", "png"]) -> bytes:
    """Content of the figure's file."""
    return render(FIGURES[kind].plot(info), ending)


def show() -> None:
    """The page."""
    page.show(PAGE, body, progress=lambda study: progress.trial_line(study, st.query_params.get("trial")))
