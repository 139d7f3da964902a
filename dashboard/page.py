"""The frame of every page: title, question, study picker, and errors said in a sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import streamlit as st

from smoe_ray.errors import SmoeRayError

from . import load, navigation, style, url_state

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from .navigation import Page

_MOST_PROBLEMS = 20
_DAMAGED = "The results may be damaged, or of another version of smoe-ray; the dashboard's terminal says more."


def show(page: Page, body: Callable[[str], None]) -> None:
    """A whole page about one study: `body` gets its name, and is called only where there is one."""
    frame(page)
    with boundary():
        study = pick_study()
        if study is None:
            return
        place = st.container()
        with boundary():
            body(study)
        with place, suppress(SmoeRayError):  # which the page has said already
            problems(load.results(study).problems)  # read last: the list of studies does not wait for it


def frame(page: Page) -> None:
    """Title and question, for a page that is not about one study. Both are our own words."""
    st.title(page.title, anchor=False)
    st.caption(page.question)


def pick_study() -> str | None:
    """The study of the sidebar; None, with a sentence on the page, where OUT has none."""
    studies = load.studies()
    if not studies:
        _wait_for_a_study()
        return None
    with st.sidebar:
        return url_state.one("Study", studies, "study")


@st.fragment(run_every=5.0)
def _wait_for_a_study() -> None:
    with boundary():
        if load.studies():
            st.rerun()
        command = f"smoe-ray run STUDY.yaml --out {load.out()}"
        st.info(style.markdown(f"{load.out()} holds no study yet. Run one into it: {command}"), icon=":material/info:")


@contextmanager
def boundary() -> Iterator[None]:
    """What goes wrong inside is said on the page in a sentence; the rest of the page goes on."""
    try:
        yield
    except SmoeRayError as error:
        st.info(style.markdown(error), icon=":material/info:")
    except Exception as error:  # half-written or foreign results can break any analysis, and no page shows a traceback
        logging.getLogger(__name__).exception("a part of a page could not be shown")
        reason = f"{type(error).__name__}: {error}"
        st.error(style.markdown(f"This could not be shown ({reason[:300]}). {_DAMAGED}"), icon=":material/error:")


@contextmanager
def section(title: str) -> Iterator[None]:
    """A heading (our own words) with a `boundary` of its own."""
    st.subheader(title, anchor=False)
    with boundary():
        yield


def problems(lines: tuple[str, ...]) -> None:
    """What could not be read, where something could not."""
    if not lines:
        return
    left_out = "1 file cannot be read: its trial is left out"
    if len(lines) > 1:
        left_out = f"{len(lines):,} files cannot be read: their trials are left out"
    with st.expander(left_out, icon=":material/warning:"):
        more = [f"... and {len(lines) - _MOST_PROBLEMS:,} more"] if len(lines) > _MOST_PROBLEMS else []
        st.code(
            "\n".join([*(" ".join(line.split())[:400] for line in lines[:_MOST_PROBLEMS]), *more]),
            language=None,
            wrap_lines=True,
        )


def chart(figure: go.Figure, key: str, **options: Any) -> Any:
    """Show a figure of `charts/`. `key` names it on the page and as a file; `options` go to `st.plotly_chart`."""
    config = {"displaylogo": False, "toImageButtonOptions": {"format": "svg", "filename": key}}
    return st.plotly_chart(figure, width="stretch", key=key, config=config, **options)


def link(page: str, label: str = "", **selections: str | list[str]) -> None:
    """A link to another page that carries selections; `label` is plain text, by default the page's title."""
    to = navigation.page(page)
    st.page_link(to.for_streamlit(), label=style.markdown(label or to.title), query_params=selections)
