"""The server: ``python -m smoe_ray_dashboard run app.py ... -- OUT`` is ``streamlit run`` that also preloads OUT."""

from __future__ import annotations

import importlib
import sys
import threading
import time

_FOR_PAGES = (
    "plotly.graph_objects",
    "scipy.interpolate",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.gaussian_process",
    "statsmodels.stats.proportion",
)
"""What charts and statistics take a second or two to import."""


def main() -> None:
    """Streamlit's own command line."""
    from streamlit.web import cli  # whole, before another thread imports any of it

    out = sys.argv[sys.argv.index("--") + 1]
    threading.Thread(target=_get_ready_when_up, args=(out,), daemon=True).start()
    cli.main(prog_name="streamlit")


def _get_ready_when_up(out: str) -> None:
    from streamlit import runtime

    while not runtime.exists():  # caches that are made before do not know where to keep things
        time.sleep(0.05)
    get_ready(out)


def get_ready(out: str) -> None:
    """Do what the first visitors would have to wait for."""
    from . import load

    load.read_ahead(out)
    for module in _FOR_PAGES:
        importlib.import_module(module)


if __name__ == "__main__":
    main()
