"""Saved views: selections of the page of trials, by name."""

from __future__ import annotations

from collections.abc import Iterator

import streamlit as st

from smoe_ray.errors import ResultsError
from smoe_ray.results.annotations import Annotations, View

from ... import notes, style, url_state

LISTS = ("filter", "group", "measures", "tags")
SWITCHES = ("starred", "archived")
PREFIXES = ("is.", "from.", "to.")


def current() -> View:
    """The selections in the URL."""
    return {key: tuple(st.query_params.get_all(key)) for key in _keys() if st.query_params.get_all(key)}


def _keys() -> Iterator[str]:
    yield from (*LISTS, *SWITCHES)
    yield from (key for key in st.query_params if key.startswith(PREFIXES))


def show(study: str, views: dict[str, View]) -> None:
    """A popover with the views, and with ``--annotate`` a field that saves another; none if there can be none."""
    if not views and not notes.may_change():
        return
    with st.popover("Views", icon=":material/bookmark:"):
        for name in sorted(views):
            with st.container(horizontal=True):
                st.button(
                    style.markdown(name), on_click=_take, args=(views[name],), width="stretch", key=f"view {name}"
                )
                if notes.may_change():
                    label = f"Delete view {style.plain(name, 60)}"
                    icon, key = ":material/delete:", f"delete view {name}"
                    if st.button("", icon=icon, help=style.markdown(label), key=key, type="tertiary"):
                        _change(study, name, None)
        if not notes.may_change():
            return
        with st.form("save view", border=False, clear_on_submit=True):
            name = st.text_input("Save this view as", max_chars=60)
            if st.form_submit_button("Save") and name.strip():
                _change(study, name.strip(), current())


def _take(view: View) -> None:
    """Select what the view selects, and nothing else of the page."""
    url_state.take({key: list(view.get(key, ())) for key in {*_keys(), *view}}, SWITCHES, ("from.", "to."))


def _change(study: str, name: str, view: View | None) -> None:
    def changed(noted: Annotations) -> Annotations:
        others = {other: kept for other, kept in noted.views.items() if other != name}
        return noted.model_copy(update={"views": others | ({} if view is None else {name: view})})

    try:
        notes.change(study, changed)
    except ResultsError as error:
        st.error(style.markdown(error), icon=":material/error:")
        return
    st.rerun()
