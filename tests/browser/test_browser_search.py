"""The Search page in a browser, on a real search."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from smoe_ray.results import read_results

Visit = Callable[..., Page]


def column(page: Page, name: str) -> list[str]:
    """The cells of a column of the table of trials, with all their digits, of the rows that are drawn."""
    table = page.get_by_test_id("stDataFrame").locator("table")
    table.locator("tbody tr").first.wait_for(state="attached", timeout=60_000)
    place = table.locator("thead th").all_text_contents().index(name)
    return [row.locator("td").nth(place).text_content() or "" for row in table.locator("tbody tr").all()]


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_a_search_is_drawn_and_its_numbers_are_those_of_the_table(visit: Visit, small_results: Path) -> None:
    page = visit("search", study="search")
    expect(page.locator(".js-plotly-plot")).to_have_count(5)
    page.get_by_role("heading", name="Trials").scroll_into_view_if_needed()
    last = read_results(small_results, "search").drop_duplicates("trial_id", keep="last")
    losses = set(last.loc[last["status"] == "finished", "test.reconstruction"])
    assert {float(cell) for cell in column(page, "test.reconstruction") if cell} == losses


def test_another_objective_turns_the_front_around_and_stands_in_the_url(visit: Visit) -> None:
    page = visit("search", study="search")
    front = page.locator(".js-plotly-plot").nth(1)
    expect(front).to_contain_text("test.reconstruction (minimize)")
    across = front.locator(".xtitle")
    expect(across).to_have_text("test.reconstruction (minimize)")
    page.get_by_role("combobox", name="Objective").click()
    page.get_by_role("option", name="experts.active_fraction").click()
    expect(across).to_have_text("experts.active_fraction (maximize)")
    expect(page).to_have_url(re.compile("objective=experts.active_fraction"))


def test_a_trial_of_the_table_leads_to_its_page(visit: Visit, small_results: Path) -> None:
    page = visit("search", study="search")
    page.get_by_role("heading", name="Trials").scroll_into_view_if_needed()
    first = re.search(r"trial=(\w+)$", column(page, "trial")[0])
    assert first
    grid = page.get_by_test_id("stDataFrame")
    grid.scroll_into_view_if_needed()
    box = grid.locator("canvas").first.bounding_box()
    assert box
    painted = box["x"] + 45, box["y"] + 50  # the link in the first row
    page.mouse.move(*painted)
    with page.context.expect_page() as opened:
        page.mouse.click(*painted, delay=80)
    expect(opened.value).to_have_url(re.compile(rf"/trial\?study=search&trial={first[1]}"))
    assert first[1] in set(read_results(small_results, "search")["trial_id"])


def test_a_brush_is_exact_and_filters_the_table(visit: Visit, small_results: Path) -> None:
    page = visit("search", study="search")
    last = read_results(small_results, "search").drop_duplicates("trial_id", keep="last")
    losses = sorted(last.loc[last["status"] == "finished", "test.reconstruction"])
    chart = page.locator(".st-key-parallel-coordinates .js-plotly-plot")
    chart.scroll_into_view_if_needed()
    bar = chart.locator(".axis-brush .background").first
    bar.wait_for(state="attached", timeout=60_000)
    page.wait_for_function(
        "() => document.querySelector('.st-key-parallel-coordinates .js-plotly-plot')?.tellsItsBrush", timeout=60_000
    )
    box = bar.bounding_box()
    span = chart.evaluate("plot => plot._fullData[0].dimensions[0].range")
    assert box
    x, dragged = box["x"] + box["width"] / 2, 0.7 * box["height"]
    page.mouse.move(x, box["y"] + 0.9 * box["height"])
    page.mouse.down()
    page.mouse.move(x, box["y"] + 0.9 * box["height"] - dragged, steps=8)
    page.mouse.up()
    told = page.get_by_text("inside the brushed ranges")
    expect(told).to_be_visible(timeout=30_000)
    low, high = chart.evaluate("plot => plot.data[0].dimensions[0].constraintrange.flat()")
    # What was dragged over, and no value or tick near it; a bar has some pixels beyond its axis.
    assert (high - low) / (span[1] - span[0]) == pytest.approx(dragged / box["height"], rel=0.05)
    kept = [loss for loss in losses if low <= loss <= high]
    assert 0 < len(kept) < len(losses)
    expect(told).to_contain_text(f"{len(kept)} of {len(losses)}")
    assert sorted(float(cell) for cell in column(page, "test.reconstruction")) == pytest.approx(kept, abs=0.01)
