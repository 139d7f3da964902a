"""A server of this machine that answers every connection with what a test says, HTTP or not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Answer = Callable[[Callable[[bytes], None]], None]
"""Is given what sends bytes, and sends an answer."""


@contextmanager
def raw_server(answer: Answer) -> Iterator[int]:
    """A port of 127.0.0.1 on which every request gets the same answer, one after another."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65536)
                        answer(connection.sendall)
                        connection.shutdown(socket.SHUT_WR)
                        connection.settimeout(1)
                        while connection.recv(65536):  # closing with unread data would take the answer back
                            pass
                    except OSError:
                        pass  # the client has had enough

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
