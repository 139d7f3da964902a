"""The Routing page in a browser, on a real study."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from smoe_ray.analysis import arms
from smoe_ray.results import read_results

Visit = Callable[..., Page]
FADED = "path.point[style*='opacity: 0.12']"


def means(out: Path) -> dict[str, str]:
    """Mean test loss of each arm's finished trials, as the page writes it."""
    table = read_results(out, "arms")
    label_of = arms(table).astype(str)
    last = table[table["status"] == "finished"].drop_duplicates("trial_id", keep="last")
    by_arm = last.groupby(last["trial_id"].map(label_of))["test.reconstruction"].mean()
    return {str(arm): f"{mean:.2f}" for arm, mean in by_arm.items()}


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_the_numbers_are_those_of_the_table(visit: Visit, small_results: Path) -> None:
    mean = means(small_results)
    page = visit("routing", study="arms")
    reference = "supervised"
    for arm in mean.keys() - {reference}:
        page.goto(page.url.partition("?")[0] + f"?study=arms&arms={arm}&arms={reference}")
        said = page.get_by_test_id("stMarkdown").filter(has_text=f"{arm} and {reference}")
        expect(said).to_contain_text(f"mean {mean[arm]} against {mean[reference]}")


def test_choosing_the_flow_draws_it_and_stands_in_the_url(visit: Visit) -> None:
    page = visit("routing", study="arms")
    expect(page.locator(".js-plotly-plot .hm")).to_have_count(2)
    page.get_by_role("radio", name="Flow").click()
    expect(page.locator(".js-plotly-plot .sankey")).to_have_count(2)
    expect(page.locator(".js-plotly-plot .sankey").first).to_contain_text("pencil")
    expect(page).to_have_url(re.compile("routing=Flow"))


def mapped(visit: Visit) -> Page:
    """The page with its maps. The first time, the server loads what computes them."""
    page = visit("routing", study="arms")
    page.get_by_text("Compute t-SNE maps").click()
    expect(page.locator(".js-plotly-plot path.point")).to_have_count(1 + 2 * 60, timeout=60_000)
    return page


def circle(page: Page, chart: Locator, right: float) -> None:
    """Drag a lasso around the left part of a map, as far as `right` of its width."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    expect(chart.locator("path.point")).to_have_count(60)
    chart.evaluate("chart => chart.scrollIntoView({block: 'center'})")
    box = chart.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    corners = [(0.02, 0.02), (right, 0.02), (right, 0.98), (0.02, 0.98), (0.02, 0.04)]
    (x, y), *others = [(box["x"] + across * box["width"], box["y"] + down * box["height"]) for across, down in corners]
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in others:
        page.mouse.move(x, y, steps=4)
    page.mouse.up()


def said(page: Page) -> int:
    """Number of images that the page says are highlighted."""
    return int(page.get_by_text(re.compile(r"\d+ of 60 images are highlighted")).inner_text().split()[0])


def test_a_lasso_selection_on_one_map_is_highlighted_on_the_other(visit: Visit) -> None:
    page = mapped(visit)
    maps = [page.locator(".js-plotly-plot").nth(3), page.locator(".js-plotly-plot").nth(4)]
    expect(maps[1].locator("path.point")).to_have_count(60)
    circle(page, maps[0], 0.5)
    expect(page.get_by_text("images are highlighted")).to_be_visible()
    first = said(page)
    assert 0 < first < 60
    for chart in maps:
        expect(chart.locator(FADED)).to_have_count(60 - first)
    # Another circle, on the other map, takes the place of the first.
    circle(page, maps[1], 0.9)
    expect(page.get_by_text(f"{first} of 60 images are highlighted")).to_be_hidden()
    second = said(page)
    assert second != first
    for chart in maps:
        expect(chart.locator(FADED)).to_have_count(60 - second)


def test_a_class_is_highlighted_without_a_pointer(visit: Visit) -> None:
    page = mapped(visit)
    page.get_by_role("combobox", name=re.compile("Highlighted")).focus()
    page.keyboard.type("class pencil")
    page.keyboard.press("Enter")
    expect(page.get_by_text("20 of 60 images are highlighted")).to_be_visible()
    expect(page.get_by_text("classes: pencil 100%")).to_be_visible()
    expect(page).to_have_url(re.compile("picked=class\\+pencil|picked=class%20pencil"))
