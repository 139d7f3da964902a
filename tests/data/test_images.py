"""IDX, .npz and folder readers: known answers on files written here, and files damaged in every way."""

from __future__ import annotations

import gzip
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from smoe_ray.data import Splits, load_splits
from smoe_ray.errors import DataError
from smoe_ray.spec import ImageData

RNG = np.random.default_rng(0)
X_TRAIN = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
Y_TRAIN = np.arange(30, dtype=np.uint8)[::-1] % 3
X_TEST = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
Y_TEST = np.arange(12, dtype=np.uint8) % 3


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, suffix: str = "", test: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    parts = {"train-images-idx3-ubyte": X_TRAIN, "train-labels-idx1-ubyte": Y_TRAIN}
    if test:
        parts |= {"t10k-images-idx3-ubyte": X_TEST, "t10k-labels-idx1-ubyte": Y_TEST}
    for name, array in parts.items():
        content = idx(array)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return folder


def load(root: Path, cache: Path, **fields: object) -> Splits:
    return load_splits(ImageData.model_validate({"root": str(root)} | fields), cache)


def refused(root: Path, cache: Path, *words: str, **fields: object) -> None:
    with pytest.raises(DataError) as error:
        load(root, cache, **fields)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert nothing_left(cache)


def nothing_left(cache: Path) -> bool:
    """Whether a cache holds nothing but locks."""
    return {path.suffix for path in cache.glob("prepared/*")} <= {".lock"}


def assert_is_the_set(splits: Splits) -> None:
    assert splits.class_names == ("0", "1", "2")
    for dataset, x, y in ((splits.train, X_TRAIN, Y_TRAIN), (splits.test, X_TEST, Y_TEST)):
        assert dataset.image_BHW.flags["C_CONTIGUOUS"]
        assert dataset.label_B.dtype == np.int64
        for label in range(3):
            assert np.array_equal(dataset.image_BHW[dataset.label_B == label], x[y == label])


# --- IDX --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read(tmp_path: Path, suffix: str) -> None:
    assert_is_the_set(load(write_idx(tmp_path / "mnist", suffix), tmp_path / "cache"))


def test_classes_are_chosen_and_ordered_and_counts_limited(tmp_path: Path) -> None:
    root = write_idx(tmp_path / "mnist")
    splits = load(root, tmp_path / "cache", classes=["2", "0"], train_per_class=4, test_per_class=3)
    assert splits.class_names == ("2", "0")
    assert splits.train.label_B.tolist() == [0] * 4 + [1] * 4
    assert splits.test.label_B.tolist() == [0] * 3 + [1] * 3
    assert np.array_equal(splits.train.image_BHW[:4], X_TRAIN[Y_TRAIN == 2][:4])
    assert np.array_equal(splits.test.image_BHW[3:], X_TEST[Y_TEST == 0][:3])
    refused(root, tmp_path / "other", "no class '7'", "0, 1, 2", classes=["7"])
    refused(root, tmp_path / "other", "class '0' has 10 train images, 11", "data.train_per_class", train_per_class=11)
    refused(root, tmp_path / "other", "class '0' has 4 test images, 5", "data.test_per_class", test_per_class=5)


def test_without_a_test_part_the_last_of_each_class_are_the_test_set(tmp_path: Path) -> None:
    root = write_idx(tmp_path / "mnist", test=False)
    splits = load(root, tmp_path / "cache")
    assert np.bincount(splits.train.label_B).tolist() == [8, 8, 8]  # 10 / 6 is 2, rounded
    assert np.array_equal(splits.test.image_BHW[:2], X_TRAIN[Y_TRAIN == 0][8:])
    fixed = [load(root, tmp_path / "cache", test_per_class=3, train_per_class=n).test.image_BHW for n in (1, 7)]
    assert np.array_equal(*fixed)
    assert np.array_equal(fixed[0][:3], X_TRAIN[Y_TRAIN == 0][7:])
    refused(root, tmp_path / "other", "class '0' has 7 train images, 8", test_per_class=3, train_per_class=8)
    refused(root, tmp_path / "other", "class '0' has 0 train images", test_per_class=10)


@pytest.mark.parametrize(
    "absent", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
)
def test_an_absent_idx_file_is_named(tmp_path: Path, absent: str) -> None:
    root = write_idx(tmp_path / "mnist")
    (root / absent).unlink()
    refused(root, tmp_path / "cache", absent, "no such file")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "begins with"),
        (b"\x89PNG\r\n", "begins with 89 50 4e 47"),
        (idx(X_TRAIN)[:2] + b"\x0d" + idx(X_TRAIN)[3:], "begins with 00 00 0d"),
        (idx(X_TRAIN)[:9], "not a readable IDX"),
        (idx(X_TRAIN)[:-1], "it holds 23,519"),
        (idx(X_TRAIN) + b"x", "it holds more"),
        (bytes((0, 0, 8, 3)) + b"\xff" * 12 + bytes(100), "asks for"),
        (idx(X_TRAIN[:0]), "shape (0, 28, 28)"),
        (idx(X_TRAIN[:29]), "has 30 labels for 29 images"),
        (idx(X_TRAIN.reshape(30, -1)), "shape (30, 784)"),
    ],
)
def test_wrong_idx_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    root = write_idx(tmp_path / "mnist")
    (root / "train-images-idx3-ubyte").write_bytes(content)
    refused(root, tmp_path / "cache", "train-images-idx3-ubyte", words)


def test_a_gzip_that_unpacks_to_more_than_its_header_says_is_not_unpacked(tmp_path: Path) -> None:
    root = write_idx(tmp_path / "mnist", ".gz")
    bomb = gzip.compress(idx(X_TRAIN) + bytes(50_000_000))
    (root / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    tracemalloc.start()
    refused(root, tmp_path / "cache", "it holds more")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20_000_000


FOLDER = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def damage(data: st.DataObject, content: bytes) -> bytes:
    if data.draw(st.booleans(), label="cut it"):
        return content[: data.draw(st.integers(0, len(content) - 1))]
    flipped = bytearray(content)
    flipped[data.draw(st.integers(0, len(content) - 1) | st.integers(0, 20))] ^= data.draw(st.integers(1, 255))
    return bytes(flipped)


def outcome(root: Path, cache: Path) -> Splits | DataError:
    try:
        return load(root, cache)
    except DataError as error:
        return error


def one_line_or_images(root: Path, tmp_path: Path) -> None:
    cache = Path(tempfile.mkdtemp(dir=tmp_path))
    found = outcome(root, cache)
    if isinstance(found, DataError):
        assert "\n" not in str(found)
        assert str(root) in str(found)
        assert nothing_left(cache)
    else:
        assert found.train.image_shape in ((1, 28, 28), (3, 28, 28))  # what is damaged may have other colours


@given(data=st.data(), suffix=st.sampled_from(["", ".gz"]), part=st.sampled_from(["images-idx3", "labels-idx1"]))
@FOLDER
def test_a_damaged_idx_file_gives_one_line_or_images(
    data: st.DataObject, suffix: str, part: str, tmp_path: Path
) -> None:
    root = write_idx(Path(tempfile.mkdtemp(dir=tmp_path)), suffix)
    file = root / f"train-{part}-ubyte{suffix}"
    file.write_bytes(damage(data, file.read_bytes()))
    one_line_or_images(root, tmp_path)


@given(data=st.data(), compressed=st.booleans())
@FOLDER
def test_a_damaged_npz_gives_one_line_or_images(data: st.DataObject, compressed: bool, tmp_path: Path) -> None:
    file = Path(tempfile.mkdtemp(dir=tmp_path)) / "set.npz"
    (np.savez_compressed if compressed else np.savez)(file, x=X_TRAIN, y=Y_TRAIN)
    file.write_bytes(damage(data, file.read_bytes()))
    one_line_or_images(file, tmp_path)


@given(data=st.data(), suffix=st.sampled_from([".png", ".jpg", ".gif", ".bmp", ".tif"]))
@FOLDER
def test_a_damaged_image_gives_one_line_or_images(data: st.DataObject, suffix: str, tmp_path: Path) -> None:
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    (root / "a").mkdir()
    for number in range(2):
        Image.fromarray(X_TRAIN[number]).save(root / "a" / f"{number}{suffix}")
    file = root / "a" / f"0{suffix}"
    file.write_bytes(damage(data, file.read_bytes()))
    one_line_or_images(root, tmp_path)


# --- npz --------------------------------------------------------------------------------------------------------------


def test_npz_files_are_read_as_keras_and_plain(tmp_path: Path) -> None:
    keras = {"x_train": X_TRAIN, "y_train": Y_TRAIN.astype(np.int64), "x_test": X_TEST, "y_test": Y_TEST[:, None]}
    np.savez(tmp_path / "mnist.npz", **keras)
    assert_is_the_set(load(tmp_path / "mnist.npz", tmp_path / "cache"))
    np.savez_compressed(tmp_path / "plain.npz", x=X_TRAIN, y=Y_TRAIN)
    assert len(load(tmp_path / "plain.npz", tmp_path / "cache").test) == 6


def test_labels_may_skip_numbers_and_sort_as_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X_TRAIN[:6], y=np.array([10, 2, 10, 2, 10, 2]))
    assert load(tmp_path / "set.npz", tmp_path / "cache").class_names == ("2", "10")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X_TRAIN / 255, "y": Y_TRAIN}, "x is float64 of shape (30, 28, 28), from 0 to 1; save (255 * x)"),
        ({"x": X_TRAIN[0], "y": Y_TRAIN}, "shape (28, 28)"),
        ({"x": X_TRAIN[..., None, None], "y": Y_TRAIN}, "shape (30, 28, 28, 1, 1)"),
        ({"x": X_TRAIN, "y": Y_TRAIN[:-1]}, "y has 29 labels for 30 images in x"),
        ({"x": X_TRAIN, "y": Y_TRAIN.astype(float)}, "y is float64 of shape (30,); needed: whole numbers or words"),
        ({"x": X_TRAIN, "y": Y_TRAIN.astype(int) - 1}, "labels run from -1 to 1"),
        ({"x": X_TRAIN, "y": Y_TRAIN.astype(int) * 9000}, "to 18000"),
        ({"x": X_TRAIN, "label": Y_TRAIN}, "holds x (uint8, (30, 28, 28)), label (uint8, (30,)); y is missing"),
        ({"x_train": X_TRAIN, "y_train": Y_TRAIN}, "x_test"),
        ({"x": X_TRAIN, "y": np.array([None] * 30)}, "pickle"),
    ],
)
def test_wrong_npz_files_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    refused(tmp_path / "set.npz", tmp_path / "cache", "set.npz", words)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_header_that_says_less_than_the_file_holds_is_refused(tmp_path: Path, save: Callable[..., None]) -> None:
    """Were the array not read to its end, its checksum would not be compared, and images would be cut in silence."""
    save(tmp_path / "set.npz", x=X_TRAIN, y=Y_TRAIN)
    with zipfile.ZipFile(tmp_path / "set.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["x.npy"] = members["x.npy"].replace(b"(30, 28, 28)", b"(30, 28, 27)")
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    refused(tmp_path / "set.npz", tmp_path / "cache", "x holds more than its header says")


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(b"not a zip file")
    refused(tmp_path / "set.npz", tmp_path / "cache", "set.npz", "not a readable .npz")
    refused(tmp_path / "nothing", tmp_path / "cache", "nothing: no such file or folder; set data.root")
    refused(tmp_path, tmp_path / "cache", "'npz' needs an .npz file", layout="npz")
    refused(tmp_path / "set.npz", tmp_path / "cache", "'idx' needs a folder", layout="idx")


# --- folders ----------------------------------------------------------------------------------------------------------


def write_folder(root: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            grey = np.full((40, 40), 10 * number + len(name), np.uint8)
            grey[32:, 32:] = 255  # so that it is not blank; the middle stays as it is
            Image.fromarray(grey).save(root / name / f"{number:03}{suffix}")
    return root


def test_folders_with_train_and_test_are_read_in_order(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_folder(root / "train", {"bee": 4, "an ant": 3})
    write_folder(root / "test", {"bee": 2, "an ant": 1})
    (root / "train" / "bee" / "notes.txt").write_text("no image")
    (root / "train" / ".hidden").mkdir()
    splits = load(root, tmp_path / "cache")
    assert splits.class_names == ("an ant", "bee")
    assert splits.train.image_BHW[:, 14, 14].tolist() == [6, 16, 26, 3, 13, 23, 33]
    assert splits.test.image_BHW[:, 14, 14].tolist() == [6, 3, 13]


def test_a_folder_of_classes_alone_gives_its_last_images_to_the_test_set(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"a": 12, "b": 6, "c": 2})
    splits = load(root, tmp_path / "cache")
    assert np.bincount(splits.train.label_B).tolist() == [10, 5, 1]
    assert np.bincount(splits.test.label_B).tolist() == [2, 1, 1]
    assert splits.test.image_BHW[0, 0, 0] == 101


def test_a_class_of_one_part_only_is_named(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_folder(root / "train", {"ant": 3, "bee": 3})
    write_folder(root / "test", {"ant": 1, "cow": 1})
    refused(root, tmp_path / "cache", "class 'bee' has 0 test images")
    refused(root, tmp_path / "cache", "class 'cow' has 0 train images", classes=["cow"])
    assert load(root, tmp_path / "cache2", classes=["ant"]).class_names == ("ant",)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path / "cache", "empty: no images")


def test_any_kind_of_image_can_be_made_grey_and_what_is_transparent_is_white(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True)
    red = Image.new("RGB", (50, 20), (255, 0, 0))
    kinds = {
        "0.png": red,
        "1.jpg": red,
        "2.gif": red.convert("P"),
        "3.png": Image.new("RGBA", (28, 28), (0, 0, 0, 0)),
        "4.bmp": Image.new("1", (7, 7), 1),
        "5.png": Image.new("LA", (9, 9), (77, 255)),
    }
    for name, image in kinds.items():
        image.save(folder / name)
    splits = load(tmp_path / "set", tmp_path / "cache", allow_constant=True, image={"size": 28, "channels": "grey"})
    middle = [*splits.train.image_BHW[:, 14, 14].tolist(), splits.test.image_BHW[0, 14, 14]]
    expected = [76, 76, 76, 255, 255, 77]  # ITU-R 601: 0.299 of 255 for red
    assert np.abs(np.subtract(middle, expected)).max() <= 1


def test_images_that_are_none_or_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "set", {"a": 3})
    broken = root / "a" / "001.png"
    for content in (b"", b"not an image", broken.read_bytes()[:60]):
        broken.write_bytes(content)
        refused(root, tmp_path / "cache", "001.png", "not a readable image")
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(broken)
    refused(root, tmp_path / "cache", "001.png", "only 8-bit images")
    Image.new("1", (10_000, 5_001)).save(broken)
    refused(root, tmp_path / "cache", "001.png", "10000 x 5001 pixels; at most 50,000,000")
    Image.new("L", (40, 40)).save(broken)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused(root, tmp_path / "cache", "000.png", "DecompressionBomb")


def test_a_changed_image_is_read_again(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"a": 3})
    before = load(root, tmp_path / "cache").fingerprint
    assert load(root, tmp_path / "cache").fingerprint == before
    Image.new("L", (40, 40), 99).save(root / "a" / "000.png")
    assert load(root, tmp_path / "cache").fingerprint != before


def test_images_are_fetched_from_a_uri(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(write_folder(tmp_path / "set", {"a": 3, "b": 3})), "/bucket/set", recursive=True)
    np.savez(tmp_path / "one.npz", x=X_TRAIN, y=Y_TRAIN)
    memory.put(str(tmp_path / "one.npz"), "/bucket/one.npz")
    for name in ("set", "one.npz"):
        remote = load_splits(ImageData(root=f"memory://bucket/{name}"), tmp_path / "cache")
        assert remote.fingerprint == load(tmp_path / name, tmp_path / "cache").fingerprint
