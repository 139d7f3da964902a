"""Temporary folders and processes of a run go, however it ends; those of live runs and kept ones stay."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from smoe_ray.cluster.scratch import scratch
from support.processes import wait_until

DRIVER = """
import sys, time
from smoe_ray.cluster.scratch import scratch
with scratch() as made:
    made.end_with_us([int(sys.argv[1])])
    print(made.folder, flush=True)
    time.sleep(600)
"""


def test_a_killed_driver_takes_its_processes_and_its_folder_along() -> None:
    child = subprocess.Popen(["/bin/sleep", "600"])
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(child.pid)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    folder = Path(driver.stdout.readline().strip())
    assert folder.stat().st_mode & 0o777 == 0o700
    driver.kill()
    driver.communicate()
    wait_until(lambda: child.poll() is not None and not folder.exists(), seconds=20)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder for temporary files that no other run of this user knows, short enough for the paths of sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_what_a_dead_run_left_is_deleted_and_nothing_else(place: Path) -> None:
    dead, unknown = place / "smoe-1-dead", place / "smoe-1-unknown"
    for folder in (dead, unknown):
        folder.mkdir()
    (dead / "lock").touch()
    with scratch() as mine, scratch() as kept:
        kept.keep()
        assert {*place.iterdir()} == {unknown, mine.folder, kept.folder}
    with scratch() as later:
        assert {*place.iterdir()} == {unknown, kept.folder, later.folder}
    assert {*place.iterdir()} == {unknown, kept.folder}
