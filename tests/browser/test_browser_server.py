"""The server of the dashboard as a process."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import streamlit
from screenshots import serving


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
