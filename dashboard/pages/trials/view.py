"""Trials: all trials of a study in one table: filter, group, sort, select, and open or compare what is selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from smoe_ray.columns import ABSENT, COLUMNS, COUNT, GENERAL, LOSS, SCORE, SHARE, count
from smoe_ray.errors import ResultsError
from smoe_ray.results.annotations import Annotations

from ... import notes, page, row_table, style, url_state
from ..compare.view import MAX_TRIALS
from . import PAGE, data, views

PINNED = st.column_config.TextColumn("arm", pinned=True, width="medium")
NOTED_COLUMNS: dict[str, Any] = {
    "star": st.column_config.TextColumn(notes.STAR, width=40, help="starred"),
    "tags": st.column_config.ListColumn("tags", width=110),
    "note": st.column_config.TextColumn("note", width="medium"),
}
HEIGHT = 440
MAX_FILTERS = 8
ACROSS = 3
FORMATS = {COUNT: "%d", LOSS: "%.2f", SHARE: "percent", SCORE: "%.3f", GENERAL: "%.3g"}


def body(study: str) -> None:
    """The answer, what is shown of which trials, and the table of trials or of groups."""
    found = data.trials(study)
    if found.table.empty:
        raise ResultsError(f"{study}: no trial to show yet; run the study first")
    noted = notes.of(study)
    page.answer(data.answer(study))
    words = {name: heading(name) for name in (*data.FIXED, *found.measures)}
    left, middle, right = st.columns(3)
    with left:
        keys = ["arm", "seed", "status", *found.settings, *found.following, *found.measures]
        by = url_state.several("Filter by", keys, "filter", words=words, limit=MAX_FILTERS)
    with middle:
        grouping = url_state.several(
            "Group by", ["arm", "seed", "status", *found.settings, *found.following], "group", words=words
        )
    with right:
        defaults = [name for name in data.DEFAULT_MEASURES if name in found.measures]
        measures = url_state.several("Measures", list(found.measures), "measures", defaults, words=words)
    filters = pick_filters(found.table, by, words)
    annotated = data.annotated(found.table, noted)
    table = data.filtered(pick_annotated(annotated, noted), filters)
    passing = f"{len(table):,} of {count(len(found.table), 'trial')}"
    if grouping:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(passing, width="content")
            views.show(study, noted.views)
        show_groups(data.groups(table, grouping, measures), grouping)
    else:
        marks, note = (
            [name for name in names if annotated[name].map(bool).any()] for names in (("star", "tags"), ("note",))
        )
        columns = [*data.FIXED, *marks, *found.settings, *measures, *note, "trial_id", *found.following]
        show_trials(study, table, columns, set(found.table["trial_id"]), passing)


def pick_annotated(table: pd.DataFrame, noted: Annotations) -> pd.DataFrame:
    """Trials with the chosen tags, starred ones, and archived ones, which are hidden until they are asked for."""
    if not noted.trials:
        return table
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        known = sorted({tag for one in noted.trials.values() for tag in one.tags})
        tags = set(url_state.several("Tags", known, "tags")) if known else set()
        starred = url_state.switch("Starred only", "starred")
        archived = url_state.switch("Archived too", "archived")
    kept = table["tags"].map(lambda of_trial: not tags or bool(tags & set(of_trial)))
    kept &= (table["star"] != "") | (not starred)
    return table[kept & (~table["archived"] | archived)]


def heading(name: str) -> str:
    """A column's heading; of a setting, its dotted path."""
    return COLUMNS[name].heading if name in COLUMNS else name


def pick_filters(table: pd.DataFrame, by: Sequence[str], words: dict[str, str]) -> dict[str, data.Listed | data.Range]:
    """A widget for each column that is filtered by: its values, or the ends of a range."""
    url_state.keep_only("is.", by)
    url_state.keep_only("from.", by)
    url_state.keep_only("to.", by)
    filters: dict[str, data.Listed | data.Range] = {}
    for start in range(0, len(by), ACROSS):
        for name, column in zip(by[start : start + ACROSS], st.columns(ACROSS), strict=False):
            listed, label = data.values(table[name]), words.get(name, name)
            with column:
                if listed is None:
                    ends = st.columns(2, vertical_alignment="bottom")
                    with ends[0]:
                        low = url_state.limit(f"{label} from", f"from.{name}", float(table[name].min()))
                    with ends[1]:
                        high = url_state.limit("to", f"to.{name}", float(table[name].max()))
                    filters[name] = data.Range(low, high)
                else:
                    filters[name] = data.Listed(frozenset(url_state.several(label, listed, f"is.{name}")))
    return filters


def show_groups(groups: pd.DataFrame, keys: Sequence[str]) -> None:
    """One row per group: number of finished trials, mean and s.d. of each measure."""
    st.dataframe(
        groups,
        hide_index=True,
        height=row_table.height(len(groups), HEIGHT),
        column_config={name: _column_of_group(name, name in keys) for name in map(str, groups)},
        placeholder=ABSENT,
        alt="Groups of trials",
    )
    st.caption("Mean and sample standard deviation (s.d.) over the n finished trials of a group.")


def _column_of_group(name: str, is_key: bool) -> Any:
    if is_key or name == "n":
        return st.column_config.Column(heading(name))
    of = name.removesuffix("_sd")
    form = FORMATS.get(COLUMNS[of].number_format, FORMATS[GENERAL])
    form = FORMATS[GENERAL] if form == FORMATS[COUNT] else form  # a mean of whole numbers is none
    return st.column_config.NumberColumn(heading(of) + (" s.d." if of != name else ""), format=form)


def show_trials(study: str, table: pd.DataFrame, columns: list[str], known: set[str], passing: str) -> None:
    """One row per trial; above them what can be done with those selected."""
    chosen = [trial for trial in st.query_params.get_all("trials") if trial in known]
    bar = st.container(horizontal=True, vertical_alignment="center")

    def choose(visible: list[str]) -> None:
        hidden = [trial for trial in chosen if trial not in set(table["trial_id"])]
        st.query_params["trials"] = [*hidden, *visible]

    row_table.show(
        table[columns],
        list(table["trial_id"]),
        chosen,
        f"all trials of {study}",
        choose,
        several=True,
        height=row_table.height(len(table), HEIGHT),
        column_config={name: column_of(name) for name in columns} | {"arm": PINNED},
        placeholder=ABSENT,
        alt="Trials",
    )
    with bar:
        st.caption(passing, width="content")
        show_selected(study, table.set_index("trial_id"), chosen)
        notes.form(study, chosen)
        views.show(study, notes.of(study).views)


def show_selected(study: str, table: pd.DataFrame, chosen: list[str]) -> None:
    """Links for the selected trials."""
    if not chosen:
        st.caption("Click a row to select it; tick boxes to select several and compare them.", width="content")
        return
    hidden = sum(trial not in table.index for trial in chosen)
    selected = f"{len(chosen):,} selected" + (f", {hidden:,} of them filtered out" if hidden else "")
    st.markdown(selected, width="content")
    if len(chosen) == 1:
        page.link("trial", "Open trial", study=study, trial=chosen[0])
    else:
        limited = f" the first {MAX_TRIALS}" if len(chosen) > MAX_TRIALS else ""
        page.link("compare", f"Compare{limited}", study=study, trials=chosen[:MAX_TRIALS])

    def clear() -> None:
        st.query_params.pop("trials", None)

    st.button("Clear", on_click=clear, type="tertiary")


def column_of(name: str) -> Any:
    """How a column is shown."""
    if name in NOTED_COLUMNS:
        return NOTED_COLUMNS[name]
    if name not in COLUMNS:
        return st.column_config.Column(name.removesuffix(".name").rpartition(".")[2], help=name)
    column = COLUMNS[name]
    if column.number_format not in FORMATS:
        return st.column_config.Column(column.heading)
    help_text = f"{name}: {style.markdown(column.unit)}" if column.unit else name
    return st.column_config.NumberColumn(column.heading, format=FORMATS[column.number_format], help=help_text)


def show() -> None:
    """The page."""
    page.show(PAGE, body)
