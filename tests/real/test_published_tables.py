"""The published tables that the package ships are those of the paper's data."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoe_ray.published import TABLES, read_file


@pytest.mark.parametrize("name", TABLES)
def test_the_package_ships_the_published_table(name: str, shared_data: Path) -> None:
    assert read_file(name) == (shared_data / "published" / name).read_bytes()
