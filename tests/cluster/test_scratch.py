"""Temporary folders and processes of a run go, however it ends; those of live runs and kept ones stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_what_a_dead_run_left_is_deleted_and_nothing_else() -> None:
    with scratch() as mine:
        dead = mine.folder.with_name("smoe-1-dead")
        dead.mkdir()
        (dead / "lock").touch()
        unknown = mine.folder.with_name("smoe-1-unknown")
        unknown.mkdir()
        with scratch() as kept:
            assert not dead.exists()
            assert unknown.exists()
            assert mine.folder.exists()
            kept.keep()
    with scratch():
        assert kept.folder.exists()
    for folder in (unknown, kept.folder):
        folder.rmdir()
