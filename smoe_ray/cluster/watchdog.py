"""Program that outlives its driver by a moment, whatever ends the driver: ends its processes, deletes its folder.

``python watchdog.py FOLDER`` reads ids of processes from standard input, one a line, until the other end is closed. It
then kills those that still run and deletes FOLDER, unless a line said ``keep``.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from contextlib import suppress

_DYING_MS = 5000
"""How long a killed process may write to the folder."""


def main(folder: str) -> None:
    """Wait for the driver's end, then tidy up."""
    processes, keep = [], False
    for line in sys.stdin:
        if line.strip() == "keep":
            keep = True
            continue
        with suppress(ProcessLookupError):
            processes.append(os.pidfd_open(int(line)))  # unlike its id, never another process
    for process in processes:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
    for process in processes:
        waiting = select.poll()
        waiting.register(process, select.POLLIN)
        waiting.poll(_DYING_MS)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
