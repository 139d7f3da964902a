"""The page of collapse in a browser: its numbers are those of the results."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from smoe_ray.analysis import collapse_rates, expert_deaths
from smoe_ray.analysis.arm_labels import coarse_arms
from smoe_ray.analysis.experts import experts_in_use
from smoe_ray.results import read_results

BUSY_MS = 60_000
"""For the first chart: Plotly is fetched with it, and a busy machine is no failure."""


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_numbers_are_those_of_the_results(visit: Callable[..., Page], small_results: Path) -> None:
    page = visit("collapse", study="arms")
    expect(page).to_have_title("Collapse: arms")
    results = read_results(small_results, "arms")
    chart = page.locator(".st-key-experts-in-use .js-plotly-plot")
    expect(chart.locator(".main-svg").first).to_be_visible(timeout=BUSY_MS)
    median = chart.evaluate("plot => Array.from(plot._fullData.find(one => one.name === 'median').y)")
    np.testing.assert_allclose(median, experts_in_use(results)[0].quantile_QT[3])
    experts = expert_deaths(results)
    dead, trials = int((experts["state"] == "dead").sum()), experts["trial_id"].nunique()
    expect(
        page.get_by_text(re.compile(f"Of {len(experts)} experts in {trials} trials, .* {dead} are dead and"))
    ).to_be_attached()
    rates = collapse_rates(results)
    collapsed, runs = sum(rate.collapsed for rate in rates), sum(rate.n for rate in rates)
    expect(page.get_by_text(f"{collapsed} of {runs} finished runs collapsed")).to_be_attached()


def test_the_grouping_in_the_url_is_taken(visit: Callable[..., Page], small_results: Path) -> None:
    page = visit("collapse", study="arms", part="Rates and survival", groups="objective and size")
    results = read_results(small_results, "arms")
    label_of = coarse_arms(results, ("routing", "objective.name", "model.num_experts"))
    for rate in collapse_rates(results, label_of=label_of):
        row = f"{rate.label} ({rate.collapsed} of {rate.n})"
        expect(page.locator(".st-key-collapse-rates").last).to_contain_text(row, timeout=BUSY_MS)
