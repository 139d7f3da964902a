"""What axe-core finds on every page: text that is too faint, pictures without a description, what no key reaches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from smoe_ray_dashboard.navigation import pages

STUDY_OF = {"loss_surface": "surface", "search": "search"}
SERIOUS = ("serious", "critical")


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_axe_finds_nothing_serious_on_any_page(visit: Callable[..., Page]) -> None:
    found = []
    for view in pages():
        if view.needs_cluster:
            continue
        page = visit(view.name, study=STUDY_OF.get(view.name, "arms"))
        expect(page.get_by_test_id("stSkeleton")).to_have_count(0)  # parts that are still to come
        violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        found += [
            f"{view.name}: {each['id']}: {node['html'][:200]}"
            for each in violations
            if each["impact"] in SERIOUS
            for node in each["nodes"]
        ]
    assert not found, "\n".join(found)
