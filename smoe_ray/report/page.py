"""The page: what is shown, as HTML. Nothing in it is fetched from anywhere, and no script runs.

Jinja2 escapes every value; the figures alone are inserted as they are, and those this package drew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from smoe_ray.columns import COLUMNS, format_cell
from smoe_ray.report.verdicts import Verdict

if TYPE_CHECKING:
    import pandas as pd


class Picture(NamedTuple):
    """A figure on the page."""

    title: str
    description: str
    """What its caption says, for those who do not see it."""
    svg: str
    files: tuple[str, ...]
    """Beside the page."""


class Cell(NamedTuple):
    """Of a table."""

    text: str
    is_text: bool
    """Set to the left; numbers are set to the right."""


class Sheet(NamedTuple):
    """A table on the page."""

    title: str
    heads: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    files: tuple[str, ...]


class Shown(NamedTuple):
    """A section on the page."""

    anchor: str
    title: str
    reading: str
    items: tuple[Picture | Sheet, ...]
    absent: tuple[str, ...]
    """Why something is not shown, a line each."""


class Asked(NamedTuple):
    """A study of the page."""

    study: str
    question: str
    file: str
    """Its study.yaml, as it was run."""


class Page(NamedTuple):
    """All of a report."""

    title: str
    asked: tuple[Asked, ...]
    verdicts: tuple[Verdict, ...]
    sections: tuple[Shown, ...]
    made_by: tuple[str, ...]
    """Commands."""
    made: Shown
    """Versions, and trials that are not finished."""
    version: str
    """Of smoe-ray, that made the report."""


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


def sheet(title: str, frame: pd.DataFrame, files: Sequence[str]) -> Sheet:
    """A frame as a table: numbers rounded for reading, a mean and its spread in one cell."""
    names = [name for name in frame.columns if name.removesuffix("_sd") == name]
    columns = [COLUMNS[name] for name in names]
    heads = tuple(Cell(column.heading, column.is_text) for column in columns)
    rows = []
    for record in frame.to_dict("records"):
        texts = (format_cell(name, record[name], record.get(f"{name}_sd")) for name in names)
        rows.append(tuple(Cell(text, column.is_text) for text, column in zip(texts, columns, strict=True)))
    return Sheet(title, heads, tuple(rows), tuple(files))


def inline_svg(svg: str, prefix: str, description: str) -> str:
    """An SVG file of matplotlib's as part of a page: its ids made its own, nothing that refers to another place.

    Args:
        svg: the file.
        prefix: unique on the page.
        description: text that stands for the picture.
    """
    from markupsafe import escape

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", body).replace("xlink:href", "href")
    # Every file has the same ids for its glyphs and clip paths, and pictures that are alike share theirs within one.
    used = set(re.findall(r'(?:\bhref="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(\bhref="#|url\(#)', rf"\g<1>{prefix}-", body)
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
