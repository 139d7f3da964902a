"""Opening a page of the dashboard without a browser."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from smoe_ray_dashboard.navigation import page
from support.planted_folder import plant

APP = Path(__file__).resolve().parents[2] / "dashboard" / "script" / "app.py"


@pytest.fixture(autouse=True)
def _main_module_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit puts its script in the place of the main module, which processes that are spawned later would run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """Open a page on `out`, with selections as its URL would carry them. Fails on a traceback on the page.

    It also fails where a part of the page could not be shown, except with `may_lack_parts`: for damaged results.

    ``at = open_page("trial", out, study="arms", trial="0a1b2c3d4e5f")``; then ``at.selectbox(key="trial")`` and so on.
    """
    st.cache_data.clear()
    st.cache_resource.clear()

    def open_page(
        name: str,
        out: Path | str,
        *,
        address: str | None = None,
        annotate: bool = False,
        may_lack_parts: bool = False,
        **selections: str | list[str],
    ) -> AppTest:
        options = [*(["--address", address] if address else []), *(["--annotate"] if annotate else [])]
        monkeypatch.setattr(sys, "argv", [str(APP), str(out), *options])
        at = AppTest.from_file(APP, default_timeout=60)
        at.query_params.update(selections)
        at.run()
        if name != "studies":
            at.query_params.update(selections)
            at._page_hash = calc_hash(name)  # its switch_page knows files alone, and our pages are functions
            at.run()
        assert not at.exception, [one.message for one in at.exception]
        assert [one.value for one in at.title] == [page(name).title], f"page {name} is not shown"
        lacking = [one.value for one in at.error if "This could not be shown" in one.value]
        assert may_lack_parts or not lacking, lacking
        return at

    return open_page


@pytest.fixture
def said() -> Callable[[AppTest], str]:
    """All sentences of a page as one text, without what keeps Markdown from reading them."""

    def said(at: AppTest) -> str:
        kinds = (at.title, at.subheader, at.caption, at.markdown, at.text, at.info, at.warning, at.error, at.success)
        sentences = [one.value for kind in kinds for one in kind]
        metrics = [f"{metric.label}: {metric.value}" for metric in at.metric]
        return "\n".join([*sentences, *metrics]).replace("\\", "")

    return said


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """OUT with study `begun`, whose only trial runs."""
    plant(
        tmp_path, "begun", objectives=("blend",), experts=(4,), seeds=1, embeddings=False, ends=[{"status": "running"}]
    )
    return tmp_path
