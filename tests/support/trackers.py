"""What trackers of experiments wrote, by their own readers; and whether they asked the internet for anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


def read_wandb(file: Path) -> dict[str, Any]:
    """A run's file, by W&B's own reader: its fields, config, history (a mapping per step), summary and exit code."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    ran = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"WANDB_MODE": "offline"}
    )
    run: dict[str, Any] = {"history": [], "summary": {}}
    for record in map(json.loads, ran.stdout.splitlines()):
        content = record[record["type"]]
        if record["type"] == "run":
            run |= content | {"config": content["config"]["update"]}
        elif record["type"] == "history":
            run["history"].append(content["item"])
        elif record["type"] == "summary":
            run["summary"] |= content["update"]
        elif record["type"] == "exit":
            run["exit_code"] = content["exit_code"]
    return run


@contextmanager
def unreachable_internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Requests to anything beyond this machine are refused, and listed: they go through a proxy."""
    asked: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(403)

        do_GET = do_POST = do_HEAD = do_CONNECT

        def log_message(self, *_words: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
