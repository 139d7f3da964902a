"""Rendering figures and saving them as SVG and PNG; no other module of this package writes files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smoe_ray.atomic_write import write_whole
from smoe_ray.errors import ResultsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 150
_SAVED: tuple[Literal["svg", "png"], ...] = ("svg", "png")

# No date and fixed element ids: the same figure gives the same bytes, so version control shows only real changes.
_OPTIONS: dict[str, dict[str, Any]] = {
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
    "png": {"dpi": PNG_DPI},
}


def save(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Write ``<folder>/<name>.svg`` and ``.png``; atomically, replacing older files.

    Args:
        figure: rendered once per format; not modified.
        folder: created if absent.
        name: file name without extension.

    Returns:
        The two paths.

    Raises:
        ResultsError: the name is a path, or the folder is not writable.
    """
    folder = Path(folder)
    if not name or Path(name).name != name:
        raise ResultsError(f"figure name {name!r}: give a plain file name; the folder is a separate argument")
    paths = []
    for ending in _SAVED:
        path = folder / f"{name}.{ending}"
        try:
            write_whole(path, render(figure, ending))
        except OSError as error:
            raise ResultsError(f"{path}: cannot be written: {error.strerror}; choose another folder") from None
        paths.append(path)
    return paths


def render(figure: Figure, ending: Literal["svg", "pdf", "png"]) -> bytes:
    """The figure as a file of that format; the same figure gives the same bytes."""
    import matplotlib

    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "smoe-ray", "svg.fonttype": "path"}):
        figure.savefig(drawn, format=ending, **_OPTIONS[ending])
    return drawn.getvalue()
