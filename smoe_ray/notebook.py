"""How objects show themselves in a notebook: as small HTML tables."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def html_table(title: str, rows: Mapping[str, Any]) -> str:
    """A heading and a table of two columns; rows whose value is None are left out. All text is escaped."""
    shown = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value is not None
    )
    return f"<strong>{escape(title)}</strong><table>{shown}</table>"
