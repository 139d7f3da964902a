"""The page Studies in a real browser: its numbers, a choice in its table, and that it follows a study that runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from smoe_ray.analysis.summary import trial_summary
from smoe_ray.results import Store, TrialFolder, read_results, read_trials
from support.browser_page import cells, drawn

Visit = Callable[..., Page]
Serve = Callable[..., AbstractContextManager[str]]
NOTE_WHAT_VANISHES = """() => {
  window.vanished = []
  new MutationObserver(changes => changes.forEach(change => change.removedNodes.forEach(node => {
    const found = [node, ...node.querySelectorAll?.("*") ?? []].map(one => one.dataset?.testid ?? one.localName)
    vanished.push(...found.filter(name => ["stDataFrame", "canvas", "h1", "stHeading"].includes(name)))
  }))).observe(document.querySelector("[data-testid=stMain]"), {childList: true, subtree: true})
}"""


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_studies_and_trials_are_those_of_the_files(visit: Visit, small_results: Path) -> None:
    page = visit("studies", study="arms")
    shown = {row["study"]: row for row in cells(page, 0)}
    assert {study: row["done"] for study, row in shown.items()} == {
        "arms": "7 of 9",
        "search": "10 of 10",
        "surface": "18 of 18",
    }
    summary = trial_summary(read_results(small_results, "arms"))
    listed = cells(page, 1)
    assert len(listed) >= 6
    for row, (_, expected) in zip(listed, summary.iterrows(), strict=False):
        assert row["trial"] == expected["trial_id"]
        assert float(row["test loss"]) == expected["test.reconstruction"]
        assert row["status"] == expected["status"]


def test_a_click_on_a_study_shows_its_trials(visit: Visit) -> None:
    page = visit("studies", study="arms")
    line = [row["study"] for row in cells(page, 0)].index("surface") + 1
    table = page.get_by_test_id("stDataFrame").first
    table.click(position={"x": 200, "y": 35 * line + 18})  # anywhere but in the box before the line
    expect(page.get_by_role("heading", name="surface")).to_be_visible()
    drawn(page)
    assert "study=surface" in page.url


def test_it_follows_a_study_that_runs(visit: Visit, small_results: Path, serve: Serve, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(small_results / "arms", out / "arms")
    record = next(record for record in read_trials(out, "arms") if record.status == "running")
    with serve(out) as url:
        page = visit("studies", url)
        assert cells(page, 0)[0]["done"] == "7 of 9"
        page.evaluate(NOTE_WHAT_VANISHES)
        TrialFolder(Store(out), "arms", record.trial_id).write_record(record.model_copy(update={"status": "finished"}))
        line = page.get_by_test_id("stDataFrame").first.locator("tbody")
        expect(line).to_contain_text("8 of 9")
        page.wait_for_timeout(500)
        assert page.evaluate("vanished") == []  # updated in place


def test_a_place_without_studies_shows_the_first_one_by_itself(
    visit: Visit, small_results: Path, serve: Serve, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with serve(out) as url:
        page = visit("studies", url)
        expect(page.get_by_text("contains no study yet")).to_be_visible()
        shutil.copytree(small_results / "arms", out / "arms")
        expect(page.get_by_role("heading", name="arms")).to_be_visible()
