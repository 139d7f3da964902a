"""The cache: made once, whole or not at all, shared by all fractions, never out of date."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from smoe_ray.data import files, load_splits, prepare, requirements
from smoe_ray.errors import DataError
from smoe_ray.spec import CombinedData, ImageData, QuickDrawData, SyntheticData
from support.quickdraw_files import scribbles, write_sketchrnn

SKETCHES = SyntheticData(classes=("eye", "cat"), train_per_class=20, test_per_class=5)


@pytest.fixture
def drawings(tmp_path: Path) -> QuickDrawData:
    """Fifty scribbles for training and ten for testing."""
    root = tmp_path / "drawings"
    root.mkdir()
    write_sketchrnn(root / "cat.npz", scribbles(50), scribbles(10, seed=1))
    time.sleep(0.05)  # content hashes of files that changed a moment ago are not remembered
    return QuickDrawData(classes=("cat",), root=str(root), train_per_class=50, test_per_class=10)


def prepared(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "prepared").iterdir() if path.suffix != ".lock")


def test_arrays_are_read_only_memory_maps_of_the_promised_types(tmp_path: Path) -> None:
    source = prepare(SKETCHES, tmp_path)
    for dataset, count in ((source.train, 40), (source.test, 10)):
        assert isinstance(dataset.image_BHW, np.memmap)
        assert not dataset.image_BHW.flags.writeable
        assert (dataset.image_BHW.dtype, dataset.image_BHW.shape) == (np.uint8, (count, 28, 28))
        assert (dataset.label_B.dtype, len(dataset.label_B)) == (np.int64, count)
        assert dataset.style_B is not None
        assert dataset.parameter_BP is not None
        assert dataset.parameter_BP.shape == (count, len(source.parameter_names))
    assert source.class_names == ("eye", "cat")
    assert source.folder == prepared(tmp_path)[0]
    assert len(source.fingerprint) == 64


def test_all_fractions_share_one_source(tmp_path: Path, drawings: QuickDrawData) -> None:
    whole = load_splits(drawings, tmp_path / "cache")
    for fields in ({"fraction": 0.1}, {"fraction": 0.5}, {"imbalance": {"weights": {"cat": 0.2}}}):
        part = load_splits(QuickDrawData.model_validate(drawings.model_dump() | fields), tmp_path / "cache")
        assert part.fingerprint == whole.fingerprint
        assert np.array_equal(part.train.image_BHW, whole.train.image_BHW[: len(part.train)])
        assert np.array_equal(part.test.image_BHW, whole.test.image_BHW)
    assert len(prepared(tmp_path / "cache")) == 1


def test_what_is_prepared_is_not_read_again(
    tmp_path: Path, drawings: QuickDrawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_CLOCK_TICK_NS", 0)
    first = prepare(drawings, tmp_path / "cache")
    prepare(drawings, tmp_path / "cache")  # verified once
    monkeypatch.setattr(files, "sha256_of", lambda _: pytest.fail("hashed again"))
    told: list[str] = []
    second = prepare(drawings, tmp_path / "cache", progress=lambda what, *_: told.append(what))
    assert second.folder == first.folder
    assert not told


def test_the_key_is_the_content_of_a_file_not_its_place_or_age(tmp_path: Path, drawings: QuickDrawData) -> None:
    cache, root = tmp_path / "cache", Path(str(drawings.root))
    first = prepare(drawings, cache)
    os.utime(root / "cat.npz", (1, 1))
    assert prepare(drawings, cache).folder == first.folder
    moved = root.rename(tmp_path / "moved")
    assert prepare(drawings.model_copy(update={"root": str(moved)}), cache).folder == first.folder
    write_sketchrnn(moved / "cat.npz", scribbles(50, seed=7), scribbles(10, seed=1))
    changed = prepare(drawings.model_copy(update={"root": str(moved)}), cache)
    assert changed.folder != first.folder
    assert changed.fingerprint != first.fingerprint


def test_every_field_that_changes_the_arrays_changes_the_source(tmp_path: Path, drawings: QuickDrawData) -> None:
    variants = [drawings.model_copy(update=change) for change in ({}, {"ink": "white_on_black"}, {"test_per_class": 9})]
    variants.append(drawings.model_copy(update={"train_per_class": 9}))
    sources = [prepare(spec, tmp_path / "cache") for spec in variants]
    assert len({source.folder for source in sources}) == len({source.fingerprint for source in sources}) == 4


def test_the_fingerprint_is_of_arrays_and_names_alone(tmp_path: Path) -> None:
    x, y = np.arange(4 * 784, dtype=np.uint32).astype(np.uint8).reshape(4, 28, 28), np.array([0, 0, 1, 1])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.savez_compressed(tmp_path / "b.npz", x=x, y=y)
    np.savez(tmp_path / "c.npz", x=x, y=y + 1)
    a, b, c = (prepare(ImageData(root=str(tmp_path / f"{name}.npz")), tmp_path / "cache") for name in "abc")
    assert a.fingerprint == b.fingerprint
    assert a.fingerprint != c.fingerprint  # other class names


def test_new_reading_code_is_not_answered_by_an_old_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(SKETCHES, tmp_path)
    monkeypatch.setattr(import_module("smoe_ray.data.preparation"), "version", lambda _: "another Pillow")
    assert prepare(SKETCHES, tmp_path).folder != first.folder


def test_a_process_killed_in_mid_reading_leaves_nothing_that_is_taken_for_data(
    tmp_path: Path, drawings: QuickDrawData
) -> None:
    cache = tmp_path / "cache"
    program = (
        "import os, sys; from pathlib import Path; from smoe_ray.data import prepare; from smoe_ray.spec import *;"
        "prepare(QuickDrawData.model_validate_json(sys.argv[1]), Path(sys.argv[2]), progress=lambda *_: os._exit(9))"
    )
    died = subprocess.run([sys.executable, "-c", program, drawings.model_dump_json(), str(cache)], check=False)
    assert died.returncode == 9
    assert len(prepared(cache)) == 1  # half-made, under another name
    source = prepare(drawings, cache)
    assert prepared(cache) == [source.folder]


def test_processes_that_prepare_together_do_it_once(tmp_path: Path, drawings: QuickDrawData) -> None:
    cache = tmp_path / "cache"
    program = (
        "import sys, time; from pathlib import Path; from smoe_ray.data import prepare; from smoe_ray.spec import *;"
        "told = []; print('ready', flush=True); sys.stdin.readline();"
        "source = prepare(QuickDrawData.model_validate_json(sys.argv[1]), Path(sys.argv[2]),"
        " progress=lambda *_: told.append(time.sleep(0.5)));"
        "print(source.fingerprint, bool(told))"
    )
    command = [sys.executable, "-c", program, drawings.model_dump_json(), str(cache)]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0].split() for process in running]
    assert len({fingerprint for fingerprint, _ in said}) == 1
    assert [drew for _, drew in said].count("True") == 1
    assert len(prepared(cache)) == 1


def test_without_locks_the_first_to_finish_wins(tmp_path: Path) -> None:
    def slow(folder: Path) -> None:
        (folder / "mine").touch()
        (tmp_path / "made").mkdir()  # by another process, meanwhile
        (tmp_path / "made" / "theirs").touch()

    files.build_once(tmp_path / "made", slow)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["theirs"]
    assert {path.name for path in tmp_path.iterdir()} <= {"made", ".made.lock"}


@pytest.mark.parametrize("name", ["meta.json", "train.image_BHW.npy", "test.label_B.npy", "SHA256SUMS"])
def test_a_damaged_cache_is_made_again_and_said(tmp_path: Path, name: str) -> None:
    first = prepare(SKETCHES, tmp_path)
    file = first.folder / name
    content = file.read_bytes()
    flipped = bytes([content[0] ^ 1]) + content[1:]
    for wrong in (content[:-5], b"", flipped, None):
        file.unlink() if wrong is None else file.write_bytes(wrong)
        again = prepare(SKETCHES, tmp_path)
        assert (again.fingerprint, file.read_bytes()) == (first.fingerprint, content)
        [note] = again.notes
        assert note.startswith("prepared data were damaged (")
        assert note.endswith(") and have been made again")
    assert prepare(SKETCHES, tmp_path).notes == ()
    assert not list(first.folder.parent.glob(f".{first.folder.name}-*"))


def test_a_damaged_record_of_a_hash_is_read_again(tmp_path: Path, drawings: QuickDrawData) -> None:
    first = prepare(drawings, tmp_path / "cache")
    (record,) = (tmp_path / "cache" / "hashes").iterdir()
    for wrong in (b"", b"[]", json.dumps({"path": "elsewhere", "sha256": "0"}).encode()):
        record.write_bytes(wrong)
        assert prepare(drawings, tmp_path / "cache").folder == first.folder


def test_a_cache_that_cannot_be_made_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="permissions") as error:
        prepare(SKETCHES, tmp_path / "file")
    assert "\n" not in str(error.value)


def test_progress_ends_at_the_total(tmp_path: Path, drawings: QuickDrawData) -> None:
    told: list[tuple[str, int, int]] = []
    prepare(drawings, tmp_path / "cache", progress=lambda *step: told.append(step))
    assert told[-1] == ("reading cat", 60, 60)


# --- requirements -----------------------------------------------------------------------------------------------------


def test_requirements_say_what_is_there_and_create_nothing(
    tmp_path: Path, drawings: QuickDrawData, downloads: Path
) -> None:
    both = drawings.model_copy(update={"classes": ("cat", "face")})
    cat, face = requirements(both)
    size = (tmp_path / "drawings" / "cat.npz").stat().st_size
    assert (cat.what, cat.state, cat.size_bytes) == ("cat", "present", size)
    assert (face.state, face.where) == ("absent", str(tmp_path / "drawings" / "face.npz"))
    to_fetch = requirements(both.model_copy(update={"download": True}))[1]
    assert (to_fetch.state, to_fetch.where) == ("download", str(downloads / "quickdraw" / "face.npz"))
    assert requirements(QuickDrawData(classes=("cat",)))[0].where == str(downloads / "quickdraw" / "cat.npz")
    assert requirements(QuickDrawData(classes=("cat",), root="s3://bucket/x/"))[0].where == "s3://bucket/x/cat.npz"
    assert requirements(QuickDrawData(classes=("cat",), root="s3://bucket/x/"))[0].state == "remote"

    assert requirements(SKETCHES)[0].state == "drawn"
    assert "50" in requirements(SKETCHES)[0].what
    assert requirements(ImageData(root=str(tmp_path / "nothing")))[0].state == "absent"
    assert requirements(ImageData(root=str(tmp_path)))[0].state == "present"
    assert requirements(ImageData(root="gs://x/y.npz"))[0].state == "remote"
    combined = requirements(CombinedData(parts={"ours": SKETCHES, "theirs": both}))
    assert [need.what.split(":")[0] for need in combined] == ["ours", "theirs", "theirs"]
    assert not downloads.exists()
