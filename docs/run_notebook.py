"""Runs docs/example.ipynb in an empty folder and stores what it shows: ``python docs/run_notebook.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("example.ipynb")


def executed(folder: Path) -> Any:
    """The notebook with the outputs of a run in `folder`. Raises CellExecutionError if a cell fails.

    Where an object shows itself as a table or picture, that is its only output: its text would name this machine.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        for output in cell.get("outputs", ()):
            if len(output.get("data", ())) > 1:
                del output.data["text/plain"]
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as empty:
        nbformat.write(executed(Path(empty)), NOTEBOOK)
