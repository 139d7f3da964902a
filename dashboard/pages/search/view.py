"""Search: what an Optuna search tried, what it found, and what mattered."""

from __future__ import annotations

import streamlit as st

from ... import page, style, url_state
from . import PAGE, brush, charts, data

WEIGHTS = ("objective.lambda_balance", "objective.lambda_entropy")


def body(study: str) -> None:
    """All sections of the page."""
    history, remark = data.history(study)
    page.answer(data.answer(study))
    st.caption(style.markdown(f"{data.progress(study)} {remark}"))
    metrics = list(history.metrics)
    metric = url_state.one("Objective", metrics, "objective") if len(metrics) > 1 else metrics[0]
    objective = metrics.index(metric)

    with page.section("Optimisation history"):
        page.chart(data.drawn(study, "optimization_history", objective), "optimisation-history")
        st.caption("Pruned and failed trials have no value but keep their position in the order.")
    if len(metrics) > 1:
        with page.section("Pareto front"):
            others = [other for other in metrics if other != metric]
            against = url_state.one("Second objective", others, "against") if len(others) > 1 else others[0]
            page.chart(data.drawn(study, "pareto_front", objective, metrics.index(against)), "pareto-front")
            st.caption("On the front: no other trial is at least as good in all objectives and better in one.")
    with page.section("Parameter importances"):
        page.chart(data.drawn(study, "importances", objective), "importances")
        st.caption(
            "PED-ANOVA (arXiv:2304.10255): how far a parameter's distribution among the best trials (the top 10 %, at "
            "least five) differs from that among all. It is no significance test; with few trials, take it as a hint."
        )
    kept = None
    with page.section("Parallel coordinates"):
        ranges = brush.ranges()
        figure, inside = charts.brushed(history, objective, ranges)
        page.chart(figure, "parallel-coordinates")
        brush.listen("parallel-coordinates")
        st.caption("Drag along an axis to filter the lines and the table of trials; click on the axis to reset.")
        kept = inside if any(ranges) else None
    with page.section("Contour plot"):
        contour(study, objective, charts.parameters(history))
    with page.section("Trials"):
        table(study, kept)


def contour(study: str, objective: int, parameters: list[str]) -> None:
    """Contour plot of two parameters; by default of both weights of the loss if they were searched."""
    if len(parameters) < 2:
        st.info("A contour plot needs two parameters that vary among the finished trials.")
        return
    first, second = WEIGHTS if set(WEIGHTS) <= set(parameters) else parameters[:2]
    left, right = st.columns(2)
    with left:
        x = url_state.one("Horizontal axis", parameters, "x", first)
    with right:
        y = url_state.one("Vertical axis", parameters, "y", second)
    page.chart(data.drawn(study, "contour", objective, x, y), "contour")
    st.caption(
        "Points are measured: all finished trials that have both parameters, or an even selection of "
        f"{charts.MAX_IN_CONTOUR}. Colours are interpolated between points and extrapolated elsewhere."
    )


def table(study: str, kept: list[str] | None) -> None:
    """All trials that have ended, or those that are brushed, with links to their pages."""
    trials = data.trials(study)
    if kept is not None:
        st.caption(f"{len(kept):,} of {len(trials):,} trials are inside the brushed ranges.")
        trials = trials[trials["trial"].isin([data.link_of(study, trial) for trial in kept])]
    link = st.column_config.LinkColumn("trial", display_text=r"trial=(.*)$", help="Opens the trial's page.")
    best = st.column_config.CheckboxColumn("best", help="On the Pareto front; with one objective, the best.")
    st.dataframe(trials, hide_index=True, column_config={"trial": link, "best": best}, key="trials")


def show() -> None:
    """The page."""
    page.show(PAGE, body)
