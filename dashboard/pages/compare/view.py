"""Compare: several trials of a study side by side: curves, configuration, usage of experts, reconstructions."""

from __future__ import annotations

import streamlit as st

from smoe_ray.columns import COLUMNS
from smoe_ray.errors import ResultsError

from ... import page, study_tables, style, url_state
from ..collapse import charts as collapse_charts
from ..collapse import data as collapse_data
from . import PAGE, charts, data

MAX_TRIALS = 12
EXAMPLES = (3, 2)
"""Arms, and trials of each, that are compared where no link asks for others."""
IMAGES = 10
MAX_SIDE_BY_SIDE = 3


def body(study: str) -> None:
    """The answer, the measures by arm, and one of four views."""
    titles = data.titles(study)
    if not titles:
        raise ResultsError(f"{study}: no trial to show yet; run the study first")
    place = st.container()
    chosen = tuple(
        url_state.several(
            "Trials", list(titles), "trials", data.examples(study, *EXAMPLES), words=titles, limit=MAX_TRIALS
        )
    )
    if not chosen:
        st.info("Choose trials to compare.", icon=":material/info:")
        return
    with place, page.boundary():
        page.answer(data.answer(study, chosen))
    views = {
        "Curves": show_curves,
        "Configuration": show_settings,
        "Usage": show_usage,
        "Reconstructions": show_reconstructions,
    }
    view = url_state.choice("Show", list(views), "compare")
    with page.boundary():
        views[view](study, chosen)


def show_curves(study: str, trials: tuple[str, ...]) -> None:
    """One measure over the epochs, arms over each other."""
    measured = data.metrics(study, trials)
    if not measured:
        raise ResultsError("none of these trials has ended an epoch yet; wait for the first")
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        headings = {name: COLUMNS[name].heading for name in measured}
        default = next((name for name in data.SHOWN if name in measured), None)
        metric = url_state.one("Measure", measured, "metric", default, words=headings)
    with right:
        each_trial = url_state.switch("Each trial", "each")
    page.chart(charts.curves(data.curves(study, trials, metric), each_trial), "compared-curves")
    st.caption("Mean over the trials of an arm; band: one standard deviation, where there are two or more.")
    with page.section("At the end"):
        st.dataframe(study_tables.readable(data.by_arm(study, trials)), hide_index=True)
        st.caption("Mean and standard deviation over the finished trials of an arm.")


def show_settings(study: str, trials: tuple[str, ...]) -> None:
    """Settings of the trials, one column each."""
    only = url_state.switch("Differences only", "differences", default=True)
    table = data.settings(study, trials)
    shown = data.differences(table) if only else table
    if shown.empty:
        st.info("These trials do not differ in any setting.", icon=":material/info:")
        return
    st.dataframe(shown, hide_index=True, column_config={"setting": st.column_config.TextColumn(pinned=True)})
    if only:
        st.caption(f"{len(table) - len(shown):,} other settings are the same in all of them.")


def show_usage(study: str, trials: tuple[str, ...]) -> None:
    """Share of the test images of each expert over the epochs, one chart per trial."""
    titles = data.titles(study)
    across = min(len(trials), MAX_SIDE_BY_SIDE)
    for start in range(0, len(trials), across):
        for trial, column in zip(trials[start : start + across], st.columns(across), strict=False):
            with column:
                st.caption(style.markdown(titles[trial]))
                with page.boundary():
                    page.chart(collapse_charts.usage(collapse_data.usage(study, trial)), f"usage-{trial}")
    st.caption("One band per expert, with its number; grey: no test image at the last epoch.")


def show_reconstructions(study: str, trials: tuple[str, ...]) -> None:
    """The same test images, as each trial reconstructs them."""
    selections = ("of each class", "most different")
    selection = url_state.choice("Images", selections, "same")
    found = data.reconstructions(study, trials, selection == selections[1], IMAGES)
    st.html(charts.images(found))
    st.caption(
        "Below an image: the expert that was chosen, and the squared error summed over the values of the image. "
        "Most different: the images whose errors lie farthest apart."
    )
    for line in found.left_out:
        st.text(f"Not shown: {line}")


def show() -> None:
    """The page."""
    page.show(PAGE, body)
