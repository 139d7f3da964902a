"""The page of the loss surface in a browser: its numbers are those of the results."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from smoe_ray.analysis import loss_surface, recommend
from smoe_ray.results import read_results

BUSY_MS = 60_000
"""For the first chart: Plotly is fetched with it, and a busy machine is no failure."""


def points(page: Page, chart: str, name: str) -> list[list[float]]:
    """x and y of a trace, as the browser holds them."""
    found: list[list[float]] = page.locator(f".st-key-{chart} .js-plotly-plot").evaluate(
        "(plot, name) => { const trace = plot._fullData.find(one => one.name.startsWith(name));"
        " return [Array.from(trace.x), Array.from(trace.y)]; }",
        name,
    )
    return found


def test_cells_and_answer_are_those_of_the_results(visit: Callable[..., Page], small_results: Path) -> None:
    page = visit("loss_surface", study="surface")
    results = read_results(small_results, "surface")
    expect(page.locator(".st-key-loss-surface .main-svg").first).to_be_visible(timeout=BUSY_MS)
    (cells, *_) = loss_surface(results).surfaces
    assert points(page, "loss-surface", "mean of a cell") == [cells.x_C.tolist(), cells.experts_C.tolist()]
    expect(page.get_by_test_id("stAlert").last).to_contain_text(recommend(results).sentence.splitlines()[0][:60])


def test_a_switch_changes_figure_and_url(visit: Callable[..., Page], small_results: Path) -> None:
    page = visit("loss_surface", study="surface", figure="experts")
    chart = page.locator(".st-key-loss-against-experts").last  # while it is redrawn, the old one stands beside
    expect(chart.locator(".main-svg").first).to_be_visible(timeout=BUSY_MS)
    expect(chart).not_to_contain_text("published, arXiv")
    page.get_by_text("Overlay published results").click()
    expect(chart).to_contain_text("published, arXiv:2509.10025")
    expect(page).to_have_url(re.compile("published=true"))
    page.get_by_role("radio", name="configured").or_(page.get_by_role("button", name="configured")).first.click()
    expect(page.get_by_text("Published results are for active experts and hard loss")).to_be_visible()
    expect(chart).to_contain_text("configured experts")
