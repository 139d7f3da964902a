"""Waiting for a page of the dashboard in a real browser."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect


def drawn(page: Page) -> None:
    """Wait until the page's script has run to its end."""
    expect(page.locator("h1").first).to_be_visible()
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def cells(page: Page, table: int) -> list[dict[str, str]]:
    """The rows that table number `table` of the page shows, head -> text, as the browser tells a screen reader."""
    grid = page.get_by_test_id("stDataFrame").nth(table).locator("table[role=grid]")
    expect(grid.locator("tbody td").last).to_have_text(re.compile("."))
    heads = [head.strip() for head in grid.locator("th").all_text_contents()]
    rows = [[cell.strip() for cell in row.locator("td").all_text_contents()] for row in grid.locator("tbody tr").all()]
    # Columns count from the right: a box to tick has no head in some versions.
    return [dict(zip(reversed(heads), reversed(row), strict=False)) for row in rows]
