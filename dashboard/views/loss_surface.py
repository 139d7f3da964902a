"""Loss surface: test loss over data and experts (the paper's Figs. 6, 2, 7), and the experts that a budget asks for."""

from __future__ import annotations

import streamlit as st

from dashboard import page, selection, style, surfaces
from dashboard.charts import scaling as charts
from smoe_ray.analysis.scaling import EFFORT_NAME, Counted, Effort
from smoe_ray.report.sections import reading

FIGURES = ("surface", "experts", "samples per expert")
COUNTED: tuple[Counted, ...] = ("active", "configured")
LOSSES: tuple[surfaces.Loss, ...] = ("hard", "soft")
EFFORTS: tuple[Effort, ...] = ("images", "steps")
MOST_CURVES = 12
COMPARABLE = "Published results count active experts and hard loss: choose both to see them."


def body(study: str) -> None:
    """Switches, one of three figures, and the recommendation."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        figure = selection.choice("Figure", FIGURES, "figure")
        counted = selection.choice("Experts counted", COUNTED, "experts")
        loss = selection.choice("Loss", LOSSES, "loss")
        effort = selection.choice("Training counted in", EFFORTS, "effort")
        overlay = selection.switch("Overlay published results", "published")
    asked = surfaces.Asked(effort, counted, loss)
    if overlay and not asked.comparable:
        st.info(COMPARABLE)
    published = surfaces.published(effort) if overlay and asked.comparable else None
    with st.expander("How to read this"):
        st.markdown(style.markdown(f"{reading('loss')} {reading('recommendation')}"))
    if figure == "experts":
        with page.section("Test loss against experts"):
            show_experts(study, asked, published)
        return
    labels = surfaces.all_runs(study, asked)["arm"].unique().tolist()
    arm = selection.one("Arm", labels, "arm") if len(labels) > 1 else labels[0]
    if figure == "surface":
        with page.section(f"Test loss over {EFFORT_NAME[effort]} and experts"):
            show_surface(study, arm, asked, published)
    else:
        with page.section(f"Test loss against {EFFORT_NAME[effort]} per expert"):
            cells = surfaces.per_expert(study, arm, asked)
            page.chart(charts.per_expert(cells, published.per_expert if published else ()), "samples-per-expert")
    with page.section("How many experts for a budget?"):
        show_recommendation(study, arm, asked)


def show_surface(study: str, arm: str, asked: surfaces.Asked, published: surfaces.Published | None) -> None:
    """Fig. 6, with the fitted surface below the cells where it is wanted and there is one."""
    cells = surfaces.surface(study, arm, asked)
    fitted = selection.switch("Fitted surface and best count K*, with its interval", "fitted", default=True)
    grid = best = None
    if fitted:
        grid, best = surfaces.fitted(study, arm, asked)
        if grid is None:
            st.caption("No fitted surface: see below what the study lacks. Colours are interpolated between the cells.")
    page.chart(charts.plane(cells, grid, best, published.surface if published else None), "loss-surface")
    st.caption(
        f"Dashed: equal {EFFORT_NAME[asked.effort]} per {asked.counted} expert. Point at a cell for n, mean, spread."
    )


def show_experts(study: str, asked: surfaces.Asked, published: surfaces.Published | None) -> None:
    """Fig. 2: mean and spread at each number of experts, a curve an arm."""
    info = surfaces.against_experts(study, asked)
    labels = [curve.label for curve in info.curves]
    shown = (
        selection.several("Arms", labels, "arms", labels[:MOST_CURVES], most=MOST_CURVES) if len(labels) > 1 else labels
    )
    page.chart(
        charts.against_experts(info, shown, published.against_experts if published else None), "loss-against-experts"
    )


def show_recommendation(study: str, arm: str, asked: surfaces.Asked) -> None:
    """The answer for a number of images or steps that the user types, and what it rests on."""
    most = surfaces.most(study, arm, asked)
    amount = selection.number(EFFORT_NAME[asked.effort].capitalize(), asked.effort, most, 1)
    with st.spinner("Fitting the loss surface ..."):
        found = surfaces.recommended(study, arm, int(amount), asked)
    say = st.success if found.conclusion.kind == "answer" else st.warning
    say(style.markdown(found.sentence[0].upper() + found.sentence[1:]))
    page.chart(charts.at_amount(found, surfaces.gating(study, asked)), "loss-at-amount")
    if found.surface is not None:
        st.dataframe(found.table, hide_index=True)
        with st.expander("How good is the fit?"):
            st.text("\n".join(found.evidence))


page.show(
    "loss_surface", "How does the loss fall with data and experts, and how many experts does a budget ask for?", body
)
