"""Pictures as people have them: orientation, ranges, blank images, transparency, folders and names."""

from __future__ import annotations

import gzip
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_images import X_TEST, X_TRAIN, Y_TEST, Y_TRAIN, idx, load, refused, write_idx

from smoe_ray.data import load_splits
from smoe_ray.data.image_folder import IMAGE_SUFFIXES
from smoe_ray.data.quickdraw import rasterise
from smoe_ray.errors import DataError
from smoe_ray.spec import CombinedData, ImageData, QuickDrawData

F = np.zeros((28, 28), np.uint8)
F[4:24, 6:10] = F[4:8, 6:20] = F[12:16, 6:16] = 255


def shifted(count: int, glyph: np.ndarray = F) -> np.ndarray:
    """Copies of a glyph, each moved and of another grey, so that all differ."""
    moved = [np.roll(glyph, (n % 3 - 1, n // 3 % 3 - 1), axis=(0, 1)) for n in range(count)]
    return np.stack([np.where(image > 0, 255 - n, 0).astype(np.uint8) for n, image in enumerate(moved)])


def write_images(folder: Path, images: np.ndarray, suffix: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"img{number:02}{suffix}")
    return folder


def write_classes(root: Path, *names: str, count: int = 6) -> Path:
    for name in names:
        write_images(root / name, shifted(count))
    return root


# --- orientation ------------------------------------------------------------------------------------------------------

_STORED = {  # EXIF orientation: how an upright image is stored (EXIF 2.32, tag 274)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", _STORED)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_images_are_upright_as_their_exif_data_say(tmp_path: Path, orientation: int, suffix: str) -> None:
    folder = tmp_path / "set" / "F"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number, image in enumerate(shifted(6)):
        stored = Image.fromarray(np.ascontiguousarray(_STORED[orientation](image)))
        lossless = {"lossless": True} if suffix == ".webp" else {"quality": 95} if suffix == ".jpg" else {}
        stored.save(folder / f"{number}{suffix}", exif=exif, **lossless)
    found = load(tmp_path / "set", tmp_path / "cache").train.image_BHW
    difference = np.abs(found.astype(int) - shifted(6)[: len(found)])
    assert difference.max() == 0 if suffix in (".png", ".tif") else difference.mean() < 3


# --- value ranges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (shifted(12) // 200, "the brightest pixel is 1 of 255; 0/1 masks? multiply by 255"),
        (shifted(12) // 15, "the brightest pixel is 17 of 255; values of 0 to 17? multiply by 15"),
        ((shifted(12) > 0) * np.uint8(16), "values of 0 to 16? multiply by 15"),
        (200 + shifted(12) // 10, "run from 200 to 225"),
        (255 - shifted(12) // 200, "run from 254 to 255"),
    ],
)
@pytest.mark.parametrize("layout", ["npz", "idx", "folder", "large folder", "bitmap"])
def test_pixels_that_do_not_span_0_to_255_are_refused(
    tmp_path: Path, images: np.ndarray, words: str, layout: str
) -> None:
    labels = np.repeat([0, 1], 6).astype(np.uint8)
    if layout == "npz":
        np.savez(tmp_path / "set.npz", x=images, y=labels)
        refused(tmp_path / "set.npz", tmp_path / "cache", "set.npz", words)
    elif layout == "idx":
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "train-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / "set" / "train-labels-idx1-ubyte").write_bytes(idx(labels))
        refused(tmp_path / "set", tmp_path / "cache", words)
    elif layout == "bitmap":
        np.save(tmp_path / "cat.npy", images.reshape(12, -1))
        spec = QuickDrawData(classes=("cat",), layout="bitmap", root=str(tmp_path), train_per_class=8, test_per_class=4)
        with pytest.raises(DataError) as error:
            load_splits(spec, tmp_path / "cache")
        assert "cat.npy" in str(error.value)
        assert words.split("?")[-1] in str(error.value)
    else:
        large = images.repeat(4, axis=1).repeat(4, axis=2) if layout == "large folder" else images
        write_images(tmp_path / "set" / "F", large)
        refused(tmp_path / "set", tmp_path / "cache", "set", words)


def test_one_class_or_the_test_set_in_another_range_is_refused_by_name(tmp_path: Path) -> None:
    x = {"x_train": shifted(12), "x_test": shifted(12)}
    y = {"y_train": np.repeat([0, 7], 6), "y_test": np.repeat([0, 7], 6)}
    for name, part, split in (("x_train", slice(6, 12), "train"), ("x_test", slice(6, 12), "test")):
        wrong = {key: value.copy() for key, value in x.items()}
        wrong[name][part] //= 200
        np.savez(tmp_path / "set.npz", **wrong, **y)
        refused(tmp_path / "set.npz", tmp_path / "cache", f"{split} images of class '7'", "0/1 masks")


def test_a_low_range_is_told_and_a_whole_one_is_not(tmp_path: Path) -> None:
    for name, images, told in (("low", shifted(12) // 3, ["train", "test"]), ("whole", shifted(12), [])):
        np.savez(tmp_path / f"{name}.npz", x=images, y=np.zeros(12, int))
        notes = load(tmp_path / f"{name}.npz", tmp_path / "cache").notes
        assert [note.split()[4] for note in notes if note.startswith("pixel values")] == told
        assert any("run from 0 to 85, not from 0 to 255" in note for note in notes) == bool(told)


def test_true_and_false_are_black_and_white(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X_TRAIN > 127, y=Y_TRAIN)
    found = load(tmp_path / "set.npz", tmp_path / "cache").train.image_BHW
    expected = (X_TRAIN > 127)[np.argsort(Y_TRAIN, kind="stable")]
    assert np.array_equal(found[:8], expected[:8] * 255)
    np.savez(tmp_path / "grey.npz", x=X_TRAIN.astype(">i8"), y=Y_TRAIN)
    np.savez(tmp_path / "same.npz", x=X_TRAIN, y=Y_TRAIN)
    assert (
        load(tmp_path / "grey.npz", tmp_path / "cache").fingerprint
        == load(tmp_path / "same.npz", tmp_path / "cache").fingerprint
    )


# --- blank and equal images -------------------------------------------------------------------------------------------


def transparent(images: np.ndarray, ink: int) -> np.ndarray:
    """Drawings in one ink; where there is none, transparent."""
    alpha = images
    colour = np.full((*images.shape, 3), ink, np.uint8)
    return np.concatenate([colour, alpha[..., None]], axis=-1)


def test_white_ink_on_transparent_is_refused_with_a_way_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in "FL":
        write_images(root / name, transparent(shifted(12), ink=255))
    refused(root, tmp_path / "cache", "every train image is blank (all pixels 255)", "data.background: black")
    found = load(root, tmp_path / "cache", background="black")
    assert np.array_equal(found.train.image_BHW[:10], shifted(12)[:10])
    refused(write_images(tmp_path / "dark" / "F", transparent(shifted(6), 0)).parent, tmp_path / "other",
            "blank (all pixels 0)", background="black")  # fmt: skip


@pytest.mark.parametrize("kind", ["rgba.npz", "la.png", "palette.png"])
def test_transparency_of_other_kinds_goes_over_the_same_background(tmp_path: Path, kind: str) -> None:
    rgba = transparent(shifted(6), ink=255)
    if kind == "rgba.npz":
        root = tmp_path / "set.npz"
        np.savez(root, x=rgba.repeat(2, axis=1).repeat(2, axis=2), y=np.zeros(6, int))
    else:
        root = tmp_path / "set"
        for number, image in enumerate(rgba):
            (root / "F").mkdir(parents=True, exist_ok=True)
            if kind == "la.png":
                Image.fromarray(image[..., 2:], "LA").save(root / "F" / f"{number}.png")
            else:
                palette = Image.fromarray((image[..., 3] > 0).astype(np.uint8), "P")
                palette.putpalette([255, 255, 255] * 2)
                palette.save(root / "F" / f"{number}.png", transparency=0)
    refused(root, tmp_path / "cache", "blank", "data.background: black")
    found = load(root, tmp_path / "cache", background="black", image={"size": 28}).train.image_BHW
    assert np.abs(found[0].astype(int) - shifted(6)[0]).mean() < 12


@pytest.mark.parametrize("kind", ["constant", "the same", "blank after reduction", "one class constant"])
def test_classes_of_blank_or_equal_images_are_refused_unless_allowed(tmp_path: Path, kind: str) -> None:
    x = shifted(24)
    if kind == "constant":
        x = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None, None] * 10, (24, 28, 28))
    elif kind == "the same":
        x = np.broadcast_to(F, (24, 28, 28))
    elif kind == "one class constant":
        x[12:] = 0
    else:
        x = np.zeros((24, 800, 800), np.uint8)
        x[:, 400, 400:404] = 255
    np.savez_compressed(tmp_path / "set.npz", x=x, y=np.repeat([0, 1], 12))
    words = {
        "constant": ("every train image is blank",),
        "the same": ("10 of 10 train images of class '0' are the same",),
        "blank after reduction": ("blank", "too thin"),
        "one class constant": ("10 of 10 train images of class '1' are blank (all pixels 0)",),
    }
    size = {"image": {"size": 28}}
    refused(tmp_path / "set.npz", tmp_path / "cache", *words[kind], "data.allow_constant: true", **size)
    assert len(load(tmp_path / "set.npz", tmp_path / "cache", allow_constant=True, **size).train) == 20
    refused(
        tmp_path / "set.npz", tmp_path / "third", *words[kind], **size
    )  # what was allowed once is not allowed for all


def test_a_few_blank_and_repeated_images_are_counted(tmp_path: Path) -> None:
    x = shifted(24)
    x[3] = x[4] = 9
    x[13] = x[12]
    np.savez(tmp_path / "set.npz", x=x, y=np.repeat([0, 1], 12))
    assert load(tmp_path / "set.npz", tmp_path / "cache").notes == (
        "train: blank images: 2 (0: 2)",
        "train: copies of another image of their class: 2 (0: 1, 1: 1)",
    )


def test_notes_of_parts_name_the_part(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=shifted(12) // 3, y=np.zeros(12, int))
    parts = {"one": {"source": "images", "root": str(tmp_path / "set.npz")}}
    notes = load_splits(CombinedData.model_validate({"parts": parts}), tmp_path / "cache").notes
    assert [note.split(" of ")[0] for note in notes] == ["one: pixel values"] * 2


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_files_of_several_frames_are_told(tmp_path: Path, suffix: str) -> None:
    folder = write_images(tmp_path / "set" / "F", shifted(5))
    first, *others = [Image.fromarray(image) for image in shifted(3)]
    lossless = {"lossless": True} if suffix == ".webp" else {}
    first.save(folder / f"a{suffix}", save_all=True, append_images=others, **lossless)
    splits = load(tmp_path / "set", tmp_path / "cache")
    assert any("first frame" in note and f"a{suffix}" in note for note in splits.notes)
    assert np.array_equal(splits.train.image_BHW[0], shifted(1)[0])


# --- EMNIST and IDX names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_emnist_is_read_upright_under_its_own_names(tmp_path: Path, suffix: str) -> None:
    for part, x, y in (("train", X_TRAIN, Y_TRAIN + 1), ("test", X_TEST, Y_TEST + 1)):
        for what, array in (("images-idx3", x.swapaxes(1, 2)), ("labels-idx1", y)):
            content = idx(np.ascontiguousarray(array))
            file = tmp_path / "set" / f"emnist-letters-{part}-{what}-ubyte{suffix}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(gzip.compress(content) if suffix else content)
    splits = load(tmp_path / "set", tmp_path / "cache")
    assert splits.class_names == ("1", "2", "3")
    assert np.array_equal(splits.train.image_BHW[:10], X_TRAIN[Y_TRAIN == 0])
    for file in list((tmp_path / "set").iterdir()):
        shutil.copy(file, file.with_name(file.name.replace("letters", "digits")))
    refused(tmp_path / "set", tmp_path / "other", "2 sets", "emnist-digits, emnist-letters")


def test_labels_of_emnist_letters_under_other_names_are_recognised(tmp_path: Path) -> None:
    root = write_idx(tmp_path / "set", test=False)
    (root / "train-images-idx3-ubyte").write_bytes(idx(shifted(52)))
    (root / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(52, dtype=np.uint8) % 26 + 1))
    assert any("data.transpose: true" in note for note in load(root, tmp_path / "cache").notes)
    assert not any("EMNIST" in note for note in load(write_idx(tmp_path / "mnist"), tmp_path / "cache").notes)


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name.replace("-idx", ".idx"),
        lambda name: name.replace("-ubyte", ".ubyte"),
        lambda name: name.replace("t10k", "test"),
        lambda name: f"fashion-{name}",
        lambda name: f"{name}/{name}",
        lambda name: f"{name}/{name.replace('-idx', '.idx')}",
        lambda name: name.upper(),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_under_names_that_programs_give_them(tmp_path: Path, renamed: object, suffix: str) -> None:
    plain = load(write_idx(tmp_path / "plain"), tmp_path / "cache")
    for file in list(write_idx(tmp_path / "set", suffix).iterdir()):
        content = file.read_bytes()
        name = renamed(file.name.removesuffix(".gz")) + suffix  # type: ignore[operator]
        file.unlink()
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_bytes(content)
    found = load(tmp_path / "set", tmp_path / "cache")
    assert found.fingerprint == plain.fingerprint


# --- folders ----------------------------------------------------------------------------------------------------------


def test_images_below_a_class_folder_belong_to_it(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", "F", "7/batch1", "L/images/deep")
    write_images(root / "L", shifted(2))
    splits = load(root, tmp_path / "cache")
    assert splits.class_names == ("7", "F", "L")
    assert np.bincount(splits.train.label_B).tolist() == [5, 5, 7]
    assert "images in subfolders belong to the class above (7: batch1, L: images)" in splits.notes


@pytest.mark.parametrize("names", [("archive/F", "archive/L"), ("archive/train/F", "archive/train/L")])
def test_a_root_one_folder_too_high_is_refused_with_the_right_one(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = write_classes(tmp_path / "set", *names)
    inside = root / "archive"
    refused(root, tmp_path / "cache", f"{inside}")
    assert load(inside, tmp_path / "cache").class_names == ("F", "L")


def test_splits_below_classes_are_refused_by_name(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", "F/train", "F/test", "L/train", "L/test")
    refused(root, tmp_path / "cache", f"{root / 'F'}: holds test, train below the class", str(root / "test" / "F"))


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", "F", "L")
    (root / "F" / "._img00.png").write_bytes(b"\0\5\x16\7")
    write_images(root / "L" / ".trash", shifted(3))
    write_images(root / "__MACOSX" / "F", shifted(3))
    write_images(root / ".git" / "F", shifted(3))
    Image.fromarray(F).save(root / "L" / ".old.png")
    Image.fromarray(F).save(root / ".cover.png")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (root / "F" / name).write_bytes(b"x")
    splits = load(root, tmp_path / "cache")
    assert splits.class_names == ("F", "L")
    assert len(splits.train) + len(splits.test) == 12
    assert splits.notes == ()


def test_files_and_folders_that_are_not_read_are_told(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", "F", "L")
    for name in ("F/a.heic", "F/b.HEIC", "L/c", "empty/notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    write_images(root, shifted(1))
    notes = load(root, tmp_path / "cache").notes
    assert notes == (
        "folders without images are no classes: empty",
        "4 files in class folders not read as images (.heic: 2, no suffix: 1, .txt: 1)",
        "1 image beside the class folders, of no class (img00.png)",
    )


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Val"])
def test_a_validation_folder_is_the_test_set_where_there_is_none(tmp_path: Path, name: str) -> None:
    root = write_classes(tmp_path / "set" / "train", "F", "L", count=12).parent
    write_classes(root / name, "F", "L", count=4)
    splits = load(root, tmp_path / "cache")
    assert (len(splits.train), len(splits.test)) == (24, 8)
    assert splits.notes == (f"the test set is {name}/, as there is no test folder",)
    write_classes(root / "test", "F", "L", count=3)
    write_classes(root / "extra", "F")
    splits = load(root, tmp_path / "cache")
    assert len(splits.test) == 6
    assert splits.notes == (f"not used, being beside train/: {', '.join(sorted([f'{name}/', 'extra/']))}",)


def test_training_and_testing_are_names_of_splits_and_train_may_be_a_class(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set" / "Training", "F", "L", count=12).parent
    write_classes(root / "Testing", "F", "L", count=4)
    assert len(load(root, tmp_path / "cache").test) == 8
    vehicles = write_classes(tmp_path / "vehicles", "car", "train")
    assert load(vehicles, tmp_path / "cache").class_names == ("car", "train")
    write_classes(root / "train", "F", "L")
    refused(root, tmp_path / "other", "Training and train", "keep one")


@pytest.mark.parametrize("names", [("test/F", "val/F"), ("train", "test")])
def test_splits_without_class_folders_or_training_images_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    refused(write_classes(tmp_path / "set", *names), tmp_path / "cache", "no train folder with one folder per class")


def test_every_suffix_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "F"
    folder.mkdir(parents=True)
    for number, suffix in enumerate(IMAGE_SUFFIXES):
        image = Image.fromarray(shifted(20)[number])
        (image.convert("1") if suffix == ".pbm" else image).save(
            folder / f"{number:02}{suffix.upper()}", format="JPEG" if suffix == ".jfif" else None
        )
    splits = load(tmp_path / "set", tmp_path / "cache")
    assert len(splits.train) + len(splits.test) == len(IMAGE_SUFFIXES)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["猫", "men's (2)", "t-shirt & men's", "é", "ÅÄÖ", "1,000 {a} [b]", "x" * 200])
def test_a_class_that_is_read_can_be_chosen_by_its_name(tmp_path: Path, name: str) -> None:
    root = write_classes(tmp_path / "set", unicodedata.normalize("NFD", name), "other")
    everything = load(root, tmp_path / "cache").class_names
    assert set(everything) == {name, "other"}
    for written in {name, unicodedata.normalize("NFD", name)}:
        assert load(root, tmp_path / "cache", classes=[written]).class_names == (name,)
    splits = load(root, tmp_path / "cache", imbalance={"weights": {unicodedata.normalize("NFD", name): 0.5}})
    assert np.bincount(splits.train.label_B).tolist()[splits.class_names.index(name)] == 2
    parts = {"mine": {"source": "images", "root": str(root)}}
    combined = CombinedData.model_validate({"parts": parts, "classes": [f"mine/{name}"]})
    assert load_splits(combined, tmp_path / "cache").class_names == (f"mine/{name}",)


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", "é", unicodedata.normalize("NFD", "é"))
    refused(root, tmp_path / "cache", "two folders are named 'é'")


@pytest.mark.parametrize("classes", [[""], ["a/b"], [".a"], ["a\nb"], ["x" * 300]])
def test_what_is_no_name_is_refused_in_plain_words(classes: list[object]) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a class"):
        ImageData.model_validate({"root": "x", "classes": classes})


# --- ink --------------------------------------------------------------------------------------------------------------


def test_line_drawings_are_shown_in_the_ink_of_the_spec(tmp_path: Path) -> None:
    white, black = write_classes(tmp_path / "white", "F"), tmp_path / "black"
    write_images(black / "F", 255 - shifted(6))
    as_files = load(white, tmp_path / "cache").train.image_BHW
    for root in (white, black):
        found = load(root, tmp_path / "cache", ink="white_on_black").train.image_BHW
        assert np.array_equal(found, as_files)
        inverse = load(root, tmp_path / "cache", ink="black_on_white").train.image_BHW
        assert np.array_equal(inverse, 255 - as_files)
    write_images(white / "L", 255 - shifted(6))
    refused(white, tmp_path / "other", "'L' is dark on light, 'F' light on dark", ink="white_on_black")
    np.savez(tmp_path / "photos.npz", x=X_TRAIN, y=Y_TRAIN)
    refused(tmp_path / "photos.npz", tmp_path / "other", "leave data.ink out", ink="white_on_black")


def test_new_fields_at_their_defaults_are_not_hashed() -> None:
    plain = ImageData(root="x")
    assert plain.identity().keys() == {
        "classes", "fraction", "imbalance", "layout", "source", "test_per_class", "train_per_class",
    }  # fmt: skip
    for field in ({"ink": "black_on_white"}, {"background": "black"}, {"allow_constant": True}, {"transpose": True}):
        assert ImageData.model_validate({"root": "x"} | field).identity() == plain.identity() | field
    assert "allow_constant" not in QuickDrawData().identity()


# --- taps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moves", [[], [(0, 0)], [(0, 0), (0, 0)], [(1, 0), (-1, 0)], [(1, 1)]])
def test_a_tap_is_the_same_dot_however_it_is_stored(moves: list[tuple[int, int]]) -> None:
    """One point, equal points, or points within one pixel of the canvas."""
    line = [(0, 0, 0), (1000, 0, 1)]
    tap = [(-500, 500), *moves]
    drawing = [*line, *((x, y, int(n == len(tap) - 1)) for n, (x, y) in enumerate(tap))]
    closing = [(-sum(x for x, _ in moves), 500 - sum(y for _, y in moves), 0), (0, 0, 1)]  # fixes the bounding box
    image = rasterise([np.array([*drawing, *closing], np.int16)])[0]
    alone = rasterise([np.array([*line, (-500, 500, 1), (0, 500, 0), (0, 0, 1)], np.int16)])[0]
    assert np.array_equal(image, alone)
    assert alone[11:17, 11:17].min() == 56
