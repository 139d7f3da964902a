"""docs/example.ipynb: it runs, and what it shows is stored in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "example.ipynb"
SHOWN = [
    {"text/html"},
    {"text/plain"},
    *[{"text/html"}] * 3,
    *[{"image/png"}] * 2,
    {"text/html"},
    *[{"text/plain"}] * 2,
]
"""What each of the ten cells shows."""


def shown(cells: list[Any]) -> list[set[str]]:
    of_code = [cell for cell in cells if cell["cell_type"] == "code"]
    return [
        {kind for output in cell["outputs"] for kind in output.get("data", {output["output_type"]: ""})}
        for cell in of_code
    ]


def test_the_stored_notebook_is_executed_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert shown(json.loads(text)["cells"]) == SHOWN
    assert "host=" not in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_the_notebook_runs_from_a_study_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from run_notebook import executed

    monkeypatch.setenv("SMOE_RAY_CACHE", str(tmp_path / "cache"))
    assert shown(executed(tmp_path)["cells"]) == SHOWN
    assert (tmp_path / "report" / "index.html").stat().st_size > 10_000
    assert (tmp_path / "exported" / "model" / "model.safetensors").is_file()
