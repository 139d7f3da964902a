"""The pages Trials and Compare in a real browser: a click selects, boxes add, and what is selected is compared."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from playwright.sync_api import Page, expect

from smoe_ray.results import Store, read_trials
from smoe_ray.results.annotations import Annotation, read_annotations
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
    expect(table.locator("tr[aria-selected=true]")).to_contain_text(shown[3])  # the answer has come to the table, too
    click(0, 16)  # the box of a third: also
    expect(page.get_by_text("2 selected")).to_be_visible()
    expect(table.locator("tr[aria-selected=true]")).to_have_count(2)
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


def test_a_trial_is_annotated_and_a_view_saved_and_taken(
    visit: Visit, serve: Callable[..., AbstractContextManager[str]], small_results: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(small_results / "arms", out / "arms")
    with serve(out, "--annotate") as url:
        selections: dict[str, str] = {"filter": "seed", "is.seed": "0"}
        page = visit("trials", url, study="arms", **selections)
        trial = cells(page, 0)[0]["trial"]
        page.get_by_test_id("stDataFrame").first.click(position={"x": 150, "y": LINE + LINE // 2})
        page.get_by_role("button", name="Annotate 1 trial").click()
        page.get_by_role("combobox", name="Tags").fill("keep")
        page.keyboard.press("Enter")
        page.get_by_role("textbox", name="Note").fill("look *again*")
        page.get_by_test_id("stForm").get_by_role("button", name="Save").click()
        expect(page.get_by_text("Starred only")).to_be_visible()  # there is something to choose by
        page.keyboard.press("Escape")
        [noted] = read_annotations(Store(out), "arms").trials.items()
        assert noted == (trial, Annotation(tags=("keep",), note="look *again*"))
        page.get_by_role("button", name="Views").click()
        page.get_by_label("Save this view as").fill("first seed")
        page.get_by_test_id("stForm").get_by_role("button", name="Save").click()
        expect(page.get_by_role("button", name="first seed", exact=True)).to_be_visible()
        page = visit("trials", url, study="arms", group="arm")
        page.get_by_role("button", name="Views").click()
        page.get_by_role("button", name="first seed", exact=True).click()
        expect(page.get_by_text("3 of 9 trials")).to_be_visible()
        drawn(page)
        assert "is.seed=0" in page.url
        assert "group=" not in page.url
        expect(page.get_by_test_id("stDataFrame").first).to_contain_text("look *again*")
