"""The pages Trials and Compare in a real browser: a click selects, boxes add, and what is selected is compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from smoe_ray.results import read_trials
from support.browser_page import cells, drawn

Visit = Callable[..., Page]
LINE = 35
"""Height of a row, in pixels."""


def test_from_a_table_of_trials_to_a_comparison_of_two(visit: Visit, small_results: Path) -> None:
    page = visit("trials", study="arms", filter="test.reconstruction")
    shown = [row["trial"] for row in cells(page, 0)]
    table = page.get_by_test_id("stDataFrame").first

    def click(row: int, x: int) -> None:
        table.click(position={"x": x, "y": LINE * (row + 1) + LINE // 2})

    click(1, 150)  # a cell
    expect(page.get_by_role("link", name="Open trial")).to_be_visible()
    assert f"trials={shown[1]}" in page.url
    click(3, 150)  # another: alone
    page.wait_for_url(f"**trials={shown[3]}")
    click(0, 16)  # the box of a third: also
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.get_by_label("to", exact=True).fill("1")
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 selected, 2 of them filtered out")).to_be_visible()
    page.get_by_test_id("stMain").get_by_role("link", name="Compare").click()
    expect(page.get_by_role("heading", name="Compare")).to_be_visible()
    drawn(page)
    seeds = {record.trial_id: record.spec.seed for record in read_trials(small_results, "arms")}
    chips = page.get_by_test_id("stMultiSelect").first
    for trial in (shown[0], shown[3]):
        expect(chips).to_contain_text(f"seed {seeds[trial]}")
    expect(page.locator(".js-plotly-plot")).to_be_visible()
    page.get_by_text("Reconstructions", exact=True).click()
    expect(page.get_by_role("row").first).to_be_visible()
    pictures = page.get_by_test_id("stHtml").locator("table img")
    expect(pictures).to_have_count(3 * 10)
    assert all(picture.evaluate("image => image.naturalWidth") == 28 for picture in pictures.all()[:2])
