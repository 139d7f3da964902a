"""Studies: every study in OUT, how far it is, and its trials. Refreshes itself while something runs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from ... import load, page, study_tables, style
from . import PAGE, data

REFRESH_SECONDS = {True: 3.0, False: 30.0}
"""Between two looks at OUT, while something runs and while nothing does."""

TWO_DECIMALS = st.column_config.NumberColumn(format="%.2f")

COLUMNS = {
    "study": st.column_config.TextColumn("study", width=105, pinned=True),
    "question": st.column_config.TextColumn("question", width=130),
    "state": st.column_config.TextColumn(
        "state", width=85, help="stopped?: trials have not ended, but for ten minutes nothing was written"
    ),
    "progress": st.column_config.ProgressColumn("progress", format=" ", min_value=0, max_value=100, width=65),
    "finished": st.column_config.TextColumn("done", width=75, help="finished, of the trials that are planned"),
    "running": st.column_config.NumberColumn("running", width=60),
    "failed": st.column_config.NumberColumn("failed", width=52),
    "pruned": st.column_config.NumberColumn("pruned", width=58),
    "best": st.column_config.TextColumn("best", width=58, help="of the finished trials, in the measure named last"),
    "collapsed": st.column_config.NumberColumn(
        "collapsed",
        width=72,
        format="percent",
        help="finished unsupervised trials that end with fewer than half of their experts",
    ),
    "updated": st.column_config.DatetimeColumn("updated", format="distance", width=100),
    "measure": st.column_config.TextColumn("measure"),
}


def body(study: str) -> None:
    """Everything is one fragment, so that it refreshes without the page around it."""
    runs = any(map(data.runs, load.studies()))
    st.fragment(run_every=REFRESH_SECONDS[runs])(live)(study, runs)


@page.boundary()  # a fragment that refreshes itself has none around it
def live(study: str, runs: bool) -> None:
    """Studies, then the trials of the chosen one. `runs`: whether something ran when the page was opened."""
    studies = load.studies()
    if study not in studies or any(map(data.runs, studies)) != runs:
        st.rerun()
    row = studies_table(studies, study)
    if st.session_state["study"] != study:  # a click in the table chose another one
        st.rerun()
    st.subheader(style.markdown(study), anchor=False)
    st.text(row["question"])
    with page.boundary():
        trials_table(study)
    with st.container(horizontal=True):
        for view in ("loss_surface", "routing", "collapse", "experts"):
            page.link(view, study=study)
        if data.is_search(study):
            page.link("search", study=study)


def studies_table(studies: list[str], chosen: str) -> dict[str, Any]:
    """Every study, a line each; a click chooses one. States come first: what needs the epochs may take longer."""
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
    """The trials of a study; a click on one leads to its page."""
    frame = study_tables.trials(study)
    chosen = st.dataframe(
        frame.rename(columns=study_tables.SHOWN),
        hide_index=True,
        column_config=dict.fromkeys(("test loss", "soft", "gap", "effective"), TWO_DECIMALS),
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
