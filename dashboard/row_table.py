"""A table whose rows are selected by a click anywhere in them, and stay selected when rows come or go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import streamlit as st


def height(rows: int, most: int) -> int:
    """Height of a table of so many rows, in pixels; at most `most`, where it scrolls."""
    return min(most, 35 * (rows + 1) + 3)


def show(
    frame: pd.DataFrame,
    ids: Sequence[str],
    chosen: Sequence[str],
    key: str,
    choose: Callable[[list[str]], None],
    *,
    several: bool = False,
    place: Any = st,
    **options: Any,
) -> None:
    """Draw it. Streamlit itself selects by the box alone, and knows rows by their places only.

    Args:
        frame: the table.
        ids: what each of its rows stands for.
        chosen: ids of the selected rows; those that are not in the table are passed over.
        key: of the element; the same for the same table, whatever its rows.
        choose: called with the ids of the selected rows when the reader has changed them: a click on a cell selects its
            row alone, as in a list of files, and the box adds the row to the selection or takes it out.
        several: whether more than one row can be selected.
        place: where it is drawn.
        options: as `st.dataframe` takes them.
    """
    place_of = {one: place for place, one in enumerate(ids)}
    rows = [place_of[one] for one in chosen if one in place_of]
    now = (st.session_state.get(key) or {}).get("selection", {})
    if sorted(now.get("rows", [])) != sorted(rows):
        cells = [cell for cell in now.get("cells", []) if cell[0] in rows]
        st.session_state[key] = {"selection": {"rows": rows, "columns": [], "cells": cells}}

    def changed() -> None:
        selection = st.session_state[key]["selection"]
        clicked = [row for row, _ in selection["cells"]]
        is_click = bool(clicked) and st.session_state.get(f"{key}, cell") != clicked
        st.session_state[f"{key}, cell"] = clicked
        selected = clicked if is_click else selection["rows"]
        choose([ids[row] for row in selected if row < len(ids)])

    place.dataframe(
        frame,
        hide_index=True,
        on_select=changed,
        selection_mode=["multi-row" if several else "single-row", "single-cell"],
        key=key,
        **options,
    )
