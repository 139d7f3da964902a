"""A real Chromium before a live dashboard on the results of real small studies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from screenshots import FLAGS, chromium, serving

from smoe_ray_dashboard import navigation
from support.browser_page import drawn
from support.processes import seeing_tests

ROOT = Path(__file__).resolve().parents[2]
WAIT_MS = 30_000

expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="session")
def small_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT with the studies `arms`, `surface` and `search` of `support.small_studies`. Read-only: copy it to change it.

    SMOE_RAY_SMALL_RESULTS names a folder that has them already, which saves the making while tests are written.
    """
    if made := os.environ.get("SMOE_RAY_SMALL_RESULTS"):
        return Path(made)
    folder = tmp_path_factory.mktemp("small")
    environment = os.environ | {"SMOE_RAY_CACHE": str(folder / "cache")} | seeing_tests()
    program = [sys.executable, "-m", "support.small_studies", str(folder / "out")]
    subprocess.run(program, env=environment, check=True, timeout=300, capture_output=True)
    return folder / "out"


@pytest.fixture(scope="session")
def dashboard(small_results: Path) -> Iterator[str]:
    """URL of a dashboard on `small_results`, without the Submit page."""
    with serving(small_results) as url:
        yield url


@pytest.fixture(scope="module")  # while it is there an event loop runs, which others need not find
def browser() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        if os.environ.get("SMOE_RAY_REQUIRE_BROWSER"):
            pytest.fail("no chromium on PATH; SMOE_RAY_REQUIRE_BROWSER says that these tests must run")
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium; or set SMOE_RAY_CHROMIUM)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=["light"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of 1280x800 that fetches from loopback alone; the test fails on an error in its console."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=request.param)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # Behind a link to a view, Streamlit looks for its server below the view first, then at the root.
        if message.type == "error" and not re.search(r"/\w+/_stcore/", message.location.get("url", "")):
            errors.append(f"{message.text} ({message.location.get('url', '')})")

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda sent: errors.append(f"fetched {sent.url}") if _leaves(sent.url) else None)
    yield page
    context.close()
    assert not errors, errors


def _leaves(url: str) -> bool:
    return url.startswith(("http:", "https:", "ws:", "wss:")) and "//127.0.0.1:" not in url


@pytest.fixture
def visit(page: Page, dashboard: str) -> Callable[..., Page]:
    """Open view `view` of `dashboard` with selections in the URL, and wait until it has been drawn.

    ``page = visit("collapse", study="arms")``
    """

    def visit(view: str, url: str = dashboard, **selections: str | list[str]) -> Page:
        path = navigation.page(view).path
        page.goto(f"{url}/{path}?{urlencode(selections, doseq=True)}")
        drawn(page)
        return page

    return visit


@pytest.fixture
def serve(page: Page) -> Callable[..., AbstractContextManager[str]]:
    """`serving`, for results or options of a test's own: ``with serve(out, "--address", ray) as url``."""

    @contextmanager
    def serve(out: Path | str, *options: str, **environment: str) -> Iterator[str]:
        with serving(out, *options, **environment) as url:
            try:
                yield url
            finally:
                page.goto("about:blank")  # a page whose server goes fills its console with errors

    return serve


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser takes seconds a test: minutes in all."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
