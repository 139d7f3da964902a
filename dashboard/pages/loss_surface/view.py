"""Loss surface: test loss over data and experts (arXiv:2509.10025, Figs. 6, 2, 7), and how many experts to use."""

from __future__ import annotations

import streamlit as st

from smoe_ray.analysis.scaling import EFFORT_NAME, Counted, Effort
from smoe_ray.report.sections import reading

from ... import page, style, url_state
from . import PAGE, charts, data

FIGURES = ("surface", "experts", "samples per expert")
COUNTED: tuple[Counted, ...] = ("active", "configured")
LOSSES: tuple[data.Loss, ...] = ("hard", "soft")
EFFORTS: tuple[Effort, ...] = ("images", "steps")
MAX_CURVES = 12


def body(study: str) -> None:
    """Options, one of three figures, and the recommendation."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        figure = url_state.choice("Figure", FIGURES, "figure")
        counted = url_state.choice("Experts counted", COUNTED, "experts")
        loss = url_state.choice("Loss", LOSSES, "loss")
        effort = url_state.choice("Training measured in", EFFORTS, "effort")
        overlay = url_state.switch("Overlay published results", "published")
    options = data.Options(effort, counted, loss)
    published = None
    if overlay:
        why_not = data.why_not_published(study, options)
        if why_not is None:
            published = data.published(effort)
        else:
            st.info(why_not)
    with st.expander("How to read this"):
        st.markdown(style.markdown(f"{reading('loss')} {reading('recommendation')}"))
    if figure == "experts":
        with page.section("Test loss against experts"):
            show_experts(study, options, published)
        return
    labels = data.all_runs(study, options)["arm"].unique().tolist()
    arm = url_state.one("Arm", labels, "arm") if len(labels) > 1 else labels[0]
    if figure == "surface":
        with page.section(f"Test loss over {EFFORT_NAME[effort]} and experts"):
            show_surface(study, arm, options, published)
    else:
        with page.section(f"Test loss against {EFFORT_NAME[effort]} per expert"):
            cells = data.per_expert(study, arm, options)
            page.chart(charts.per_expert(cells, published.per_expert if published else ()), "samples-per-expert")
    with page.section("Recommended number of experts"):
        show_recommendation(study, arm, options)


def show_surface(study: str, arm: str, options: data.Options, published: data.Published | None) -> None:
    """Fig. 6, over the fitted surface if that is switched on and the study is large enough."""
    cells = data.surface(study, arm, options)
    fitted = url_state.switch(
        "Fitted surface and optimal number of experts K* with its interval", "fitted", default=True
    )
    grid = best = None
    if fitted:
        grid, best = data.fitted(study, arm, options)
        if grid is None:
            st.caption("No fitted surface: see below what the study lacks. Colours are interpolated between cells.")
    page.chart(charts.plane(cells, grid, best, published.surface if published else None), "loss-surface")
    st.caption(
        f"Dashed: equal {EFFORT_NAME[options.effort]} per {options.counted} expert. Hover over a cell for its numbers."
    )


def show_experts(study: str, options: data.Options, published: data.Published | None) -> None:
    """Fig. 2: mean and s.d. at each number of experts, one curve per arm."""
    info = data.against_experts(study, options)
    labels = [curve.label for curve in info.curves]
    shown = (
        url_state.several("Arms", labels, "arms", labels[:MAX_CURVES], limit=MAX_CURVES) if len(labels) > 1 else labels
    )
    page.chart(
        charts.against_experts(info, shown, published.against_experts if published else None), "loss-against-experts"
    )


def show_recommendation(study: str, arm: str, options: data.Options) -> None:
    """The recommendation for a number of images or steps that the user enters, and its evidence."""
    largest = data.largest_amount(study, arm, options)
    amount = url_state.number(EFFORT_NAME[options.effort].capitalize(), options.effort, largest, 1)
    with st.spinner("Fitting the loss surface ..."):
        found = data.recommended(study, arm, int(amount), options)
    say = st.success if found.conclusion.kind == "answer" else st.warning
    say(style.markdown(found.sentence[0].upper() + found.sentence[1:]))
    page.chart(charts.at_amount(found, data.gating(study, options), data.unit(study)), "loss-at-amount")
    if found.surface is not None:
        st.dataframe(found.table, hide_index=True)
        with st.expander("Goodness of fit"):
            st.text("\n".join(found.evidence))


def show() -> None:
    """The page."""
    page.show(PAGE, body)
