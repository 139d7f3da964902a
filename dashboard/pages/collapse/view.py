"""Collapse: which experts stay in use, which die and when, how often runs collapse, and at which ratio of penalties."""

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
MOST_GROUPS = 12
MOST_ROWS = 40
MOST_TRIALS = 6
HEADS: dict[str, Any] = {
    "arm": "arm",
    "seed": "seed",
    "trial_id": "trial",
    "expert": "expert",
    "died": st.column_config.NumberColumn("died at epoch", format="%d"),
    "last_used": st.column_config.NumberColumn("last used at epoch", format="%d"),
    "revivals": "revivals",
    "last_epoch": st.column_config.NumberColumn("watched to epoch", format="%d"),
}


def body(study: str) -> None:
    """Everything about the life of experts."""
    with st.expander("How to read this"):
        st.markdown(style.markdown(reading("collapse")))
    id_of = data.titles(study)
    if not id_of:
        raise ResultsError(f"{study}: no trial to show yet; run the study first")
    chosen = url_state.several("Trials shown one by one", list(id_of), "trials", list(id_of)[:2], most=MOST_TRIALS)
    with page.section("Active and effective experts of all trials"):
        page.chart(charts.in_use(data.in_use(study, tuple(id_of[title] for title in chosen))), "experts-in-use")
    with page.section("Usage over epochs"):
        for title, column in zip(chosen, st.columns(2) * MOST_TRIALS, strict=False):
            with column, page.boundary():
                st.caption(style.markdown(title))
                page.chart(charts.usage(data.usage(study, id_of[title])), f"usage-{id_of[title]}")
        st.caption("One band an expert, the largest final share at the bottom; grey: takes no test image at the end.")
    grouping = url_state.choice("Runs grouped by", GROUPINGS, "groups", data.usual_grouping(study))
    with page.section("How often runs collapse"):
        show_rates(study, grouping)
    with page.section("Survival of experts"):
        survival = data.survival(study, grouping)
        arms = [arm.label for arm in survival.arms]
        shown = url_state.several("Shown", arms, f"{grouping}s", arms[:MOST_GROUPS], most=MOST_GROUPS)
        page.chart(charts.survival(survival, shown), "survival")
    with page.section("Phase diagram"):
        page.chart(charts.phase(data.phase(study)), "phase-diagram")
    with page.section("Dead experts"):
        found = data.deaths(study)
        st.text(f"{len(found.dead):,} of {found.experts:,} experts in {found.trials:,} trials are dead at the end.")
        st.dataframe(found.dead, hide_index=True, column_config=HEADS)
    with page.section("One basin or two"):
        if url_state.switch("Test the final losses of each group (seconds)", "basins"):
            show_basins(study, grouping)


def show_rates(study: str, grouping: data.Grouping) -> None:
    """Share of the runs that collapse, with its interval."""
    found = data.rates(study, grouping)
    collapsed, runs = sum(rate.collapsed for rate in found), sum(rate.n for rate in found)
    st.text(
        f"{collapsed:,} of {runs:,} finished runs collapsed: fewer than half of their experts are active at the end."
    )
    page.chart(charts.rates(found[:MOST_ROWS]), "collapse-rates")
    if len(found) > MOST_ROWS:
        st.caption(f"First {MOST_ROWS} of {len(found):,} groups.")
    numbers = pd.DataFrame(found).rename(columns={"label": "arm", "low": "share_low", "high": "share_high"})
    with st.expander("Numbers"):
        st.dataframe(readable(numbers), hide_index=True)


def show_basins(study: str, grouping: data.Grouping) -> None:
    """Tests of the groups that have runs enough, or why there is none."""
    with st.spinner("Testing against resampled losses ..."):
        found = data.basins(study, grouping)
    tested = [test for test in found if not test.verdict.startswith("cannot tell")]
    if not tested:
        raise ResultsError(f"basin test: {found[0].verdict} in every group; add seeds")
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
