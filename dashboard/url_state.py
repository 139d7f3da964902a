"""Widgets whose value is part of the URL, so that a link to a page carries its selections.

`key` is the name of the query parameter, unique on a page. What a link asks for and a widget does not offer is said to
be gone: nothing is shown in its place, and the URL stays as it is until the reader chooses. Options of `one` and
`several` are values that keep their meaning (ids), shown as `words`; a link may also carry the words, as older links
do. Both are shown as plain text; labels and the options of `choice` are Markdown, so they must not come from results.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import streamlit as st

from smoe_ray.errors import ResultsError

from . import style

Word = TypeVar("Word", bound=str)
Number = TypeVar("Number", int, float)

GONE = "is not here any more"


def one(
    label: str,
    options: Sequence[str],
    key: str,
    default: str | None = None,
    *,
    words: Mapping[str, str] | None = None,
    stays: bool = False,
    gone: str = GONE,
) -> str:
    """Select box with search.

    Args:
        label: of the widget.
        options: values, at least one.
        key: name of the query parameter.
        default: the value without a link; else the first.
        words: texts that are shown for the options.
        stays: whether an option that vanishes within the same study is gone, too, as a deleted trial is. Otherwise
            options that depend on another widget may come and go.
        gone: what is said of a value that is not offered.

    Raises:
        ResultsError: the link, or what was chosen before, is gone. The widget is drawn, with nothing chosen.
    """
    words = words or {}
    raw, written = st.query_params.get(key), st.session_state.get(_memory(key))
    by_hand = st.session_state.get(key)
    in_url = None if raw is None else _resolved(raw, options, words)
    # The URL differs from what was last written into it only after a link or the browser's history: then it wins.
    is_link = raw != written
    is_unanswered = by_hand is None and key in st.session_state
    is_missing = in_url is not None and in_url not in options and by_hand not in (() if is_link else options)
    if is_missing and (is_link or (_is_same_study(key) and (is_unanswered or stays))):
        st.session_state[key] = None
        st.selectbox(label, options, None, key=key, format_func=lambda option: words.get(option, option))
        _remember(key, raw)
        raise ResultsError(f"{label} '{raw}' {gone}; choose another")
    candidates = (in_url if is_link else None, by_hand, written, default)
    st.session_state[key] = next((candidate for candidate in candidates if candidate in options), options[0])
    chosen: str = st.selectbox(label, options, key=key, format_func=lambda option: words.get(option, option))
    if raw != chosen:
        st.query_params[key] = chosen
    _remember(key, chosen)
    return chosen


def several(
    label: str,
    options: Sequence[str],
    key: str,
    default: Sequence[str] = (),
    *,
    words: Mapping[str, str] | None = None,
    limit: int | None = None,
    gone: str = GONE,
) -> list[str]:
    """Multiselect of at most `limit` options; the result is in the order of `options`.

    What is gone is said above the others that a link asks for; see `one` for the arguments.
    """
    words = words or {}
    raw, written = st.query_params.get_all(key), st.session_state.get(_memory(key))
    by_hand, kept = st.session_state.get(key), st.session_state.get(_kept(key))
    in_url = [_resolved(value, options, words) for value in raw]
    known = [value for value in options if value in in_url][:limit]
    is_link = bool(raw) and raw != written
    missing = [value for value in in_url if value not in options]
    if is_link or (kept is not None and by_hand == kept and _is_same_study(key)):
        start = known if known or missing else list(default)
    else:
        missing = []
        candidates = (by_hand or (), () if by_hand == [] else written or (), () if by_hand == [] else default)
        start = next(filter(None, ([one for one in options if one in candidate] for candidate in candidates)), [])
    st.session_state[key] = start[:limit]
    chosen = st.multiselect(
        label, options, key=key, max_selections=limit, format_func=lambda option: words.get(option, option)
    )
    chosen = [option for option in options if option in chosen]
    if missing:
        st.session_state[_kept(key)] = chosen
        _remember(key, raw)
        for value in missing:
            st.info(style.markdown(f"{label}: '{value}' {gone}"), icon=":material/info:")
        return chosen
    st.session_state.pop(_kept(key), None)
    if raw != chosen:
        st.query_params[key] = chosen
    _remember(key, chosen)
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
    """Number input; an integer if `default` is one.

    Raises:
        ResultsError: it is below `low` or above `high`. The browser does not check them: it would refuse the number
            and leave the answer to the one before on the page.
    """
    typed: Any = st.number_input(label, value=default, step=step, key=key, bind="query-params")
    number: Number = typed
    if (low is not None and number < low) or (high is not None and number > high):
        wanted = f"{low} or more" if high is None else f"a number from {low} to {high}"
        raise ResultsError(f"{label}: {number} is refused; enter {wanted}")
    return number


def limit(label: str, key: str, hint: float) -> float | None:
    """Number input that may be empty, which is no limit; `hint` is shown in its place."""
    typed: float | None = st.number_input(
        label, value=None, placeholder=f"{hint:.4g}", key=key, bind="query-params", format="%.6g"
    )
    return typed


def take(selections: Mapping[str, Sequence[str]], switches: Collection[str], limits: tuple[str, ...]) -> None:
    """Put selections into the URL and the widgets; for a callback, before the widgets are drawn.

    Args:
        selections: by key, those of `several`, `switch` and `limit`; an empty one is taken out.
        switches: keys of `switch`.
        limits: what keys of `limit` begin with.
    """
    for key, chosen in selections.items():
        if chosen:
            st.query_params[key] = list(chosen)
        else:
            st.query_params.pop(key, None)
        if key in switches:
            st.session_state[key] = list(chosen) == ["true"]
        elif key.startswith(limits):
            st.session_state[key] = float(chosen[0]) if chosen else None
        else:
            st.session_state[key] = list(chosen)
            _remember(key, list(chosen))


def keep_only(prefix: str, names: Sequence[str]) -> None:
    """Drop from the URL the selections whose key is `prefix` and none of `names`: their widgets are not shown."""
    for key in [key for key in st.query_params if key.startswith(prefix)]:
        if key.removeprefix(prefix) not in names:
            del st.query_params[key]


def _resolved(value: str, options: Sequence[str], words: Mapping[str, str]) -> str:
    """The option that a link asks for: the value itself or, if it is the text of exactly one option, that option."""
    if value in options:
        return value
    named = [option for option in options if words.get(option) == value]
    return named[0] if len(named) == 1 else value


def _remember(key: str, value: str | list[str] | None) -> None:
    st.session_state[_memory(key)] = value
    st.session_state[_study(key)] = st.query_params.get("study")


def _is_same_study(key: str) -> bool:
    """Whether the study is still the one in which the value was last written; values of another are of no use."""
    return key == "study" or st.session_state.get(_study(key)) == st.query_params.get("study")


def _memory(key: str) -> str:
    """Session-state key of the value last written into the URL; kept while other pages are shown."""
    return f"{key} in the URL"


def _study(key: str) -> str:
    """Session-state key of the study at that time."""
    return f"{key} of study"


def _kept(key: str) -> str:
    """Session-state key of what is left of a link of which something is gone."""
    return f"{key} left of the link"
