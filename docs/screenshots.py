"""Takes the pictures of the dashboard that README and docs show: every page, light and dark, 1280x800.

    python docs/screenshots.py                       # the quickstart's results in out/, to docs/screenshots/
    python docs/screenshots.py OUT --study NAME --to FOLDER [--height 2400] [--view trial] [--address RAY]

Needs Playwright and a Chromium (on PATH, or named by SMOE_RAY_CHROMIUM).
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

from smoe_ray_dashboard.navigation import pages

ROOT = Path(__file__).resolve().parents[1]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTH, HEIGHT = 1280, 800
# Parts of a page that take some seconds are switched on; what a page does not have, it ignores.
SELECTIONS: dict[str, dict[str, str]] = {"routing": {"maps": "true", "probes": "true"}}
_PATIENCE_MS = 180_000
_SETTLE_MS = 1_500  # charts and tables draw themselves after the script has ended


@contextmanager
def serving(out: Path | str, *options: str, **environment: str) -> Iterator[str]:
    """URL of a dashboard on `out`, on a free port of loopback; `options` as `smoe-ray dashboard` takes them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "smoe_ray.cli", "dashboard", str(out), "--port", str(port), *options]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/_stcore/health", server)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        finally:
            server.kill()  # nothing, where it has ended
            server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the dashboard did not answer at {url} (exit code {server.poll()})")


def chromium() -> str | None:
    """The browser on this machine; None leaves the choice to Playwright."""
    return os.environ.get("SMOE_RAY_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def take(page: Page, url: str, to: Path) -> None:
    """The page at `url` as it looks when all of it has been drawn."""
    page.goto(url)
    page.locator("h1").first.wait_for()
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for(timeout=_PATIENCE_MS)
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')", timeout=_PATIENCE_MS)
    page.wait_for_timeout(_SETTLE_MS)
    page.screenshot(path=to, timeout=_PATIENCE_MS)


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", default="out")
    parser.add_argument("--study", help="the study to show; default: the first")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "screenshots")
    parser.add_argument("--height", type=int, default=HEIGHT)
    parser.add_argument("--view", action="append", help="this page alone; repeatable")
    parser.add_argument("--address", help="a Ray cluster, for the Submit page")
    arguments = parser.parse_args()
    shown = [view for view in pages() if arguments.address or not view.needs_cluster]
    views = [view for view in shown if not arguments.view or view.name in arguments.view]
    options = ["--address", arguments.address] if arguments.address else []
    arguments.to.mkdir(parents=True, exist_ok=True)
    with serving(arguments.out, *options) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for theme in ("light", "dark"):
            size = {"width": WIDTH, "height": arguments.height}
            page = browser.new_context(viewport=size, color_scheme=theme).new_page()
            for view in views:
                selections = SELECTIONS.get(view.name, {}) | ({"study": arguments.study} if arguments.study else {})
                to = arguments.to / f"{view.name.replace('_', '-')}-{theme}.png"
                take(page, f"{url}/{view.path}?{urlencode(selections)}", to)
                print(to)
        browser.close()


if __name__ == "__main__":
    main()
