"""The server of the dashboard as a process."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import streamlit
from playwright.sync_api import Browser, expect
from screenshots import serving

from support.browser_page import drawn


def test_it_ends_while_a_client_reads_no_further(tmp_path: Path) -> None:
    static = Path(streamlit.__file__).parent / "static"
    large = max((static / "static" / "js").iterdir(), key=lambda file: file.stat().st_size)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with serving(tmp_path) as url:  # terminates it, and fails where it goes on
            server = urlsplit(url)
            client.connect((server.hostname, server.port))
            request = f"GET /{large.relative_to(static)} HTTP/1.1\r\nHost: {server.netloc}\r\n\r\n"
            client.sendall(request.encode())
            assert client.recv(12) == b"HTTP/1.1 200"


def test_a_link_opens_after_the_log_in(browser: Browser, small_results: Path) -> None:
    token = "a token of this test"
    with serving(small_results, SMOE_RAY_DASHBOARD_TOKEN=token) as url, browser.new_context() as visitor:
        page = visitor.new_page()
        page.goto(f"{url}/collapse?study=arms")
        page.keyboard.type("not the token of this test")  # the field has the focus
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("This is not the token.")
        assert page.get_by_role("textbox", name="Token").evaluate("field => field === document.activeElement")
        page.keyboard.type(token)
        page.keyboard.press("Enter")
        drawn(page)
        assert page.url.startswith(f"{url}/collapse?study=arms")
        expect(page.get_by_role("heading", name="Collapse", exact=True)).to_be_visible()
        page = visitor.new_page()  # of the same browser: no log-in
        page.goto(url)
        drawn(page)
        page.goto("about:blank")
