"""Fixtures of the data tests: no test reads or writes the user's own download cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The download cache of this test."""
    folder = tmp_path / "downloads"
    monkeypatch.setenv("SMOE_RAY_CACHE", str(folder))
    return folder
