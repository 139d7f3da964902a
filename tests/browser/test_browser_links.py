"""A link to a view carries its selections, and so does every way through the pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from smoe_ray.results import read_trials
from smoe_ray_dashboard.navigation import pages
from support.browser_page import drawn

Visit = Callable[..., Page]
SHOWN = [view for view in pages() if not view.needs_cluster]


@pytest.mark.parametrize("view", SHOWN, ids=lambda view: view.name)
def test_every_page_opens_by_its_link_on_the_study_in_it(visit: Visit, view: object) -> None:
    page = visit(view.name, study="surface")
    expect(page.get_by_role("heading", name=view.title, exact=True)).to_be_visible()
    expect(page.get_by_test_id("stSidebar").get_by_role("combobox")).to_have_value("surface")
    assert "study=surface" in page.url
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_what_is_chosen_is_in_the_link_and_comes_back_by_it(visit: Visit, small_results: Path) -> None:
    trial = read_trials(small_results, "surface")[7].trial_id
    page = visit("trial", study="surface")
    page.get_by_test_id("stMain").get_by_role("combobox").fill(trial)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**trial={trial}**")
    drawn(page)
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    drawn(page)
    expect(page.get_by_test_id("stMain").get_by_role("combobox")).to_have_value(re.compile(f"{trial}$"))


def test_the_study_goes_along_through_the_menu(visit: Visit) -> None:
    page = visit("studies", study="surface")
    for view in SHOWN[1:3]:
        page.get_by_test_id("stSidebarNavLink").filter(has_text=view.title).click()
        expect(page.get_by_role("heading", name=view.title, exact=True)).to_be_visible()
        drawn(page)
        expect(page.get_by_test_id("stSidebar").get_by_role("combobox")).to_have_value("surface")
        assert "study=surface" in page.url


def test_the_way_back_leads_back(visit: Visit) -> None:
    page = visit("trial", study="arms")
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Studies").click()
    expect(page.get_by_role("heading", name="Studies", exact=True)).to_be_visible()
    drawn(page)
    # Streamlit notes a change of pages and the selections there apart, in either order: Back may be needed twice.
    trial = page.get_by_role("heading", name="Trial", exact=True)
    page.go_back()
    drawn(page)
    if not trial.is_visible():
        page.go_back()
    expect(trial).to_be_visible()
