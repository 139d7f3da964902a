"""Studies: every study in OUT, its progress and its trials; refreshes while something runs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from smoe_ray.columns import COLUMNS as REGISTRY

from ... import load, page, study_tables, style
from . import PAGE, data

REFRESH_SECONDS = {True: 3.0, False: 30.0}
"""Refresh interval, by whether a trial is running."""

TWO_DECIMALS = st.column_config.NumberColumn(format="%.2f")

COLUMNS = {
    "study": st.column_config.TextColumn("study", width=105, pinned=True),
    "question": st.column_config.TextColumn("question", width=130),
    "state": st.column_config.TextColumn(
        "state",
        width=85,
        help="interrupted: no process is training it, run it again to resume; "
        "stopped?: trials are unfinished, but nothing was written for ten minutes",
    ),
    "progress": st.column_config.ProgressColumn("progress", format=" ", min_value=0, max_value=100, width=65),
    "finished": st.column_config.TextColumn("done", width=75, help="finished trials of those planned"),
    "running": st.column_config.NumberColumn("running", width=60),
    "failed": st.column_config.NumberColumn("failed", width=52),
    "pruned": st.column_config.NumberColumn("pruned", width=58),
    "best": st.column_config.TextColumn("best", width=58, help="best finished trial by the metric in the last column"),
    "collapsed": st.column_config.NumberColumn(
        "collapsed",
        width=72,
        format="percent",
        help="share of finished unsupervised trials with fewer than half of their experts active at the end",
    ),
    "updated": st.column_config.DatetimeColumn("updated", format="distance", width=100),
    "metric": st.column_config.TextColumn("metric"),
}


def body(study: str) -> None:
    """Draw everything in one fragment, which refreshes without the rest of the page."""
    is_running = any(map(data.is_running, load.studies()))
    st.fragment(run_every=REFRESH_SECONDS[is_running])(live)(study, is_running)


@page.boundary()  # a fragment that reruns by itself is outside the page's boundary
def live(study: str, was_running: bool) -> None:
    """Table of studies, then the trials of the selected one. `was_running`: a trial ran when the page opened."""
    studies = load.studies()
    if study not in studies or any(map(data.is_running, studies)) != was_running:
        st.rerun()
    place = st.container()
    row = studies_table(studies, study)
    if st.session_state["study"] != study:  # a click in the table has selected another one
        st.rerun()
    with place, page.boundary():
        page.answer(f"{study}:", data.answer(study))
    st.subheader(style.markdown(study), anchor=False)
    st.text(row["question"])
    with page.boundary():
        if warning := data.posterior_warning(study):
            st.warning(style.markdown(warning), icon=":material/warning:")
        trials_table(study)
    with st.container(horizontal=True):
        for view in ("loss_surface", "routing", "collapse", "experts"):
            page.link(view, study=study)
        if data.is_search(study):
            page.link("search", study=study)


def studies_table(studies: list[str], chosen: str) -> dict[str, Any]:
    """One row per study; a click selects one. Until all epochs are read, rows without their columns are shown."""
    place = st.empty()
    if not all(map(load.is_read, studies)):
        first = pd.DataFrame([data.study_row(study, with_best=False) for study in studies], columns=list(COLUMNS))
        place.dataframe(first, hide_index=True, column_config=COLUMNS)
    rows = [data.study_row(study, with_best=True) for study in studies]
    key, at = f"studies, {chosen} chosen", studies.index(chosen)

    def choose() -> None:
        for row in st.session_state[key]["selection"]["rows"]:
            st.session_state["study"] = studies[row]

    place.dataframe(
        pd.DataFrame(rows, columns=list(COLUMNS)),
        hide_index=True,
        column_config=COLUMNS,
        on_select=choose,
        selection_mode="single-row",
        selection_default={"selection": {"rows": [at]}},
        key=key,
    )
    return rows[at]


def trials_table(study: str) -> None:
    """The trials of a study; selecting one shows a link to its page."""
    frame = study_tables.trials(study)
    chosen = st.dataframe(
        frame.rename(columns=lambda name: REGISTRY[name].heading),
        hide_index=True,
        column_config=dict.fromkeys(("test loss", "soft loss", "gap", "effective", "test KL"), TWO_DECIMALS),
        height=320,
        on_select="rerun",
        selection_mode="single-row",
        key=f"trials of {study}",
    )
    at = chosen["selection"]["rows"]
    if at and at[0] < len(frame):
        trial = frame.iloc[at[0]]
        label = f"Open trial {trial['trial_id']} ({trial['arm']}, seed {trial['seed']})"
        page.link("trial", label, study=study, trial=trial["trial_id"])


def show() -> None:
    """The page."""
    page.show(PAGE, body)
