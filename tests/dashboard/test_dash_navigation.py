"""The router: pages, their URLs and order; a page is added by its folder alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import smoe_ray_dashboard.pages
from smoe_ray_dashboard import navigation

PAGE = """
from smoe_ray_dashboard.navigation import Page
PAGE = Page(__name__, title="Weather", icon="sunny", position=35, question="Does it rain?")
"""
VIEW = """
import streamlit as st
from smoe_ray_dashboard import page
from . import PAGE

def show() -> None:
    page.show(PAGE, lambda study: st.text(f"It never rains in {study}."))
"""


def test_paths_of_the_pages_in_the_order_of_the_menu() -> None:
    paths = ["", "loss_surface", "routing", "collapse", "search", "experts", "trial", "submit"]
    assert [page.path for page in navigation.pages()] == paths
    assert len({page.position for page in navigation.pages()}) == len(paths)
    assert [page.name for page in navigation.pages() if page.needs_cluster] == ["submit"]


@pytest.fixture
def weather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A page `weather` beside the others, which stay as they are."""
    folder = tmp_path / "pages" / "weather"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PAGE)
    (folder / "view.py").write_text(VIEW)
    pages = smoe_ray_dashboard.pages
    monkeypatch.setattr(pages, "__path__", [*pages.__path__, str(folder.parent)])
    navigation.pages.cache_clear()
    yield
    navigation.pages.cache_clear()
    for name in [name for name in sys.modules if name.startswith(f"{pages.__name__}.weather")]:
        del sys.modules[name]


@pytest.mark.usefixtures("weather")
def test_a_page_is_added_by_its_folder_alone(open_page: Callable[..., AppTest], begun: Path) -> None:
    names = [page.name for page in navigation.pages()]
    assert names[names.index("routing") + 1] == "weather"
    at = open_page("weather", begun, study="begun")
    assert "It never rains in begun." in [text.value for text in at.text]


def test_no_module_is_imported_under_two_names(open_page: Callable[..., AppTest], begun: Path) -> None:
    open_page("trial", begun, study="begun")
    assert "smoe_ray_dashboard.pages.trial.view" in sys.modules
    assert not [name for name in sys.modules if name.partition(".")[0] == "dashboard"]
