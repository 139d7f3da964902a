"""Collapse: which experts are in use, never used or die, how often runs collapse, and at which ratio of penalties."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from smoe_ray.errors import ResultsError
from smoe_ray.report.sections import reading

from ... import page, style, url_state
from ...study_tables import readable
from . import PAGE, charts, data

GROUPINGS: tuple[data.Grouping, ...] = ("arm", "objective and size")
MAX_GROUPS = 12
MAX_ROWS = 40
MAX_TRIALS = 6
HEADS: dict[str, Any] = {
    "arm": "arm",
    "seed": "seed",
    "trial_id": "trial",
    "expert": "expert",
    "state": "state",
    "died": st.column_config.NumberColumn("died at epoch", format="%d"),
    "last_used": st.column_config.NumberColumn("last used at epoch", format="%d"),
    "revivals": "revivals",
    "last_epoch": st.column_config.NumberColumn("observed until epoch", format="%d"),
}


def body(study: str) -> None:
    """All sections of the page."""
    titles = data.titles(study)
    if not titles:
        raise ResultsError(f"{study}: no trial to show yet; run the study first")
    with page.boundary():
        page.answer(data.answer(study))
    sections = {
        "In use": show_in_use,
        "Rates and survival": show_survival,
        "Phase diagram": show_phase,
        "Not in use": show_unused,
        "Bimodality": show_bimodality,
    }
    with page.boundary():
        sections[url_state.choice("Show", list(sections), "part")](study)
    page.how_to_read(reading("collapse"))


def show_in_use(study: str) -> None:
    """Experts in use over epochs, in all trials and in those that the user selects."""
    titles = data.titles(study)
    chosen = url_state.several(
        "Trials shown individually", list(titles), "trials", list(titles)[:2], words=titles, limit=MAX_TRIALS
    )
    with page.section("Active and effective experts in all trials"):
        page.chart(charts.in_use(data.in_use(study, tuple(chosen))), "experts-in-use")
    with page.section("Expert usage over epochs"):
        for trial, column in zip(chosen, st.columns(2) * MAX_TRIALS, strict=False):
            with column, page.boundary():
                st.caption(style.markdown(titles[trial]))
                page.chart(charts.usage(data.usage(study, trial)), f"usage-{trial}")
        st.caption(
            "One band per expert, largest final share at the bottom; the number is that of the expert. Grey: dead, it "
            "receives no test image at the last epoch. An expert that was never used has no band."
        )


def pick_grouping(study: str) -> data.Grouping:
    """What runs are grouped by."""
    return url_state.choice("Group runs by", GROUPINGS, "groups", data.default_grouping(study))


def show_survival(study: str) -> None:
    """How often runs collapse, and how long experts live, by group."""
    grouping = pick_grouping(study)
    with page.section("Collapse rate"):
        show_rates(study, grouping)
    with page.section("Expert survival"):
        survival = data.survival(study, grouping)
        drawn = {arm.label for arm in survival.arms}
        label_of = {arm: label for arm, label in data.ids(study, grouping).items() if label in drawn}
        arms = list(label_of)
        shown = url_state.several(
            "Groups shown", arms, f"{grouping}s", arms[:MAX_GROUPS], words=label_of, limit=MAX_GROUPS
        )
        page.chart(charts.survival(survival, [label_of[arm] for arm in shown]), "survival")
        st.caption(
            "A line starts at the share of experts that were ever used: those that never were are neither alive nor "
            "dead. Half-life: half of the experts that were ever used, or fewer, are alive."
        )


def show_phase(study: str) -> None:
    """Share of the experts in use against the ratio of the weights."""
    with page.section("Phase diagram"):
        page.chart(charts.phase(data.phase(study)), "phase-diagram")


def show_unused(study: str) -> None:
    """Every expert that is not in use, with the time of its death."""
    with page.section("Experts that are not in use"):
        st.dataframe(data.unused(study).table, hide_index=True, column_config=HEADS)


def show_rates(study: str, grouping: data.Grouping) -> None:
    """Share of runs that collapse, with its interval."""
    found = data.rates(study, grouping)
    page.chart(charts.rates(found[:MAX_ROWS]), "collapse-rates")
    if len(found) > MAX_ROWS:
        st.caption(f"First {MAX_ROWS} of {len(found):,} groups.")
    numbers = pd.DataFrame(found).rename(columns={"label": "arm", "low": "share_low", "high": "share_high"})
    with st.expander("Numbers"):
        st.dataframe(readable(numbers), hide_index=True)


def show_bimodality(study: str) -> None:
    """Tests of the groups that have enough runs, or why there is none."""
    grouping = pick_grouping(study)
    with page.section("Are the final losses of each group bimodal?"):
        show_tests(study, grouping)


def show_tests(study: str, grouping: data.Grouping) -> None:
    """One row per group that can be tested."""
    with st.spinner("Testing against resampled losses ..."):
        found = data.bimodality(study, grouping)
    tested = [test for test in found if not test.verdict.startswith("cannot tell")]
    if not tested:
        raise ResultsError(f"bimodality test: {found[0].verdict} in every group; add seeds")
    rows = [
        {
            "arm": test.label,
            "verdict": test.verdict,
            "mean_low": test.means[0],
            "mean_high": test.means[1],
            "upper_share": test.upper_share,
            "delta_bic": test.delta_bic,
            "p_holm": test.p_holm,
            "n": test.n,
        }
        for test in tested
    ]
    st.dataframe(readable(pd.DataFrame(rows)), hide_index=True)


def show() -> None:
    """The page."""
    page.show(PAGE, body)
