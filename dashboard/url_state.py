"""Widgets whose value is part of the URL, so that a link to a page carries its selections.

`key` is the name of the query parameter, unique on a page; values in the URL that a widget does not offer are ignored.
Options of `one` and `several` are shown as plain text; labels and the options of `choice` are Markdown, so they must
not come from results.
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
    """Select box with search. `options` must not be empty; `words` maps them to the texts that are shown."""
    in_url, written = st.query_params.get(key), st.session_state.get(_memory(key))
    # The URL differs from what was last written into it only after a link or the browser's history: then it wins.
    candidates = (in_url if in_url != written else None, st.session_state.get(key), written, default)
    st.session_state[key] = next((candidate for candidate in candidates if candidate in options), options[0])
    chosen: str = st.selectbox(label, options, key=key, format_func=lambda option: (words or {}).get(option, option))
    if in_url != chosen:
        st.query_params[key] = chosen
    st.session_state[_memory(key)] = chosen
    return chosen


def several(
    label: str, options: Sequence[str], key: str, default: Sequence[str] = (), *, limit: int | None = None
) -> list[str]:
    """Multiselect of at most `limit` options; the result is in the order of `options`."""
    in_url, written = st.query_params.get_all(key), st.session_state.get(_memory(key))
    by_hand = st.session_state.get(key)
    candidates = (in_url if in_url != written else (), by_hand or (), written or () if by_hand is None else (), default)
    known = ([option for option in candidate if option in options] for candidate in candidates)
    st.session_state[key] = [] if by_hand == [] and in_url == (written or []) else next(filter(None, known), [])[:limit]
    chosen = st.multiselect(label, options, key=key, max_selections=limit)
    chosen = [option for option in options if option in chosen]
    if in_url != chosen:
        st.query_params[key] = chosen
    st.session_state[_memory(key)] = chosen
    return chosen


def choice(label: str, options: Sequence[Word], key: str, default: Word | None = None) -> Word:
    """Segmented control over a few fixed options."""
    start: Word = default if default is not None and default in options else options[0]
    chosen = st.segmented_control(label, options, default=start, required=True, key=key, bind="query-params")
    return start if chosen is None else chosen


def switch(label: str, key: str, default: bool = False) -> bool:
    """Toggle."""
    return st.toggle(label, default, key=key, bind="query-params")


def number(
    label: str,
    key: str,
    default: Number,
    low: Number | None = None,
    high: Number | None = None,
    step: Number | None = None,
) -> Number:
    """Number input; an integer if `default` is one."""
    typed: Any = st.number_input(label, low, high, default, step, key=key, bind="query-params")
    number: Number = typed
    return number


def _memory(key: str) -> str:
    """Session-state key of the value last written into the URL; kept while other pages are shown."""
    return f"{key} in the URL"
