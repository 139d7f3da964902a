"""The server: ``python -m smoe_ray_dashboard run server.py ... -- OUT`` is ``streamlit run`` that also preloads OUT."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time

_SLOW_IMPORTS = (
    "plotly.graph_objects",
    "scipy.interpolate",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.gaussian_process",
    "statsmodels.stats.proportion",
)
"""Packages of charts and statistics that take a second or two to import."""

_SECONDS_TO_END = 3.0
"""The server ends so long after Ctrl-C or SIGTERM, whatever it still waits for."""


def main() -> None:
    """Streamlit's own command line."""
    from streamlit.web import cli  # imported completely before another thread imports a part of it

    out = sys.argv[sys.argv.index("--") + 1]
    end_after_signal(_SECONDS_TO_END)
    threading.Thread(target=_warm_up_when_running, args=(out,), daemon=True).start()
    cli.main(prog_name="streamlit")


def end_after_signal(seconds: float) -> None:
    """End this process `seconds` after SIGINT or SIGTERM, if its own handlers have not ended it by then.

    The server waits for its connections without a limit, and a browser's spare connection may never close. Results are
    only read here, so that nothing is lost.
    """
    received, note = os.pipe()
    os.set_blocking(note, False)
    signal.set_wakeup_fd(note, warn_on_full_buffer=False)  # the number of each signal, whoever handles it

    def wait() -> None:
        number = 0
        while number not in (signal.SIGINT, signal.SIGTERM):
            number = os.read(received, 1)[0]
        time.sleep(seconds)
        os._exit(128 + number)

    threading.Thread(target=wait, daemon=True).start()


def _warm_up_when_running(out: str) -> None:
    from streamlit import runtime

    while not runtime.exists():  # a cache that is created earlier has no storage
        time.sleep(0.05)
    warm_up(out)


def warm_up(out: str) -> None:
    """Read OUT and import slow packages, so that the first visitor does not wait for it."""
    from . import load

    load.read_ahead(out)
    for module in _SLOW_IMPORTS:
        importlib.import_module(module)


if __name__ == "__main__":
    main()
