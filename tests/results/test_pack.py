"""Copies of the trials' small files: what they save, and that they are never believed against the files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from smoe_ray.errors import StorageError
from smoe_ray.results import Packer, Store, StudyReader, read_results
from smoe_ray.results.pack import PACKS
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import Toy, toy_grid

SEEDS = list(range(24))  # more than are read one by one


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    """A study in a place that is no folder."""
    uri = f"memory://{tmp_path.name}/results"
    run_study(toy_grid(seeds=SEEDS), uri, LocalExecutor(fit=Toy()), cache=tmp_path / "cache")
    yield uri
    Store(uri)._fs.store.clear()


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read one by one."""
    names: list[str] = []
    plain = Store.read_many

    def noted(store: Store, wanted: Sequence[str]) -> Any:
        names.extend(wanted)
        return plain(store, wanted)

    monkeypatch.setattr(Store, "read_many", noted)
    return names


def looked(uri: str) -> StudyReader:
    reader = StudyReader(uri, "toy")
    reader.look()
    return reader


def test_a_study_is_read_from_its_packs(bucket: str, fetched: list[str]) -> None:
    reader = looked(bucket)
    table = reader.table()
    assert fetched == []
    assert len(reader.records()) == len(SEEDS)
    pd.testing.assert_frame_equal(table, read_results(bucket, "toy"))


@pytest.mark.parametrize("file", PACKS)
def test_a_file_that_was_written_again_is_read_itself(bucket: str, fetched: list[str], file: str) -> None:
    trial = next(iter(looked(bucket).records()))
    name = f"toy/trials/{trial}/{file}"
    Store(bucket).write(name, b"broken")
    reader = looked(bucket)
    assert trial not in set(reader.table()["trial_id"])
    assert f"{file}: " in reader.problems()[0]
    assert fetched == [name]


def test_a_trial_that_is_gone_does_not_come_back(bucket: str) -> None:
    trial = next(iter(looked(bucket).records()))
    Store(bucket).remove(f"toy/trials/{trial}")
    assert trial not in looked(bucket).records()


def bomb() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0" * 12 + "/tag", bytes(50_000_000))
        archive.writestr("../../../etc/passwd", b"root")
    return content.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK no zip", bomb()], ids=["empty", "garbage", "bomb"])
def test_a_pack_of_strangers_is_as_good_as_none(bucket: str, fetched: list[str], content: bytes) -> None:
    before = looked(bucket).table()
    for pack in PACKS.values():
        Store(bucket).write(f"toy/{pack}", content)
    reader = looked(bucket)
    pd.testing.assert_frame_equal(reader.table(), before)
    assert reader.problems() == []
    assert len(fetched) == 2 * len(SEEDS)


def test_a_torn_copy_is_as_good_as_none(bucket: str) -> None:
    before = looked(bucket).table()
    store = Store(bucket)
    for pack in PACKS.values():
        content = bytearray(store.read(f"toy/{pack}") or b"")
        content[len(content) // 3] ^= 0xFF
        store.write(f"toy/{pack}", bytes(content))
    pd.testing.assert_frame_equal(looked(bucket).table(), before)


def test_packs_grow_with_the_study_and_copy_only_what_is_new(bucket: str, fetched: list[str], tmp_path: Path) -> None:
    study = toy_grid(seeds=[*SEEDS, 99])
    run_study(study, bucket, LocalExecutor(fit=Toy()), cache=tmp_path / "cache")
    assert len(fetched) == 2
    run_study(study, bucket, LocalExecutor(fit=Toy()), cache=tmp_path / "cache")
    assert len(fetched) == 2
    assert len(looked(bucket).records()) == len(SEEDS) + 1
    assert len(fetched) == 2


def test_packs_are_written_as_trials_end_but_not_at_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packer = Packer(Store("memory://elsewhere"), "toy")
    written: list[int] = []
    monkeypatch.setattr(packer, "write", lambda: written.append(0))
    for trials in range(1, 2001):
        packer.ended(trials)
    assert 30 < len(written) < 60


def test_a_folder_has_no_packs(out: Path) -> None:
    run_study(toy_grid(seeds=[0]), out, LocalExecutor(fit=Toy()))
    assert not (out / "toy" / "packed").exists()


def test_what_the_bucket_refuses_ends_no_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Store.write

    def write(store: Store, name: str, content: bytes) -> None:
        if "packed" in name:
            raise StorageError("full")
        plain(store, name, content)

    monkeypatch.setattr(Store, "write", write)
    uri = f"memory://{tmp_path.name}/results"
    [record] = run_study(toy_grid(seeds=[0]), uri, LocalExecutor(fit=Toy()), cache=tmp_path / "cache")
    assert record.status == "finished"
    assert not [name for name in Store(uri).files("toy") if "packed" in name]
