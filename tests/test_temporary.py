"""Temporary folders: where TMPDIR says, else where one can be made, and open to nobody else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from smoe_ray import temporary
from smoe_ray.errors import SmoeRayError
from smoe_ray.temporary import private_folder, temporary_folder


@pytest.fixture
def tmpdir_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_it_is_below_tmpdir_and_private(tmpdir_is: Path) -> None:
    with temporary_folder("smoe-test-") as folder:
        assert Path(folder).parent == tmpdir_is
        assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert not any(tmpdir_is.iterdir())


def test_a_place_that_is_too_long_absent_or_full_is_passed_over(
    tmpdir_is: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmpdir_is / "2"
    second.mkdir()
    monkeypatch.setattr(temporary, "_PLACES", (str(tmpdir_is / "absent"), str(second)))
    assert private_folder("a-", most_characters=len(str(tmpdir_is))).parent == tmpdir_is
    monkeypatch.setattr(tempfile, "tempdir", str(tmpdir_is / "much" / "longer" / "than" / "that"))
    assert private_folder("b-", most_characters=len(str(second))).parent == second
    full = SimpleNamespace(f_bavail=10, f_frsize=4096)
    room = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda place: room(place) if place == str(second) else full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmpdir_is))
    assert private_folder("c-").parent == second


def test_where_there_is_no_place_it_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none_usable() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    monkeypatch.setattr(temporary, "_PLACES", (str(tmp_path / "absent"), str(tmp_path / "gone")))
    with pytest.raises(SmoeRayError, match=r"no place for temporary files \(.*absent: No such file"):
        private_folder("a-")
