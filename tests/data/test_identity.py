"""Data identity is content: whatever names, links, sizes and times say, other images are other data."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from test_images import X_TEST, X_TRAIN, Y_TEST, Y_TRAIN, idx, load, refused, write_idx

from smoe_ray.data import Content, ReadContext, Source, files, prepare
from smoe_ray.data.sources import synthetic
from smoe_ray.errors import DataError
from smoe_ray.spec import ImageData, QuickDrawData, SyntheticData


def write_bmp(file: Path, array: np.ndarray) -> None:
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


def write_set(root: Path, images: np.ndarray, names: str = "FL") -> Path:
    """Images of equal size in bytes (BMP), all with the same times."""
    for name in names:
        for number, image in enumerate(images):
            write_bmp(root / name / f"{number:02}.bmp", image)
    for file in root.rglob("*.bmp"):
        os.utime(file, (1, 1))
    return root


def fingerprint(root: Path | str, cache: Path) -> str:
    return load(Path(root), cache).fingerprint


# --- links ------------------------------------------------------------------------------------------------------------


def test_links_to_class_folders_are_followed(tmp_path: Path) -> None:
    stores = [write_set(tmp_path / "one", X_TRAIN[:8], "FL"), write_set(tmp_path / "two", X_TRAIN[8:16], "7O")]
    for number, store in enumerate(stores):
        (tmp_path / f"links{number}").mkdir()
        for folder in store.iterdir():
            (tmp_path / f"links{number}" / folder.name).symlink_to(folder)
    first, second = (load(tmp_path / f"links{number}", tmp_path / "cache") for number in range(2))
    assert first.class_names == ("F", "L")
    assert second.class_names == ("7", "O")
    assert np.array_equal(second.train.image_BHW[0], X_TRAIN[8])
    (tmp_path / "nothing").mkdir()
    refused(tmp_path / "nothing", tmp_path / "other", "no images", "empty")


@pytest.mark.parametrize("what", ["file", "root", "train", "nested"])
def test_links_of_every_kind_lead_to_the_images(tmp_path: Path, what: str) -> None:
    """A link to each file, to the root, to the training folder, to a folder in a class folder."""
    linked, kinds = [], {"one": X_TRAIN[:8], "two": X_TRAIN[8:16]}
    for name, images in kinds.items():
        store, root = write_set(tmp_path / name / "store", images), tmp_path / name / "root"
        if what == "root":
            root.symlink_to(store)
        elif what == "train":
            root.mkdir()
            (root / "train").symlink_to(store)
        else:
            for folder in store.iterdir():
                (root / folder.name).mkdir(parents=True)
                if what == "nested":
                    (root / folder.name / "batch").symlink_to(folder)
                for file in folder.iterdir() if what == "file" else ():
                    (root / folder.name / file.name).symlink_to(file)
        linked.append(load(root, tmp_path / "cache").train.image_BHW)
    for images, found in zip(kinds.values(), linked, strict=True):
        assert np.array_equal(found[:7], images[:7])


def test_where_a_link_leads_is_part_of_the_identity(tmp_path: Path) -> None:
    for number in range(2):
        np.savez(tmp_path / f"{number}.npz", x=X_TRAIN[::-1] if number else X_TRAIN, y=Y_TRAIN)
    link = tmp_path / "latest.npz"
    found = []
    for number in (0, 1, 0):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / f"{number}.npz")
        found.append(fingerprint(link, tmp_path / "cache"))
    assert found[0] == found[2] != found[1]


def test_links_that_lead_nowhere_or_in_a_circle_are_named(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", X_TRAIN[:8])
    (root / "F" / "99.bmp").symlink_to(tmp_path / "gone.bmp")
    refused(root, tmp_path / "cache", "99.bmp", "link to nothing")
    (root / "F" / "99.bmp").unlink()
    (root / "F" / "again").symlink_to(root)
    refused(root, tmp_path / "cache", "again", "link")
    (root / "F" / "again").unlink()
    (root / "F" / "again").symlink_to(root / "F")
    refused(root, tmp_path / "cache", "again", "link")


# --- the same names, sizes and times ----------------------------------------------------------------------------------


def test_two_folders_of_the_same_names_sizes_and_times_are_two_data_sets(tmp_path: Path) -> None:
    positive, negative = write_set(tmp_path / "a", X_TRAIN[:8]), write_set(tmp_path / "b", 255 - X_TRAIN[:8])
    one, other = load(positive, tmp_path / "cache"), load(negative, tmp_path / "cache")
    assert np.array_equal(other.train.image_BHW, 255 - one.train.image_BHW)
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("how", ["rewritten", "renamed over", "copied with times"])
def test_a_file_replaced_by_one_of_equal_size_and_time_is_seen(tmp_path: Path, how: str) -> None:
    root = write_set(tmp_path / "set", X_TRAIN[:8])
    before = fingerprint(root, tmp_path / "cache")
    file, other = root / "F" / "00.bmp", tmp_path / "other.bmp"
    write_bmp(other, X_TRAIN[20])
    os.utime(other, (1, 1))
    if how == "rewritten":
        file.write_bytes(other.read_bytes())
        os.utime(file, (1, 1))
    elif how == "renamed over":
        other.rename(file)
    else:
        shutil.copy2(other, file)
    assert file.stat().st_mtime == 1
    assert np.array_equal(load(root, tmp_path / "cache").train.image_BHW[0], X_TRAIN[20])
    assert fingerprint(root, tmp_path / "cache") != before


@pytest.mark.parametrize("layout", ["npz", "idx", "bitmap"])
def test_array_files_replaced_in_place_are_seen(tmp_path: Path, layout: str) -> None:
    def write(x: np.ndarray) -> ImageData | QuickDrawData:
        if layout == "npz":
            np.savez(tmp_path / "set.npz", x=x, y=Y_TRAIN)
            return ImageData(root=str(tmp_path / "set.npz"))
        if layout == "idx":
            root = write_idx(tmp_path / "idx")
            (root / "train-images-idx3-ubyte").write_bytes(idx(x))
            return ImageData(root=str(root))
        np.save(tmp_path / "cat.npy", x.reshape(len(x), -1))
        return QuickDrawData(classes=("cat",), layout="bitmap", root=str(tmp_path), train_per_class=5, test_per_class=5)

    found: list[Source] = []
    for x in (X_TRAIN, X_TRAIN[::-1]):
        spec = write(x)
        for file in tmp_path.rglob("*"):
            if "cache" not in file.parts and file.is_file():
                os.utime(file, (1, 1))
        found.append(prepare(spec, tmp_path / "cache"))
    assert found[0].fingerprint != found[1].fingerprint


def test_swapped_class_folders_and_swapped_splits_are_other_data(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_set(root / "train", X_TRAIN[:8])
    write_set(root / "test", X_TRAIN[8:12])
    found = {fingerprint(root, tmp_path / "cache")}
    for one, other in (("train", "test"), ("train/F/00.bmp", "train/L/01.bmp")):
        (root / one).rename(root / "aside")
        (root / other).rename(root / one)
        (root / "aside").rename(root / other)
        found.add(fingerprint(root, tmp_path / "cache"))
    assert len(found) == 3


def test_emnist_and_the_same_files_renamed_do_not_answer_for_each_other(tmp_path: Path) -> None:
    renamed, emnist = write_idx(tmp_path / "renamed"), tmp_path / "emnist"
    emnist.mkdir()
    for file in renamed.iterdir():
        shutil.copy2(file, emnist / f"emnist-digits-{file.name.replace('t10k', 'test')}")
    upright = load(emnist, tmp_path / "cache").train.image_BHW
    as_stored = load(renamed, tmp_path / "cache").train.image_BHW
    assert np.array_equal(upright, as_stored.swapaxes(1, 2))
    assert np.array_equal(load(renamed, tmp_path / "cache", transpose=True).train.image_BHW, upright)


# --- the records of hashes --------------------------------------------------------------------------------------------


def test_hashes_are_remembered_by_device_inode_size_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / name for name in ("a", "b", "deep/c")]
    (tmp_path / "deep").mkdir()
    for path in paths:
        path.write_text(path.name)
    time.sleep(0.05)
    first = files.content_hashes(paths, tmp_path / "records")
    assert len(list((tmp_path / "records").iterdir())) == 2  # one record per folder, not per file
    read: list[Path] = []
    real = files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: read.append(path) or real(path))
    assert files.content_hashes(paths, tmp_path / "records") == first
    assert read == []
    os.utime(paths[0])
    assert files.content_hashes(paths, tmp_path / "records") == first
    assert read == [paths[0]]


def test_a_file_that_changed_a_moment_ago_is_not_remembered(tmp_path: Path) -> None:
    """Within one tick of the kernel's clock a second change leaves the same times."""
    path = tmp_path / "a"
    for text in ("one", "two"):
        path.write_text(text)
        os.utime(path, (1, 1))
        [digest] = files.content_hashes([path], tmp_path / "records")
        assert digest == files.sha256_of(path)
    assert not (tmp_path / "records").exists()


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("one")

    def slow(file: Path) -> str:
        file.write_text("longer")
        return "0"

    monkeypatch.setattr(files, "sha256_of", slow)
    with pytest.raises(DataError, match="changed while it was read"):
        files.content_hashes([path], tmp_path / "records")


class _Reader:
    """Reads synthetic sketches and says that they have some key."""

    def __init__(self, *keys: list[str]) -> None:
        self._keys = list(keys)

    def __getattr__(self, name: str) -> object:
        return getattr(synthetic, name)

    def key(self, _spec: SyntheticData, _found: None, _context: ReadContext) -> list[str]:
        return self._keys.pop(0)

    def read(self, spec: SyntheticData, _found: None, context: ReadContext) -> Content:
        return synthetic.read(spec, None, context)


def test_an_empty_key_and_files_that_change_while_they_are_read_are_errors(tmp_path: Path) -> None:
    spec = SyntheticData(classes=("eye",), train_per_class=4, test_per_class=2)
    with pytest.raises(DataError, match="no identity"):
        prepare(spec, tmp_path, reader=_Reader([]))
    with pytest.raises(DataError, match="changed while they were read"):
        prepare(spec, tmp_path, reader=_Reader(["a"], ["b"]))
    assert prepare(spec, tmp_path, reader=_Reader(["a"], ["a"])).class_names == ("eye",)


def test_plain_and_packed_files_of_the_same_content_are_one(tmp_path: Path) -> None:
    root = write_idx(tmp_path / "both")
    for name, array in (("train-images-idx3", X_TRAIN), ("t10k-labels-idx1", Y_TEST)):
        (root / f"{name}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    assert np.array_equal(load(root, tmp_path / "cache").test.image_BHW, X_TEST[np.argsort(Y_TEST, kind="stable")])
    (root / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(255 - X_TRAIN)))
    refused(root, tmp_path / "other", "train-images-idx3-ubyte.gz", "something else", "remove one of them")
