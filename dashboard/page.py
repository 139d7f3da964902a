"""Parts that all pages share: title, question, study picker, error messages, charts and links."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import streamlit as st

from smoe_ray.errors import SmoeRayError

from . import load, navigation, progress, style, url_state

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from .navigation import Page

REFRESH_SECONDS = {True: 2.0, False: 10.0}
"""How often a live page looks for changes, by whether something is running."""

_OLD_SECONDS = 60.0
"""A live page is drawn again after this time also without a change: where nothing is written any more, it says so."""
_MAX_PROBLEMS = 20
_DAMAGED = "The results may be damaged or written by another version of smoe-ray; the dashboard's terminal has details."


def show(
    page: Page,
    body: Callable[[str], None],
    *,
    progress: Callable[[str], str] = progress.study_line,
    watched: Callable[[str], list[str]] = lambda study: [study],
) -> None:
    """Draw a page about one study: `body` is called with its name, unless OUT contains no study.

    Args:
        page: the page.
        body: draws all but the title and the messages about files that cannot be read.
        progress: of a live page, a line that says how far what is running is; empty where nothing is.
        watched: of a live page, the studies whose changes it shows.
    """
    frame(page)
    with boundary():
        study = pick_study()
        if study is None:
            return
        st.set_page_config(page_title=f"{page.title}: {style.plain(study, 80)}")
        beat = st.container()
        before = {one: load.drawn_version(one) for one in watched(study)} if page.is_live else {}
        place = st.container()
        with boundary():
            body(study)
        with place, suppress(SmoeRayError):  # which the page has shown already
            results = load.results(study)  # read last: the list of studies does not wait for it
            problems(results.problems)
            notices(results.notices)
        if page.is_live:
            with beat:
                _follow(study, before, progress, watched)


def _follow(
    study: str,
    before: dict[str, str | None],
    progress: Callable[[str], str],
    watched: Callable[[str], list[str]],
) -> None:
    """A line that says how far the study is, and has the page drawn again, in place, when it shows what is no more.

    Args:
        study: of the page.
        before: version of each watched study when the page began to be drawn; None if it had to be read.
        progress: see `show`.
        watched: see `show`.
    """
    state, drawn_at = _state(watched(study), before), time.monotonic()
    is_running = any(trained for _, _, trained in state)

    def beat() -> None:
        is_old = is_running and time.monotonic() - drawn_at > _OLD_SECONDS
        if is_old or _state(watched(study), {}) != state:
            st.rerun()
        line = ""
        with suppress(Exception):  # what cannot be read is said on the page
            line = progress(study)
        if line:
            st.caption(style.markdown(line))

    st.fragment(run_every=REFRESH_SECONDS[is_running])(beat)()


def _state(studies: list[str], before: dict[str, str | None]) -> list[tuple[str, str, int]]:
    """Of each study its name, the version of its files, and the number of its trials that a process trains."""
    found = []
    for study in studies:
        with suppress(Exception):  # what cannot be read is said on the page
            results = load.results(study)
            trained = sum(map(load.is_trained, results.records.values()))
            found.append((study, before.get(study) or results.version, trained))
    return found


def frame(page: Page) -> None:
    """Draw the title and the question of a page."""
    st.title(page.title, anchor=False)
    st.caption(page.question)


def pick_study() -> str | None:
    """The study selected in the sidebar; None, with a message on the page, if OUT contains none."""
    studies = load.studies()
    if not studies:
        _wait_for_a_study()
        return None
    with st.sidebar:
        return url_state.one("Study", studies, "study", stays=True)


@st.fragment(run_every=5.0)
def _wait_for_a_study() -> None:
    with boundary():
        if load.studies():
            st.rerun()
        command = f"smoe-ray run STUDY.yaml --out {load.out()}"
        st.info(style.markdown(f"{load.out()} contains no study yet. To run one: {command}"), icon=":material/info:")


@contextmanager
def boundary() -> Iterator[None]:
    """Show an error that is raised inside as a message; the rest of the page is still drawn."""
    try:
        yield
    except SmoeRayError as error:
        st.info(style.markdown(error), icon=":material/info:")
    except Exception as error:  # incomplete or malformed results can break any analysis; no page shows a traceback
        logging.getLogger(__name__).exception("a part of a page could not be shown")
        reason = f"{type(error).__name__}: {error}"
        st.error(style.markdown(f"This could not be shown ({reason[:300]}). {_DAMAGED}"), icon=":material/error:")


def answer(*sentences: str) -> None:
    """What the page has found, first on the page and in plain text."""
    st.markdown(f"__{style.markdown(' '.join(sentences))}__")


def how_to_read(text: str) -> None:
    """Expander with what the parts of a page mean, in plain text."""
    with st.expander("How to read this"):
        st.markdown(style.markdown(text))


@contextmanager
def section(title: str) -> Iterator[None]:
    """A subheading with its own `boundary`. The title is Markdown, so it must not come from results."""
    st.subheader(title, anchor=False)
    with boundary():
        yield


def problems(lines: tuple[str, ...]) -> None:
    """Expander with the files that could not be read, if there are any."""
    if not lines:
        return
    left_out = "1 file cannot be read: its trial is left out"
    if len(lines) > 1:
        left_out = f"{len(lines):,} files cannot be read: their trials are left out"
    _expander(left_out, lines)


def notices(lines: tuple[str, ...]) -> None:
    """Expander with older trials that were left out and damaged files, if there are any."""
    if lines:
        _expander("Older trials, or damaged files, of this study", lines)


def _expander(title: str, lines: tuple[str, ...]) -> None:
    with st.expander(title, icon=":material/warning:"):
        more = [f"... and {len(lines) - _MAX_PROBLEMS:,} more"] if len(lines) > _MAX_PROBLEMS else []
        st.code(
            "\n".join([*(" ".join(line.split())[:400] for line in lines[:_MAX_PROBLEMS]), *more]),
            language=None,
            wrap_lines=True,
        )


def chart(figure: go.Figure, key: str, **options: Any) -> Any:
    """Show a Plotly figure. `key` identifies it and names its download; `options` go to `st.plotly_chart`."""
    config = {"displaylogo": False, "toImageButtonOptions": {"format": "svg", "filename": key}}
    return st.plotly_chart(figure, width="stretch", key=key, config=config, **options)


def link(page: str, label: str = "", **selections: str | list[str]) -> None:
    """A link to another page that carries selections; `label` is plain text, by default the page's title."""
    to = navigation.page(page)
    st.page_link(to.for_streamlit(), label=style.markdown(label or to.title), query_params=selections)
