"""Studies: every study in OUT, its progress and its trials; refreshes while something runs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from ... import load, notes, page, row_table, study_tables, style, url_state
from . import PAGE, data

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
    """Table of studies, then the trials of the selected one."""
    place = st.container()
    studies = in_table(load.studies(), study)
    row = studies_table(studies, study)
    with place, page.boundary():
        page.answer(f"{study}:", data.answer(study))
    st.subheader(style.markdown(study), anchor=False)
    st.text(row["question"])
    with page.boundary():
        if warning := data.posterior_warning(study):
            st.warning(style.markdown(warning), icon=":material/warning:")
        trials_table(study)
    with st.container(horizontal=True):
        notes.form(study, [])
        for view in ("trials", "compare", "loss_surface", "routing", "collapse", "experts"):
            page.link(view, study=study)
        if data.is_search(study):
            page.link("search", study=study)


def in_table(studies: list[str], chosen: str) -> list[str]:
    """The studies without archived ones, which are hidden until they are asked for or chosen."""
    noted = {study: notes.of(study).study for study in studies}
    if any(one.archived for one in noted.values()) and not url_state.switch("Archived studies too", "archive"):
        studies = [study for study in studies if study == chosen or not noted[study].archived]
    return studies


def studies_table(studies: list[str], chosen: str) -> dict[str, Any]:
    """One row per study; a click selects one. Until all epochs are read, rows without their columns are shown."""
    place: Any = st
    if not all(map(load.is_read, studies)):
        place = st.empty()
        first = pd.DataFrame([data.study_row(study, with_best=False) for study in studies], columns=list(COLUMNS))
        place.dataframe(first, hide_index=True, column_config=COLUMNS)
    rows = [data.study_row(study, with_best=True) for study in studies]

    def choose(selected: list[str]) -> None:
        st.session_state["study"] = selected[0] if selected else chosen

    row_table.show(
        pd.DataFrame(rows, columns=list(COLUMNS)),
        studies,
        [chosen],
        "studies",
        choose,
        place=place,
        column_config=COLUMNS,
        alt="Studies",
    )
    return rows[studies.index(chosen)]


def trials_table(study: str) -> None:
    """The trials of a study; selecting one shows a link to its page."""
    frame, key = study_tables.trials(study), f"trials of {study}"
    chosen = st.session_state.get(f"chosen of {key}", [])
    row_table.show(
        frame.rename(columns=study_tables.TRIAL_HEADINGS),
        list(frame["trial_id"]),
        chosen,
        key,
        lambda selected: st.session_state.update({f"chosen of {key}": selected}),
        column_config=dict.fromkeys(("test loss", "soft loss", "gap", "effective", "test KL", "PSNR"), TWO_DECIMALS),
        height=row_table.height(len(frame), 320),
        alt=f"Trials of {study}",
    )
    for trial in frame[frame["trial_id"].isin(chosen)].to_dict("records"):
        label = f"Open trial {trial['trial_id']} ({trial['arm']}, seed {trial['seed']})"
        page.link("trial", label, study=study, trial=trial["trial_id"])


def show() -> None:
    """The page."""
    page.show(PAGE, body, watched=lambda _: load.studies())
