"""Other processes: what they need to import helpers, waiting for what they do, and whether they are alive."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TESTS = str(Path(__file__).resolve().parents[1])


def wait_until(
    condition: Callable[[], object], what: str = "what the test waits for", seconds: float = 180, pause: float = 0.01
) -> None:
    """Wait for `condition()` to hold, and fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(pause)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def descendants(pid: int) -> dict[int, str]:
    """Names of the processes that this one started, and those that they started, by id."""
    name_of, parent_of = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            before, _, after = stat.read_text().rpartition(")")
            number = int(stat.parent.name)
            name_of[number], parent_of[number] = before.partition("(")[2], int(after.split()[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parent_of.items() if parent == each]
    return {each: name_of[each] for each in found[1:]}


def seeing_tests() -> dict[str, str]:
    """Environment in which a process that is started finds `support`."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))}
