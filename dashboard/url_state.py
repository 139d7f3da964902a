"""Widgets whose value lives in the URL, so that a link to a view carries its selections. One line a widget.

`key` is the name in the URL, unique on a page; what the URL names and a widget does not have is ignored. Options of
`one` and `several` are shown as plain text; labels, and options of `choice`, are Markdown: our own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import streamlit as st

Word = TypeVar("Word", bound=str)
Number = TypeVar("Number", int, float)


def one(
    label: str,
    options: Sequence[str],
    key: str,
    default: str | None = None,
    *,
    words: Mapping[str, str] | None = None,
) -> str:
    """One of many, in a box with search. `options` are not empty; `words` are what is shown in their place."""
    asked, written = st.query_params.get(key), st.session_state.get(_memory(key))
    # Only a link or the browser's history makes the URL differ from what was last written into it: then it decides.
    wishes = (asked if asked != written else None, st.session_state.get(key), written, default)
    st.session_state[key] = next((wish for wish in wishes if wish in options), options[0])
    chosen: str = st.selectbox(label, options, key=key, format_func=lambda option: (words or {}).get(option, option))
    if asked != chosen:
        st.query_params[key] = chosen
    st.session_state[_memory(key)] = chosen
    return chosen


def several(
    label: str, options: Sequence[str], key: str, default: Sequence[str] = (), *, most: int | None = None
) -> list[str]:
    """Any number of many, in their order in `options`."""
    asked, written = st.query_params.get_all(key), st.session_state.get(_memory(key))
    by_hand = st.session_state.get(key)
    wishes = (asked if asked != written else (), by_hand or (), written or () if by_hand is None else (), default)
    known = ([option for option in wish if option in options] for wish in wishes)
    st.session_state[key] = [] if by_hand == [] and asked == (written or []) else next(filter(None, known), [])[:most]
    chosen = st.multiselect(label, options, key=key, max_selections=most)
    chosen = [option for option in options if option in chosen]
    if asked != chosen:
        st.query_params[key] = chosen
    st.session_state[_memory(key)] = chosen
    return chosen


def choice(label: str, options: Sequence[Word], key: str, default: Word | None = None) -> Word:
    """One of a few words of ours, side by side."""
    start: Word = default if default is not None and default in options else options[0]
    chosen = st.segmented_control(label, options, default=start, required=True, key=key, bind="query-params")
    return start if chosen is None else chosen


def switch(label: str, key: str, default: bool = False) -> bool:
    """On or off."""
    return st.toggle(label, default, key=key, bind="query-params")


def number(
    label: str,
    key: str,
    default: Number,
    low: Number | None = None,
    high: Number | None = None,
    step: Number | None = None,
) -> Number:
    """A number that the user types; an integer where `default` is one."""
    typed: Any = st.number_input(label, low, high, default, step, key=key, bind="query-params")
    number: Number = typed
    return number


def _memory(key: str) -> str:
    """Where what was last written into the URL is remembered, also while other pages are shown."""
    return f"{key} in the URL"
