"""Hosts of a test's own: network namespaces on one bridge. Needs root."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_NUMBERS = itertools.count(1)


@contextmanager
def network(names: tuple[str, ...]) -> Iterator[dict[str, tuple[str, str]]]:
    """A network namespace for each name, on one bridge: name -> (namespace, its address)."""
    number = next(_NUMBERS)  # names are new ones: what a network before this one leaves takes a moment to go
    tag = f"sm{os.getpid() % 100_000}{number}"
    subnet = f"10.{os.getpid() % 200 + 20}.{number}"
    with ExitStack() as stack:

        def ip(*words: str, undo: tuple[str, ...] = ()) -> None:
            subprocess.run(["ip", *words], check=True)
            if undo:
                stack.callback(subprocess.run, ["ip", *undo], check=False)

        bridge = f"{tag}b"
        ip("link", "add", bridge, "type", "bridge", undo=("link", "del", bridge))
        ip("addr", "add", f"{subnet}.254/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        made = {}
        for host, name in enumerate(names, 1):
            space = f"{tag}-{name}"
            ip("netns", "add", space, undo=("netns", "del", space))
            ip("link", "add", f"{tag}v{host}", "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", f"{tag}v{host}", "master", bridge, "up")
            for words in (
                ("addr", "add", f"{subnet}.{host}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
                ("route", "add", "default", "via", f"{subnet}.254"),  # leads nowhere; Ray asks which way is out
            ):
                ip("-n", space, *words)
            made[name] = (space, f"{subnet}.{host}")
        yield made
