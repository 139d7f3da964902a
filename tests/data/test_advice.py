"""Refusals of data files say what was found, which array or file is at fault, and what to do next."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_images import X_TEST, X_TRAIN, Y_TEST, Y_TRAIN, load, refused, write_idx
from test_pictures import shifted, write_classes, write_images

from smoe_ray.data import prepare
from smoe_ray.errors import DataError
from smoe_ray.spec import QuickDrawData
from support.quickdraw_files import scribbles, write_sketchrnn

# --- what is in a folder ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["mnist.npz", "raw/mnist.npz"])
def test_an_npz_in_the_folder_is_named(tmp_path: Path, place: str) -> None:
    file = tmp_path / "set" / place
    file.parent.mkdir(parents=True)
    np.savez(file, x=X_TRAIN, y=Y_TRAIN)
    root = file if place == "mnist.npz" else file.parent
    refused(tmp_path / "set", tmp_path / "cache", f"set data.root: {root}")


@pytest.mark.parametrize("place", ["raw", "MNIST/raw", "a/b/c"])
@pytest.mark.parametrize("layout", ["idx", "folder"])
def test_images_further_down_are_found(tmp_path: Path, place: str, layout: str) -> None:
    inside = tmp_path / "set" / place
    inside.mkdir(parents=True)
    if layout == "idx":
        write_idx(inside)
    else:
        write_classes(inside, "F", "L")
    root = tmp_path / "set"
    for _ in range(3):  # the advice leads there, in one step or in several
        if root != inside:
            with pytest.raises(DataError) as error:
                load(root, tmp_path / "cache")
            root = Path(str(error.value).rsplit("set data.root: ", maxsplit=1)[-1].split(";")[0])
    assert root == inside
    load(root, tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train.csv", "train.csv: CSV is not read; save as .npz"),
        ("data_batch_1", "read with data.source: cifar10"),
        ("x.parquet", "read with data.source: parquet"),
        ("digits.mat", "anything else is not read; save as .npz"),
        ("set.pkl", "a pickle is not read"),
        ("images.zip", "unpack it and set data.root to the folder"),
        ("images.tar.gz", "unpack it and set data.root to the folder"),
        ("x_train.npy", "one array alone has no labels"),
        ("cat.ndjson", "data.source: quickdraw, data.layout: ndjson"),
        ("readme.txt", "needed: IDX files"),
    ],
)
def test_files_of_other_kinds_are_named_with_the_next_step(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(b"x")
    refused(tmp_path / "set", tmp_path / "cache", name, words if name != "readme.txt" else "it holds readme.txt")
    alone = "neither an .npz file nor a folder" if name == "readme.txt" else words
    refused(tmp_path / "set" / name, tmp_path / "cache", name, alone)


def test_one_file_of_a_set_is_answered_with_its_folder(tmp_path: Path) -> None:
    root = write_idx(tmp_path / "mnist", ".gz")
    refused(root / "train-images-idx3-ubyte.gz", tmp_path / "cache", f"their folder: {root}")
    file = write_images(tmp_path / "set" / "F", shifted(2)) / "img00.png"
    refused(file, tmp_path / "cache", "one image", "one folder per class")
    refused(file.parent, tmp_path / "cache", "images (img00.png, img01.png), but no class folders")
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    refused(tmp_path / "empty", tmp_path / "cache", "it holds deeper/", "needed")
    refused(root, tmp_path / "cache", "set data.layout: auto", layout="folder")
    refused(write_classes(tmp_path / "classes", "F"), tmp_path / "cache", "set data.layout: auto", layout="idx")


# --- the arrays of an npz ---------------------------------------------------------------------------------------------

KERAS = {"x_train": X_TRAIN, "y_train": Y_TRAIN, "x_test": X_TEST, "y_test": Y_TEST}
MEDMNIST = ("train_images", "train_labels", "test_images", "test_labels")


@pytest.mark.parametrize("names", [("X_train", "y_train", "X_test", "y_test"), MEDMNIST, tuple(map(str.upper, KERAS))])
def test_arrays_are_read_under_the_names_that_others_give_them(tmp_path: Path, names: tuple[str, ...]) -> None:
    np.savez(tmp_path / "ours.npz", **KERAS)
    np.savez(tmp_path / "theirs.npz", **dict(zip(names, KERAS.values(), strict=True)), val_images=X_TEST)
    ours, theirs = (load(tmp_path / f"{name}.npz", tmp_path / "cache") for name in ("ours", "theirs"))
    assert ours.fingerprint == theirs.fingerprint
    assert theirs.notes == ("theirs.npz: val_images is not used",)


@pytest.mark.parametrize("parts", [("train", "test"), ("train",)])
def test_the_four_files_of_kuzushiji_are_read(tmp_path: Path, parts: tuple[str, ...]) -> None:
    (tmp_path / "k49").mkdir()
    for part in parts:
        np.savez_compressed(tmp_path / "k49" / f"k49-{part}-imgs.npz", KERAS[f"x_{part}"])
        np.savez_compressed(tmp_path / "k49" / f"k49-{part}-labels.npz", KERAS[f"y_{part}"])
    arrays = KERAS if len(parts) == 2 else {"x": X_TRAIN, "y": Y_TRAIN}
    np.savez(tmp_path / "ours.npz", **arrays)
    found = load(tmp_path / "k49", tmp_path / "cache")
    assert found.fingerprint == load(tmp_path / "ours.npz", tmp_path / "cache").fingerprint
    refused(tmp_path / "k49" / "k49-train-imgs.npz", tmp_path / "other", f"set data.root: {tmp_path / 'k49'}")
    (tmp_path / "k49" / "k49-train-labels.npz").unlink()
    refused(tmp_path / "k49", tmp_path / "other", "k49-train-labels.npz: no such file", "beside it are k49-")


@pytest.mark.parametrize("kind", [str, "S5", object])
def test_words_are_class_names(tmp_path: Path, kind: object) -> None:
    words = np.array(["猫", "F", "L"])[Y_TRAIN] if kind is str else np.array(["G", "F", "L"])[Y_TRAIN]
    np.savez(tmp_path / "set.npz", x=X_TRAIN, y=words.astype(kind))  # type: ignore[call-overload]
    if kind is str:
        splits = load(tmp_path / "set.npz", tmp_path / "cache")
        assert splits.class_names == ("F", "L", "猫")
        assert np.array_equal(splits.train.image_BHW[splits.train.label_B == 2], X_TRAIN[Y_TRAIN == 0][:8])
    else:
        refused(tmp_path / "set.npz", tmp_path / "cache", "y", "astype(str)")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_test": X_TEST / np.float32(255)}, "x_test is float32 of shape (12, 28, 28), from 0 to 1; save (255"),
        ({"x_train": X_TRAIN.astype(float)}, "x_train is float64 of shape (30, 28, 28), from 0 to 255; save x_"),
        ({"x_train": X_TRAIN / 127.5 - 1}, "from -1 to 1; save (127.5 * (x_train + 1))"),
        ({"x_train": X_TRAIN * 3.7}, "rescale it to 0..255"),
        ({"x_train": X_TRAIN.astype(int) * 2}, "x_train is int64 of shape (30, 28, 28), from 0 to 510; rescale"),
        ({"x_train": X_TRAIN.astype(int) - 1}, "from -1 to 254"),
        ({"x_train": X_TRAIN.reshape(30, -1)}, "save x_train.reshape(-1, 28, 28)"),
        ({"x_test": X_TEST[:, None]}, "save x_test.transpose(0, 2, 3, 1)"),
        ({"x_test": X_TEST[:0], "y_test": Y_TEST[:0]}, "x_test holds no image"),
        ({"x_train": X_TRAIN.astype(complex)}, "x_train is complex128"),
        ({"y_train": np.eye(3)[Y_TRAIN]}, "y_train is float64 of shape (30, 3)", ),
        ({"y_train": np.eye(3)[Y_TRAIN]}, "save y_train.argmax(axis=1)"),
        ({"y_test": Y_TEST.astype(float)}, "save y_test.astype('int64')"),
        ({"y_test": Y_TEST[:5]}, "y_test has 5 labels for 12 images in x_test"),
        ({"y_test": np.array(["a\nb"] * 12)}, "cannot be the name of a class"),
        ({"x_train": X_TRAIN.astype(object)}, "x_train holds pickled Python objects"),
    ],
)  # fmt: skip
def test_the_array_at_fault_is_named_with_what_to_save(
    tmp_path: Path, change: dict[str, np.ndarray], words: str
) -> None:
    np.savez(tmp_path / "set.npz", **(KERAS | change))
    refused(tmp_path / "set.npz", tmp_path / "cache", "set.npz", words)


def test_what_an_npz_holds_is_said_where_it_is_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", X_TRAIN, labels=Y_TRAIN)
    refused(tmp_path / "set.npz", tmp_path / "cache", "holds labels (uint8, (30,)), arr_0 (uint8, (30, 28, 28))",
            "np.savez('images.npz', x=images, y=labels)")  # fmt: skip
    with zipfile.ZipFile(tmp_path / "none.npz", "w") as archive:
        archive.writestr("readme.txt", "x")
    refused(tmp_path / "none.npz", tmp_path / "cache", "holds no array")


# --- Quick, Draw! -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ("full_numpy_bitmap_cat.npy", "there is full_numpy_bitmap_cat.npy: rename it to cat.npy"),
        ("Cat.npy", "there is Cat.npy: rename it"),
        ("cat (1).npy", "rename it"),
        ("cat.npz", "there is cat.npz: set data.layout: sketchrnn"),
        ("cat.full.npz", "set data.layout: sketchrnn"),
        ("full_simplified_cat.ndjson", "there is full_simplified_cat.ndjson: set data.layout: ndjson"),
        ("cat.npy.part", "cat.npy.part, which is not read"),
        ("cart.npy", "did you mean 'cart'?"),
        ("zebra.npy", "set data.download: true, or run: smoe-ray data fetch cat"),
    ],
)
def test_near_misses_of_file_names_are_named(tmp_path: Path, there: str, words: str) -> None:
    (tmp_path / there).write_bytes(b"x")
    with pytest.raises(DataError) as error:
        prepare(QuickDrawData(classes=("cat",), layout="bitmap", root=str(tmp_path)), tmp_path / "cache")
    assert "cat.npy: no such file" in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "there", ["The_Eiffel_Tower", "the eiffel tower", "The%20Eiffel%20Tower", "sketchrnn_The_Eiffel_Tower"]
)
def test_spaces_of_a_name_are_found_in_any_form(tmp_path: Path, there: str) -> None:
    write_sketchrnn(tmp_path / f"{there}.npz", scribbles(3), scribbles(3))
    with pytest.raises(DataError, match=f"there is {there}.npz: rename it to The Eiffel Tower.npz"):
        prepare(QuickDrawData(classes=("The Eiffel Tower",), root=str(tmp_path)), tmp_path / "cache")


def test_nothing_of_a_library_is_said_about_a_pickle_that_is_no_drawing(tmp_path: Path) -> None:
    (tmp_path / "cat.npz").write_bytes(pickle.dumps([1, 2]))
    spec = QuickDrawData(classes=("cat",), root=str(tmp_path), train_per_class=1, test_per_class=1)
    with pytest.raises(DataError, match="not a sketch-rnn"):
        prepare(spec, tmp_path / "cache")
    np.savez(tmp_path / "images.npz", x=X_TRAIN, y=Y_TRAIN)
    shutil.move(tmp_path / "images.npz", tmp_path / "cat.npz")
    with pytest.raises(DataError, match="it holds x, y, but no 'train'"):
        prepare(spec, tmp_path / "cache")
