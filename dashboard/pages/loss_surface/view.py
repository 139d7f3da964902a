"""Loss surface: test loss over data and experts (arXiv:2509.10025, Figs. 6, 2, 7), and how many experts to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from smoe_ray.analysis.scaling import EFFORT_NAME, Counted, Effort
from smoe_ray.report.sections import reading

from ... import page, style, url_state
from . import PAGE, charts, data

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

FIGURES = ("surface", "experts", "samples per expert")
COUNTED: tuple[Counted, ...] = ("active", "configured")
LOSSES: tuple[data.Loss, ...] = ("hard", "soft")
EFFORTS: tuple[Effort, ...] = ("images", "steps")
MAX_CURVES = 12


def body(study: str) -> None:
    """The recommendation, options, one of three figures, and the evidence."""
    place = st.container()
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
    if figure == "experts":
        with page.section("Test loss against experts"):
            show_experts(study, options, published)
        page.how_to_read(reading("loss"))
        return
    label_of = data.arm_ids(study, options)
    arm = label_of[url_state.one("Arm", list(label_of), "arm", words=label_of, stays=True)]
    if figure == "surface":
        with page.section(f"Test loss over {EFFORT_NAME[effort]} and experts"):
            show_surface(study, arm, options, published)
    else:
        with page.section(f"Test loss against {EFFORT_NAME[effort]} per expert"):
            cells = data.per_expert(study, arm, options)
            page.chart(charts.per_expert(cells, published.per_expert if published else ()), "samples-per-expert")
    with page.section("Recommended number of experts"):
        show_recommendation(study, arm, options, place)
    page.how_to_read(f"{reading('loss')} {reading('recommendation')}")


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
            st.caption(
                "The study cannot tell, so no fit is drawn: see below what it lacks. Colours are interpolated between "
                "cells."
            )
    page.chart(charts.plane(cells, grid, best, published.surface if published else None), "loss-surface")
    st.caption(
        f"Dashed: equal {EFFORT_NAME[options.effort]} per {options.counted} expert. Hover over a cell for its numbers."
    )


def show_experts(study: str, options: data.Options, published: data.Published | None) -> None:
    """Fig. 2: mean and s.d. at each number of experts, one curve per arm."""
    info = data.against_experts(study, options)
    drawn = {curve.label for curve in info.curves}
    label_of = {arm: label for arm, label in data.curve_ids(study, options).items() if label in drawn}
    arms = list(label_of)
    shown = url_state.several("Arms", arms, "arms", arms[:MAX_CURVES], words=label_of, limit=MAX_CURVES)
    page.chart(
        charts.against_experts(
            info, [label_of[arm] for arm in shown], published.against_experts if published else None
        ),
        "loss-against-experts",
    )


def show_recommendation(study: str, arm: str, options: data.Options, place: DeltaGenerator) -> None:
    """The recommendation for a number of images or steps that the user enters, at `place`, and its evidence."""
    largest = data.largest_amount(study, arm, options)
    amount = url_state.number(EFFORT_NAME[options.effort].capitalize(), options.effort, largest, 1)
    with place:
        with st.spinner("Fitting the loss surface ..."):
            found = data.recommended(study, arm, int(amount), options)
        say = st.success if found.conclusion.kind == "answer" else st.warning
        say(style.markdown(found.sentence[0].upper() + found.sentence[1:]))
    page.chart(
        charts.at_amount(found, data.gating(study, options), data.unit_of(study, arm, options)), "loss-at-amount"
    )
    if found.answer is not None:
        st.dataframe(found.table, hide_index=True)
    if found.surface is not None:
        with st.expander("Goodness of fit"):
            st.text("\n".join(found.evidence))


def show() -> None:
    """The page."""
    page.show(PAGE, body)
