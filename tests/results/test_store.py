"""A file below OUT appears whole or not at all, wherever OUT is."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from smoe_ray.errors import ResultsError
from smoe_ray.results import Store


@pytest.fixture(params=["path", "file", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/out"
    return str(tmp_path / "out") if request.param == "path" else f"file://{tmp_path}/out"


def test_what_is_written_is_read(out: str) -> None:
    store = Store(out)
    assert store.read("a/b.bin") is None
    assert store.folders("a") == []
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"two")
    store.write("a/sub/c.bin", b"")
    store.write("z.bin", b"x")
    assert store.read("a/b.bin") == b"two"
    assert store.read("a/sub/c.bin") == b""
    assert store.folders() == ["a"]
    assert store.folders("a") == ["sub"]
    assert Store(out).read("z.bin") == b"x"


def test_remove_takes_a_folder_and_nothing_else(out: str) -> None:
    store = Store(out)
    store.write("a/sub/c.bin", b"c")
    store.write("a/b.bin", b"b")
    store.remove("a/sub")
    store.remove("a/sub")
    assert store.read("a/sub/c.bin") is None
    assert store.read("a/b.bin") == b"b"
    assert store.folders("a") == []


def test_a_store_travels_to_another_process(out: str) -> None:
    store = Store(out)
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


def test_a_place_that_fsspec_cannot_reach_is_one_line() -> None:
    with pytest.raises(ResultsError, match="nosuchprotocol://x: not a place for results") as caught:
        Store("nosuchprotocol://x")
    assert "\n" not in str(caught.value)


def test_a_missing_package_for_a_protocol_is_one_line_that_names_it() -> None:
    with pytest.raises(ResultsError, match=r"abfs://bucket/x: .*adlfs"):
        Store("abfs://bucket/x")


def test_an_unwritable_place_is_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ResultsError, match=r"taken/sub/x: cannot be written: ") as caught:
        Store(tmp_path / "taken").write("sub/x", b"")
    assert "\n" not in str(caught.value)
    assert Store(tmp_path / "taken").read("sub/x") is None


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write("a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match="No space left"):
        store.write("a", b"new")
    assert store.read("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


_WRITER = """
import sys
from smoe_ray.results import Store
store, number = Store(sys.argv[1]), 0
while True:
    number = (number + 1) % 250
    store.write("file", bytes([number]) * 200_000)
"""


def test_a_reader_never_sees_half_a_file_though_writers_are_killed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)])
        deadline = time.monotonic() + 20
        while store.read("file") is None and time.monotonic() < deadline:
            time.sleep(0.01)
        stop = time.monotonic() + 0.3
        while time.monotonic() < stop:
            content = store.read("file")
            assert content is not None
            assert len(content) == 200_000
            assert len(set(content)) == 1
        writer.kill()
        writer.wait()
    content = store.read("file")
    assert content is not None
    assert len(content) == 200_000
    assert len(set(content)) == 1
