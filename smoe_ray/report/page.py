"""The HTML page. It loads no external resources and runs no scripts.

Jinja2 escapes every value except the figures, which are SVGs drawn by this package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from smoe_ray.columns import COLUMNS, format_cell
from smoe_ray.report.findings import Finding

if TYPE_CHECKING:
    import pandas as pd


class FigureItem(NamedTuple):
    """A figure on the page."""

    title: str
    description: str
    """Text alternative of the figure, from its caption."""
    svg: str
    files: tuple[str, ...]
    """Paths relative to the page."""


class TableCell(NamedTuple):
    """A cell of a table."""

    text: str
    is_text: bool
    """Left-aligned; numbers are right-aligned."""


class TableItem(NamedTuple):
    """A table on the page."""

    title: str
    heads: tuple[TableCell, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    files: tuple[str, ...]


class RenderedSection(NamedTuple):
    """A section on the page."""

    anchor: str
    title: str
    reading: str
    items: tuple[FigureItem | TableItem, ...]
    absent: tuple[str, ...]
    """Why items are not shown, one line each."""


class ReportedStudy(NamedTuple):
    """A study of the page."""

    name: str
    question: str
    yaml: str
    """Its study.yaml, as it was run."""


class Page(NamedTuple):
    """All of a report."""

    title: str
    studies: tuple[ReportedStudy, ...]
    findings: tuple[Finding, ...]
    sections: tuple[RenderedSection, ...]
    made_by: tuple[str, ...]
    """Commands that reproduce the report."""
    made: RenderedSection
    """Versions, and unfinished trials."""
    version: str
    """Version of smoe-ray that wrote the report."""


def render_page(page: Page) -> str:
    """HTML of the page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("smoe_ray.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(page=page)


def table_item(title: str, frame: pd.DataFrame, files: Sequence[str]) -> TableItem:
    """A frame as a table: numbers rounded for display, a mean and its spread in one cell."""
    names = [name for name in frame.columns if name.removesuffix("_sd") == name]
    columns = [COLUMNS[name] for name in names]
    heads = tuple(TableCell(column.heading, column.is_text) for column in columns)
    rows = []
    for record in frame.to_dict("records"):
        texts = (format_cell(name, record[name], record.get(f"{name}_sd")) for name in names)
        rows.append(tuple(TableCell(text, column.is_text) for text, column in zip(texts, columns, strict=True)))
    return TableItem(title, heads, tuple(rows), tuple(files))


def inline_svg(svg: str, prefix: str, description: str) -> str:
    """An SVG file of matplotlib for inlining into a page: ids made unique, no external references.

    Args:
        svg: the file.
        prefix: unique on the page.
        description: text alternative.
    """
    from markupsafe import escape

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", body).replace("xlink:href", "href")
    # matplotlib reuses the ids of glyphs and clip paths in every file: keep those that are referenced, with the prefix.
    used = set(re.findall(r'(?:\bhref="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(\bhref="#|url\(#)', rf"\g<1>{prefix}-", body)
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
