"""The router: pages, their URLs and order. docs/extending.md, which tests/test_extending.py follows, adds one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

import smoe_ray_dashboard.pages
from smoe_ray_dashboard import navigation


def test_every_folder_is_a_page_with_a_place_of_its_own_in_the_menu() -> None:
    [folder] = map(Path, smoe_ray_dashboard.pages.__path__)
    assert {page.name for page in navigation.pages()} == {init.parent.name for init in folder.glob("*/__init__.py")}
    positions = [page.position for page in navigation.pages()]
    assert positions == sorted(set(positions))
    assert [page.name for page in navigation.pages() if page.needs_cluster] == ["submit"]


def test_links_to_pages_stay_good_whatever_pages_are_added() -> None:
    known = ["", "loss_surface", "routing", "collapse", "search", "experts", "trial", "submit"]
    assert [page.path for page in navigation.pages() if page.path in known] == known


def test_no_module_is_imported_under_two_names(open_page: Callable[..., AppTest], begun: Path) -> None:
    open_page("trial", begun, study="begun")
    assert "smoe_ray_dashboard.pages.trial.view" in sys.modules
    assert not [name for name in sys.modules if name.partition(".")[0] == "dashboard"]
