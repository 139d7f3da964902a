"""Temporary folder of a run that uses Ray: it goes, with the processes that belong to it, however the run ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smoe_ray.temporary import private_folder

_PREFIX = "smoe-"
_MOST_CHARACTERS = 107 - len("/smoe-1234567-abcdefgh/r/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
"""Before what is below it in the path of a socket of Ray's, which may have 107 (sun_path of unix(7))."""

_LOCK = "lock"
"""File in each such folder that its run holds locked; the kernel releases it when the run dies."""


class Scratch:
    """Temporary folder, and processes that a watchdog ends when this process does."""

    def __init__(self, folder: Path, watchdog: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.is_kept = False
        self._watchdog = watchdog

    def end_with_us(self, processes: Iterable[int]) -> None:
        """End these processes (ids) together with the folder."""
        self._tell("".join(f"{each}\n" for each in processes))

    def keep(self) -> None:
        """Do not delete the folder: a user needs what is in it."""
        if not self.is_kept:
            self.is_kept = True
            self._tell("keep\n")
            (self.folder / _LOCK).unlink(missing_ok=True)  # no later run takes it for a dead one's

    def end(self) -> None:
        """End the processes now, and delete the folder unless it is kept."""
        assert self._watchdog.stdin is not None
        with suppress(OSError):  # it was killed
            self._watchdog.stdin.close()
        self._watchdog.wait()
        if not self.is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _tell(self, lines: str) -> None:
        assert self._watchdog.stdin is not None
        with suppress(OSError):
            self._watchdog.stdin.write(lines)
            self._watchdog.stdin.flush()


@contextmanager
def scratch() -> Iterator[Scratch]:
    """Context with a temporary folder, for this user alone. Deletes first what dead runs of the user have left.

    Raises: as `private_folder` does.
    """
    folder = private_folder(f"{_PREFIX}{os.getpid()}-", _MOST_CHARACTERS)
    _delete_left_over(folder.parent)  # which is where they were made, too
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = Scratch(folder, _start_watchdog(folder))
        try:
            yield made
        finally:
            made.end()


def _start_watchdog(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603  # our own program
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("watchdog.py")), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C, a closed terminal and kill -- -GROUP end the driver, not its watchdog
        text=True,
    )


def _delete_left_over(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*-*"):
        with suppress(OSError):  # another user's, none of ours, or locked: its run lives
            if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
                continue
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
