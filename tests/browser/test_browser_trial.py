"""The page Trial in a real browser: its numbers, another trial, its error, and what is downloaded."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from smoe_ray.analysis.summary import trial_summary
from smoe_ray.results import Store, TrialFolder, read_results, read_trials
from support.browser_page import drawn

Visit = Callable[..., Page]


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_numbers_are_those_of_the_table_command(visit: Visit, small_results: Path) -> None:
    summary = trial_summary(read_results(small_results, "arms"))
    row = summary[summary["status"] == "finished"].iloc[0]
    page = visit("trial", study="arms", trial=row["trial_id"])
    for label, value in {
        "test loss": f"{row['test.reconstruction']:.2f}",
        "soft loss": f"{row['test.reconstruction_soft']:.2f}",
        "gap": f"{row['gap']:.2f}",
        "epochs": "3",
    }.items():
        metric = page.get_by_test_id("stMetric").filter(has_text=label).get_by_test_id("stMetricValue")
        expect(metric).to_have_text(value)
    expect(page.locator(".js-plotly-plot")).to_have_count(2)


def test_a_failed_trial_is_a_choice_away(visit: Visit, small_results: Path) -> None:
    failed = next(record for record in read_trials(small_results, "arms") if record.status == "failed")
    page = visit("trial", study="arms")
    page.get_by_test_id("stMain").get_by_role("combobox").fill(failed.trial_id)
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("stAlert")).to_contain_text(
        "DivergedError: the loss became NaN in epoch 2"
    )  # and no other
    drawn(page)
    assert f"trial={failed.trial_id}" in page.url
    page.get_by_text("Traceback", exact=True).click()
    expect(page.get_by_text('File "fit.py", line 1, in fit')).to_be_visible()


def test_what_is_downloaded(visit: Visit, small_results: Path, tmp_path: Path) -> None:
    results = read_results(small_results, "arms")
    trial = results[results["status"] == "finished"]["trial_id"].iloc[0]
    page = visit("trial", study="arms", trial=trial)

    def taken(label: str) -> Path:
        with page.expect_download() as download:
            page.get_by_role("button", name=label).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    table = pd.read_csv(taken("Epochs (CSV)"))
    expected = results[results["trial_id"] == trial]
    assert list(table.columns) == list(expected.columns)
    assert table["test.reconstruction"].round(9).tolist() == expected["test.reconstruction"].round(9).tolist()
    assert b"<svg" in taken("Curves (SVG)").read_bytes()
    assert taken("Curves (PNG)").read_bytes().startswith(b"\x89PNG")
    command = [sys.executable, "-m", "smoe_ray.cli", "check", str(taken("Run again (YAML)"))]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_a_running_trial_tells_how_far_it_is_and_its_end_without_a_reload(
    visit: Visit, small_results: Path, serve: Callable[..., AbstractContextManager[str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(small_results / "arms", out / "arms")
    record = next(record for record in read_trials(out, "arms") if record.status == "running")
    folder = TrialFolder(Store(out), "arms", record.trial_id)
    folder.write_record(record.model_copy(update={"host": socket.gethostname()}))
    with serve(out) as url, folder.claim(0) as held:
        assert held
        page = visit("trial", url, study="arms", trial=record.trial_id)
        expect(
            page.get_by_text(re.compile(r"Running: epoch 2 of 3, about \d+ s left, as of \d+ s ago"))
        ).to_be_visible()
        metric = page.get_by_test_id("stMetric").filter(has_text="epochs").get_by_test_id("stMetricValue")
        expect(metric).to_have_text("2 of 3")
        other = page.context.new_page()
        other.goto(f"{url}/collapse?study=arms")
        expect(other.get_by_text("5 of 5 finished runs collapsed")).to_be_visible()
        expect(other.get_by_text("1 trial running: epoch 2 of 3")).to_be_visible()
        rows = folder.read_rows()
        folder.write_epochs([*rows, rows[-1] | {"epoch": 3, "test.reconstruction": 12.34}])
        folder.write_record(record.model_copy(update={"status": "finished"}))
        expect(page.get_by_text("Finished after 3 epochs: test loss 12.34, the best of 8 finished")).to_be_visible()
        expect(metric).to_have_text("3")
        expect(page.get_by_text("Running: epoch")).to_have_count(0)
        expect(other.get_by_text("6 of 6 finished runs collapsed")).to_be_visible()
        other.close()
