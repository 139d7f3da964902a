"""A study that is looked at again: the table of `read_results`, unchanged files unread, what is broken said."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoe_ray.errors import ResultsError, StorageError
from smoe_ray.results import Store, StudyReader, read_results
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import Toy, toy_grid
from support.planted_folder import plant


@pytest.fixture
def reader(out: Path) -> StudyReader:
    plant(out, "demo", embeddings=False)
    return looked(StudyReader(out, "demo"))


def looked(reader: StudyReader) -> StudyReader:
    reader.look()
    return reader


def file_of(reader: StudyReader, number: int, name: str) -> Path:
    assert reader.store.folder is not None
    return reader.store.folder / "demo" / "trials" / list(reader.records())[number] / name


def overwrite(path: Path, content: bytes) -> None:
    """Other bytes in the same file at the same time: only who reads it again can see them."""
    state = path.stat()
    path.write_bytes(content[: state.st_size].ljust(state.st_size, b"x"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_its_table_is_that_of_read_results(reader: StudyReader, out: Path) -> None:
    pd.testing.assert_frame_equal(reader.table(), read_results(out, "demo"))
    assert reader.problems() == []


def test_it_knows_the_studys_margin_of_equivalence(out: Path) -> None:
    run_study(toy_grid(equivalence_margin=0.5), out, LocalExecutor(fit=Toy()))
    margin = looked(StudyReader(out, "toy")).table().attrs["equivalence_margin"]
    assert margin == read_results(out, "toy").attrs["equivalence_margin"] == 0.5


def test_what_has_not_changed_is_not_read_again(reader: StudyReader) -> None:
    before, version = reader.table(), reader.version
    for name in ("trial.json", "epochs.parquet"):
        overwrite(file_of(reader, 0, name), b"broken")
    looked(reader)
    assert reader.version == version
    assert reader.table() is before


def test_what_has_changed_is_read_again(reader: StudyReader) -> None:
    before, version = reader.table(), reader.version
    path = file_of(reader, 0, "epochs.parquet")
    path.write_bytes(b"broken")
    looked(reader)
    assert reader.version != version
    assert len(reader.table()) == len(before) - 4
    [problem] = reader.problems()
    assert str(path) in problem
    path.unlink()
    looked(reader)
    assert len(reader.table()) == len(before) - 3  # a trial without epochs keeps one row
    assert reader.problems() == []


def test_a_trial_that_goes_is_gone(reader: StudyReader) -> None:
    count = len(reader.records())
    file_of(reader, 0, "trial.json").unlink()
    assert len(looked(reader).records()) == count - 1
    assert reader.table()["trial_id"].nunique() == count - 1


def test_files_that_no_training_writes_are_refused_unread(reader: StudyReader, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(reader.records())
    bomb = pa.table(
        {"epoch": pa.DictionaryArray.from_arrays(pa.array([0] * 30_000_000, pa.int8()), [1]).cast(pa.int64())}
    )
    pq.write_table(bomb, file_of(reader, 0, "epochs.parquet"))
    assert file_of(reader, 0, "epochs.parquet").stat().st_size < 1_000_000
    pq.write_table(pa.table({"epoch": [1], "test.reconstruction": ["<b>"]}), file_of(reader, 1, "epochs.parquet"))
    pq.write_table(pa.table({"other": [1]}), file_of(reader, 2, "epochs.parquet"))
    with file_of(reader, 3, "trial.json").open("r+b") as huge:
        huge.truncate(10_000_000_000)
    looked(reader)
    assert reader.table()["trial_id"].nunique() == count - 4
    said = "\n".join(reader.problems())
    for words in ("30,000,000 values", "of type string", "no column 'epoch'", "10,000,000,000 bytes"):
        assert words in said


def test_a_record_in_a_folder_of_another_name_is_refused(reader: StudyReader) -> None:
    file_of(reader, 0, "trial.json").parent.rename(file_of(reader, 0, "trial.json").parent.with_name("0123"))
    looked(reader)
    assert "0123" not in reader.records()
    assert "of trial" in reader.problems()[0]


def test_a_copied_study_is_a_study_of_its_own(reader: StudyReader, out: Path) -> None:
    (out / "demo").rename(out / "copy")
    copy = looked(StudyReader(out, "copy"))
    assert set(copy.table()["study"]) == {"copy"}


def test_an_absent_study_is_one_clear_line(reader: StudyReader, out: Path) -> None:
    with pytest.raises(ResultsError, match="no such study"):
        looked(StudyReader(out, "other"))
    with pytest.raises(ResultsError, match="names nothing there"):
        StudyReader(out, "../demo")


def test_ten_thousand_empty_folders_are_no_trials(reader: StudyReader, out: Path) -> None:
    count = len(reader.records())
    for number in range(10_000):
        (out / "demo" / "trials" / f"empty-{number}").mkdir()
    assert len(looked(reader).records()) == count


def test_files_and_their_versions_in_one_listing(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    assert store.files("study") == {}
    store.write("study/a.txt", b"one")
    store.write("study/trials/0/b.txt", b"three")
    before = store.files("study")
    assert {name: version.size for name, version in before.items()} == {"study/a.txt": 3, "study/trials/0/b.txt": 5}
    assert all(version.modified is not None and version.modified.tzinfo for version in before.values())
    store.write("study/a.txt", b"two")
    after = store.files("study")
    assert after["study/a.txt"].tag != before["study/a.txt"].tag
    assert after["study/trials/0/b.txt"] == before["study/trials/0/b.txt"]
    assert store.read_many(["study/a.txt", "study/absent"]) == {"study/a.txt": b"two"}
    assert store.read_many([]) == {}


def test_a_link_to_a_folder_above_is_followed_a_few_floors_only(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "loop").symlink_to(tmp_path / "study")
    (tmp_path / "study" / "a.txt").write_text("a")
    assert 1 <= len(Store(tmp_path).files("study")) < 10


def test_what_the_storage_would_not_hand_out_is_asked_for_again(
    reader: StudyReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, version = set(reader.records()), reader.version
    trial = sorted(whole)[0]
    (reader.store.folder / "demo" / "trials" / trial / "trial.json").touch()  # type: ignore[operator]
    read = Store.read

    def busy(store: Store, name: str) -> bytes | None:
        if trial in name:
            raise StorageError(f"{name}: 503 slow down")
        return read(store, name)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "read", busy)
        assert set(looked(reader).records()) == whole - {trial}
        assert len(reader.problems()) == 1
        refused = reader.version
    assert looked(reader).version not in (version, refused)  # so that whoever keeps results by version asks again
    assert set(reader.records()) == whole
    assert reader.problems() == []
    assert len(reader.table()["trial_id"].unique()) == len(whole)


def test_a_small_file_of_very_many_empty_cells_is_refused_unread(reader: StudyReader) -> None:
    path = file_of(reader, 0, "epochs.parquet")
    empty = pa.nulls(2_000_000)
    pq.write_table(pa.table({"epoch": pa.nulls(2_000_000, pa.int64()), **{f"n{i}": empty for i in range(100)}}), path)
    assert path.stat().st_size < 1_000_000
    looked(reader).table()
    (problem,) = reader.problems()
    assert "more than training writes" in problem
