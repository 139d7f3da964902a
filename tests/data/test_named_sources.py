"""Image sets by name: files built as their documentation says come back pixel by pixel, upright and named."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from test_download import Server, server  # noqa: F401 - a fixture
from test_images import idx

from smoe_ray.data import Splits, load_splits, requirements
from smoe_ray.data.download import RemoteFile
from smoe_ray.data.fetching import fetch_data
from smoe_ray.data.published_files import fetch_names, published_files
from smoe_ray.data.sources import named
from smoe_ray.errors import DataError
from smoe_ray.spec import Cifar100Data, DataSpec, EmnistData, ImageFormat, MedMnistData, NamedData, NamedDataBase
from smoe_ray.spec.named_data import SETS

Arrays = tuple[np.ndarray, np.ndarray]


def images(labels: list[int], shape: tuple[int, ...], seed: int = 0) -> Arrays:
    """An image of noise for each label."""
    return np.random.default_rng(seed).integers(0, 256, (len(labels), *shape), dtype=np.uint8), np.array(labels)


def splits_of(spec: DataSpec, tmp_path: Path) -> Splits:
    return load_splits(spec, tmp_path / "cache")


def assert_read(spec: DataSpec, train: Arrays, test: Arrays, names: tuple[str, ...], tmp_path: Path) -> None:
    """Images (N, H, W) or (N, H, W, 3) come back by class, in their order, with the names of their labels."""
    splits = splits_of(spec, tmp_path)
    assert splits.class_names == names
    for part, (image, label) in ((splits.train, train), (splits.test, test)):
        order = np.argsort(label, kind="stable")
        expected = image[order] if image.ndim == 3 else image[order].transpose(0, 3, 1, 2)
        assert np.array_equal(part.image_BHW, expected)
        assert np.array_equal(part.label_B, np.unique(label, return_inverse=True)[1][order])
    assert splits.train.image_shape == spec.image_shape


def refused(spec: DataSpec, tmp_path: Path, *words: str) -> None:
    with pytest.raises(DataError) as error:
        splits_of(spec, tmp_path)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def write_idx(folder: Path, train: Arrays, test: Arrays, prefix: str = "", test_name: str = "t10k") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, (image, label) in (("train", train), (test_name, test)):
        for what, array in (("images-idx3", image), ("labels-idx1", label.astype(np.uint8))):
            (folder / f"{prefix}{part}-{what}-ubyte.gz").write_bytes(gzip.compress(idx(array), 1))


GREY = (images([5, 0, 5, 1, 0], (28, 28)), images([0, 1, 5], (28, 28), seed=1))


@pytest.mark.parametrize(
    ("source", "names", "folder"),
    [
        ("mnist", ("0", "1", "5"), ""),
        ("mnist", ("0", "1", "5"), "MNIST/raw"),  # as torchvision puts them
        ("fashion_mnist", ("T-shirt/top", "Trouser", "Sandal"), "fashion_mnist"),
        ("kmnist", ("o", "ki", "ha"), ""),
    ],
)
def test_idx_files_with_the_names_of_their_classes(
    source: str, names: tuple[str, ...], folder: str, tmp_path: Path
) -> None:
    write_idx(tmp_path / folder, *GREY)
    assert_read(NamedData(source=source, root=str(tmp_path)), *GREY, names, tmp_path)


def test_kuzushiji_files_of_one_array_each(tmp_path: Path) -> None:
    for part, arrays in zip(("train", "test"), GREY, strict=True):
        for what, array in zip(("imgs", "labels"), arrays, strict=True):
            np.savez_compressed(tmp_path / f"kmnist-{part}-{what}.npz", array.astype(np.uint8))
    assert_read(NamedData(source="kmnist", root=str(tmp_path)), *GREY, ("o", "ki", "ha"), tmp_path)


@pytest.mark.parametrize("packed", [False, True], ids=["unpacked", "gzip.zip"])
@pytest.mark.parametrize(
    ("split", "first", "names"),
    [("letters", 1, ("a", "b", "f")), ("balanced", 36, ("a", "b", "e")), ("digits", 0, ("0", "1", "5"))],
)
def test_emnist_is_read_upright_and_named_by_its_characters(
    split: str, first: int, names: tuple[str, ...], packed: bool, tmp_path: Path
) -> None:
    labels = {"balanced": np.array([36, 37, 0, 0, 0, 39])}.get(split, np.arange(first, first + 6))
    train, test = ((image, labels[label]) for image, label in GREY)
    folder = tmp_path / "gzip"
    for prefix, arrays in ((f"emnist-{split}-", (train, test)), ("emnist-byclass-", (test, test))):
        stored = [(np.ascontiguousarray(image.swapaxes(1, 2)), label) for image, label in arrays]
        write_idx(folder, *stored, prefix=prefix, test_name="test")
    if packed:
        with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"gzip/{file.name}")
                file.unlink()
    assert_read(EmnistData(split=split, root=str(tmp_path)), train, test, names, tmp_path)


def test_a_damaged_or_foreign_emnist_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gzip.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("gzip/readme.txt", "nothing")
    refused(EmnistData(root=str(file)), tmp_path, "holds no emnist-balanced-train-images-idx3-ubyte.gz")
    file.write_bytes(b"PK no archive")
    refused(EmnistData(root=str(file)), tmp_path, "gzip.zip: not the archive of EMNIST")


# --- CIFAR ------------------------------------------------------------------------------------------------------------

COLOUR = (images([9, 0, 2, 2, 0, 0, 9], (32, 32, 3)), images([0, 9, 2], (32, 32, 3), seed=1))


def flat(image_NHWC: np.ndarray) -> np.ndarray:
    """Red, then green, then blue, each row by row."""
    return np.ascontiguousarray(image_NHWC.transpose(0, 3, 1, 2)).reshape(len(image_NHWC), -1)


def pickled(image: np.ndarray, labels: dict[str, np.ndarray]) -> bytes:
    """A batch as Python 2 wrote it: its strings are bytes to Python 3."""
    entries = {key.encode(): label.tolist() for key, label in labels.items()}
    return pickle.dumps({b"batch_label": b"a batch", b"data": flat(image), b"filenames": [b"a.png"]} | entries, 2)


def pickled_by_python_2(image: np.ndarray, labels: dict[str, np.ndarray]) -> bytes:
    """The same, opcode by opcode as in the published batches, whose texts are BINSTRING and SHORT_BINSTRING."""

    def text(content: bytes) -> bytes:
        short = len(content) < 256
        return (b"U" + bytes([len(content)]) if short else b"T" + len(content).to_bytes(4, "little")) + content

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    parts = [b"\x80\x02}(", text(b"batch_label"), text(b"training batch 1 of 5")]
    for key, label in labels.items():
        parts += [text(key.encode()), b"](", *map(number, label.tolist()), b"e"]
    parts += [
        text(b"data"),
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n", number(0), b"\x85", text(b"b"), b"\x87R",
        b"(", number(1), number(len(image)), number(3072), b"\x86",
        b"cnumpy\ndtype\n", text(b"u1"), number(0), number(1), b"\x87R",
        b"(", number(3), text(b"|"), b"NNN", number(-1), number(-1), number(0), b"tb",
        b"\x89", text(flat(image).tobytes()), b"tb",
    ]  # fmt: skip
    return b"".join([*parts, text(b"filenames"), b"](", text(b"camion_s_000148.png"), b"eu."])


def binary(image: np.ndarray, labels: dict[str, np.ndarray]) -> bytes:
    return np.column_stack([*(label.astype(np.uint8) for label in labels.values()), flat(image)]).tobytes()


def cifar10_batches(layout: str) -> dict[str, bytes]:
    suffix, write = {"python": ("", pickled_by_python_2), "binary": (".bin", binary)}[layout]
    (image, label), (test_image, test_label) = COLOUR
    parts = np.array_split(np.arange(len(label)), 5)
    train = {f"data_batch_{k + 1}{suffix}": write(image[p], {"labels": label[p]}) for k, p in enumerate(parts)}
    return train | {f"test_batch{suffix}": write(test_image, {"labels": test_label})}


def cifar100_batches(layout: str) -> dict[str, bytes]:
    suffix, write = {"python": ("", pickled), "binary": (".bin", binary)}[layout]
    return {
        f"{part}{suffix}": write(image, {"coarse_labels": label * 2, "fine_labels": label * 11})
        for part, (image, label) in zip(("train", "test"), COLOUR, strict=True)
    }


def put(batches: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in batches.items():
        (folder / name).write_bytes(content)
    return folder


def pack(batches: dict[str, bytes], file: Path) -> Path:
    with tarfile.open(file, "w:gz") as archive:
        for name, content in {"batches.meta": b"anything", **batches}.items():
            info = tarfile.TarInfo(f"cifar/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


@pytest.mark.parametrize("layout", ["python", "binary"])
@pytest.mark.parametrize("place", ["folder", "below", "archive", "archive in a folder"])
def test_cifar10_batches(layout: str, place: str, tmp_path: Path) -> None:
    batches = cifar10_batches(layout)
    if place.startswith("archive"):
        file = pack(batches, tmp_path / f"cifar-10-{layout}.tar.gz")
        root = file if place == "archive" else tmp_path
    else:
        name = {"python": "cifar-10-batches-py", "binary": "cifar-10-batches-bin"}[layout]
        folder = put(batches, tmp_path / name)
        root = folder if place == "folder" else tmp_path
    assert_read(NamedData(source="cifar10", root=str(root)), *COLOUR, ("airplane", "bird", "truck"), tmp_path)


@pytest.mark.parametrize("layout", ["python", "binary"])
@pytest.mark.parametrize(
    ("labels", "names"),
    [("fine", ("apple", "clock", "worm")), ("coarse", ("aquatic_mammals", "fruit_and_vegetables", "vehicles_1"))],
)
def test_cifar100_has_two_labels_per_image(layout: str, labels: str, names: tuple[str, ...], tmp_path: Path) -> None:
    root = put(cifar100_batches(layout), tmp_path / "cifar-100")
    assert_read(Cifar100Data(root=str(root), labels=labels), *COLOUR, names, tmp_path)


def test_npz_files_as_keras_has_them(tmp_path: Path) -> None:
    (x, y), (x_test, y_test) = COLOUR
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y[:, None], x_test=x_test, y_test=y_test[:, None])
    names = ("airplane", "bird", "truck")
    assert_read(NamedData(source="cifar10", root=str(tmp_path)), *COLOUR, names, tmp_path)
    assert_read(NamedData(source="cifar10", root=str(tmp_path / "cifar10.npz")), *COLOUR, names, tmp_path)


class Malicious:
    """Leaves a file behind where its pickle is loaded by Python."""

    def __init__(self, file: Path) -> None:
        self.command = f"touch {file}"

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "archive"])
def test_a_malicious_pickle_is_refused_and_does_not_run(packed: bool, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    content = pickle.dumps({b"data": flat(COLOUR[0][0]), b"labels": Malicious(trace)}, 2)
    pickle.loads(content)  # this is what may not happen
    assert trace.exists()
    trace.unlink()
    batches = cifar10_batches("python") | {"data_batch_3": content}
    root = pack(batches, tmp_path / "cifar-10-python.tar.gz") if packed else put(batches, tmp_path / "batches")
    refused(
        NamedData(source="cifar10", root=str(root)), tmp_path, "data_batch_3", "refused: its pickle names", "system"
    )
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps([1, 2]), "no dictionary"),
        (pickle.dumps({b"labels": [1]}, 2), "KeyError"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [1, 1]}, 2), "no array of bytes"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, 2), "1 labels for 2 images"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [b"a"]}, 2), "no list of labels"),
        (pickle.dumps({b"data": np.array([None]), b"labels": [1]}, 2), "an array of type O8"),
        (b"", "pickle exhausted"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "its pickle counts to 2,147,483,647"),  # would take 16 GiB of memory
    ],
)
def test_batches_that_hold_something_else_are_refused(content: bytes, words: str, tmp_path: Path) -> None:
    root = put(cifar10_batches("python") | {"test_batch": content}, tmp_path / "batches")
    refused(NamedData(source="cifar10", root=str(root)), tmp_path, "test_batch is no batch of CIFAR images", words)


def test_missing_and_cut_batches_are_named(tmp_path: Path) -> None:
    root = put(cifar10_batches("binary"), tmp_path / "batches")
    spec = NamedData(source="cifar10", root=str(root))
    (root / "test_batch.bin").write_bytes(b"x" * 3072)
    refused(spec, tmp_path, "test_batch.bin is no batch", "3,072 bytes, not a multiple of 3,073")
    (root / "data_batch_4.bin").unlink()
    refused(spec, tmp_path, "data_batch_4.bin missing beside the other batches")
    file = pack({"data_batch_1": b""}, tmp_path / "cifar-10-python.tar.gz")
    refused(
        NamedData(source="cifar10", root=str(file)),
        tmp_path,
        "holds data_batch_1",
        "needed: data_batch_1, data_batch_2",
    )
    file.write_bytes(b"no archive")
    refused(NamedData(source="cifar10", root=str(file)), tmp_path, "not a readable archive")


# --- SVHN, MedMNIST ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("compressed", "dtype"), [(True, np.uint8), (False, np.float64)])
def test_svhn_calls_the_digit_zero_ten(compressed: bool, dtype: type, tmp_path: Path) -> None:
    for part, (image, label) in zip(("train", "test"), COLOUR, strict=True):
        y = np.where(label == 0, 10, label).astype(dtype)[:, None]
        content = {"note": ["a text", "another"], "X": image.transpose(1, 2, 3, 0), "y": y}
        savemat(tmp_path / f"{part}_32x32.mat", content, do_compression=compressed)
    spec = NamedData(source="svhn", root=str(tmp_path))
    assert_read(spec, *COLOUR, ("0", "2", "9"), tmp_path)
    savemat(tmp_path / "test_32x32.mat", {"X": np.zeros((32, 32)), "y": [[1]]})
    refused(spec, tmp_path, "test_32x32.mat: not a file of SVHN", "float64")
    (tmp_path / "test_32x32.mat").write_bytes(b"MATLAB 7.3 MAT-file")
    refused(spec, tmp_path, "test_32x32.mat: not a file of SVHN")
    (tmp_path / "test_32x32.mat").unlink()
    refused(spec, tmp_path, "test_32x32.mat: no such file; beside it is train_32x32.mat")


@pytest.mark.parametrize(
    ("name", "size", "file", "shape", "names"),
    [
        ("pneumoniamnist", 28, "pneumoniamnist.npz", (28, 28), ("normal", "pneumonia")),
        ("bloodmnist", 64, "bloodmnist_64.npz", (64, 64, 3), ("basophil", "eosinophil")),
    ],
)
def test_medmnist_has_labels_in_a_column(
    name: str, size: int, file: str, shape: tuple[int, ...], names: tuple[str, ...], tmp_path: Path
) -> None:
    train, val, test = (images([1, 0, 1], shape, seed) for seed in range(3))
    arrays = {}
    for part, (image, label) in zip(("train", "val", "test"), (train, val, test), strict=True):
        arrays |= {f"{part}_images": image, f"{part}_labels": label[:, None].astype(np.uint8)}
    np.savez(tmp_path / file, **arrays)
    spec = MedMnistData(name=name, size=size, root=str(tmp_path))
    assert_read(spec, train, test, names, tmp_path)
    assert splits_of(spec, tmp_path).notes == (f"{file}: val_images is not used",)


# --- what is chosen ---------------------------------------------------------------------------------------------------


def test_classes_are_chosen_by_name_in_the_order_of_the_spec(tmp_path: Path) -> None:
    write_idx(tmp_path, *GREY)
    spec = NamedData(
        source="fashion_mnist",
        root=str(tmp_path),
        classes=("Trouser", "T-shirt/top"),
        train_per_class=1,
        test_per_class=1,
    )
    (image, label), _ = GREY
    splits = splits_of(spec, tmp_path)
    assert splits.class_names == ("Trouser", "T-shirt/top")
    assert np.array_equal(splits.train.image_BHW, [image[label == 1][0], image[label == 0][0]])
    refused(spec.model_copy(update={"test_per_class": 2}), tmp_path, "class 'Trouser' has 1 test images, 2 are needed")


def test_another_size_and_other_colours(tmp_path: Path) -> None:
    (x, y), (x_test, y_test) = COLOUR
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    spec = NamedData(source="cifar10", root=str(tmp_path), image=ImageFormat(size=16, channels="grey"))
    assert spec.image_shape == splits_of(spec, tmp_path).train.image_shape == (1, 16, 16)
    write_idx(tmp_path, *GREY)
    in_colour = NamedData(source="mnist", root=str(tmp_path), image=ImageFormat(channels="rgb"))
    assert in_colour.image_shape == splits_of(in_colour, tmp_path).train.image_shape == (3, 28, 28)


def test_grey_images_of_a_colour_set_stay_in_colour(tmp_path: Path) -> None:
    """The spec says the shape of images before they are read: it may not depend on which are chosen."""
    x, y = images([0, 0, 1], (32, 32, 1))
    np.savez(tmp_path / "cifar10.npz", x_train=x.repeat(3, axis=3), y_train=y, x_test=x.repeat(3, axis=3), y_test=y)
    spec = NamedData(source="cifar10", root=str(tmp_path))
    assert splits_of(spec, tmp_path).train.image_shape == spec.image_shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (COLOUR, "images of 32x32x3, where MNIST has 28x28x1"),
        ((images([3, 17], (28, 28)), GREY[1]), "labels from 3 to 17, where MNIST has 0 to 9"),
        ((images([0, 1], (28, 28)), images([0, 1], (27, 28))), "images of 27x28"),
    ],
)
def test_the_files_of_another_set_are_refused(arrays: tuple[Arrays, Arrays], words: str, tmp_path: Path) -> None:
    (x, y), (x_test, y_test) = arrays
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    refused(NamedData(source="mnist", root=str(tmp_path)), tmp_path, words, "is it another set?")
    np.savez(tmp_path / "mnist.npz", x=GREY[0][0], y=GREY[0][1])
    refused(NamedData(source="mnist", root=str(tmp_path)), tmp_path, "no test images")


def test_every_file_that_is_read_is_in_the_key(tmp_path: Path) -> None:
    root = put(cifar10_batches("binary"), tmp_path / "batches")
    spec = NamedData(source="cifar10", root=str(root))
    seen = {splits_of(spec, tmp_path).fingerprint}
    for file in sorted(root.iterdir()):
        content = bytearray(file.read_bytes())
        content[-1] ^= 255
        file.write_bytes(content)
        seen.add(splits_of(spec, tmp_path).fingerprint)
    assert len(seen) == 7


# --- downloads --------------------------------------------------------------------------------------------------------


def test_published_files_have_whole_checksums_and_safe_addresses() -> None:
    specs = [NamedData(source=source) for source in SETS] + [EmnistData(), Cifar100Data()]
    specs += [MedMnistData(name=name[9:].partition("_")[0], size=int(name.partition("_")[2] or 28))
              for name in fetch_names() if name.startswith("medmnist/")]  # fmt: skip
    files = [file for spec in specs for file in published_files(spec)]
    assert len({file.url for file in files}) == len(files) == 3 * 4 + 4 + 1 + 33
    for file in files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256 or "") or re.fullmatch(r"[0-9a-f]{32}", file.md5 or "")
        assert file.url.startswith("https://") or file.sha256
        assert file.name in file.url
    assert len({file.sha256 or file.md5 for file in files}) == len(files)


@pytest.fixture
def publisher(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:  # noqa: F811
    """A server with the files of a small MNIST, in the place of its publisher."""
    write_idx(tmp_path / "made", *GREY)
    server.files = {f"/{file.name}": file.read_bytes() for file in (tmp_path / "made").iterdir()}
    files = tuple(
        RemoteFile(name[1:], f"{server.url}{name}", len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in server.files.items()
    )

    def published(_spec: NamedDataBase) -> tuple[RemoteFile, ...]:
        return files

    monkeypatch.setattr(named, "published_files", published)
    monkeypatch.setattr("smoe_ray.data.fetching.published_files", published)
    return server


def test_a_set_is_fetched_where_the_spec_allows_it(publisher: Server, tmp_path: Path, downloads: Path) -> None:
    spec = NamedData(source="mnist", download=True)
    [need] = requirements(spec)
    assert (need.state, need.where) == ("download", str(downloads / "mnist"))
    assert need.size_bytes == sum(map(len, publisher.files.values()))
    publisher.faults = ["none", "breaks"]
    assert_read(spec, *GREY, ("0", "1", "5"), tmp_path)
    assert len(publisher.asked) == 5  # four files, one of them continued
    [need] = requirements(spec)
    assert (need.state, need.where) == ("present", str(downloads / "mnist"))
    offline = spec.model_copy(update={"download": False})
    assert_read(offline, *GREY, ("0", "1", "5"), tmp_path)
    assert len(publisher.asked) == 5


def test_a_set_is_fetched_into_a_folder_that_root_may_name(publisher: Server, tmp_path: Path) -> None:
    files = fetch_data(NamedData(source="mnist"), tmp_path / "sets")
    assert {file.parent for file in files} == {tmp_path / "sets" / "mnist"}
    assert_read(NamedData(source="mnist", root=str(tmp_path / "sets")), *GREY, ("0", "1", "5"), tmp_path)


def test_absent_sets_say_what_to_do(tmp_path: Path) -> None:
    spec = NamedData(source="mnist", root=str(tmp_path))
    assert [(need.state, need.can_download) for need in requirements(spec)] == [("absent", True)]
    refused(spec, tmp_path, "MNIST is not there", "train-images-idx3-ubyte.gz", "or run: smoe-ray data fetch mnist")
    refused(MedMnistData(name="pathmnist", size=64), tmp_path, "run: smoe-ray data fetch medmnist/pathmnist_64")
    write_idx(tmp_path, *GREY)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert [need.state for need in requirements(spec)] == ["absent"]
    refused(spec, tmp_path, "t10k-labels-idx1-ubyte[.gz]: no such file; beside it are")


def test_data_fetch_takes_sets_and_studies(
    publisher: Server, tmp_path: Path, downloads: Path, smoe_ray: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, _ = smoe_ray("data", "fetch", "mnist", "--to", tmp_path / "sets")
    assert code == 0
    assert sorted(out.split()) == sorted(str(tmp_path / "sets" / "mnist" / name[1:]) for name in publisher.files)
    study = tmp_path / "study.yaml"
    parts = "{source: combined, parts: {a: {source: mnist}, b: {source: synthetic}}}"
    study.write_text(f"name: a\nquestion: why?\naxes: {{data: [{{source: mnist}}, {parts}]}}\nseeds: [0]\n")
    code, out, _ = smoe_ray("data", "fetch", study)
    assert code == 0
    assert sorted(out.split()) == sorted(str(downloads / "mnist" / name[1:]) for name in publisher.files)
    study.write_text(study.read_text().replace("source: mnist", f"source: mnist, root: {tmp_path / 'sets'}"))
    assert smoe_ray("data", "fetch", study)[1].startswith("nothing to fetch")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar-10", "no such set; did you mean 'cifar10'?"),
        ("medmnist/chestmnist", "no such set; there are medmnist/bloodmnist, breastmnist,"),
        ("../cat", "neither a set (mnist, fashion_mnist, kmnist, emnist, cifar10, cifar100, svhn, medmnist/...)"),
    ],
)
def test_data_fetch_refuses_other_names(name: str, words: str, smoe_ray: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = smoe_ray("data", "fetch", name)
    assert code == 1
    assert words in err
    assert err.count("\n") == 1
