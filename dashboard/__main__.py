"""The server: ``python -m smoe_ray_dashboard run server.py ... -- OUT`` is ``streamlit run`` that also preloads OUT."""

from __future__ import annotations

import importlib
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


def main() -> None:
    """Streamlit's own command line."""
    from streamlit.web import cli  # imported completely before another thread imports a part of it

    out = sys.argv[sys.argv.index("--") + 1]
    threading.Thread(target=_warm_up_when_running, args=(out,), daemon=True).start()
    cli.main(prog_name="streamlit")


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
