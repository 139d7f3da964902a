"""Every reader: valid files of every documented layout come back pixel by pixel; mutated ones are refused or told.

The mutation tests are slow: 10,000 files per reader, each bounded in time and all in memory.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from test_images import idx

from smoe_ray.data import Splits, load_splits
from smoe_ray.data.quickdraw import rasterise
from smoe_ray.spec import (
    Cifar100Data,
    DataSpec,
    EmnistData,
    ImageData,
    ImageFormat,
    NamedData,
    ParquetData,
    QuickDrawData,
)
from support.quickdraw_files import write_sketchrnn

EXAMPLES = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@st.composite
def labelled(draw: st.DrawFn, channels: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) that differ, and their labels, each class with at least two."""
    classes = draw(st.integers(1, 4))
    count = draw(st.integers(2 * classes, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    x[:, 0, :2] = (0, 255)
    y = np.concatenate([np.repeat(np.arange(classes), 2), rng.integers(0, classes, count - 2 * classes)])
    return x, rng.permutation(y)


def expected(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images: by label, the last sixth (rounded, one at least) of each class for testing."""
    train, test = [], []
    for label in np.unique(y):
        images = x[y == label]
        kept_back = max(1, int(len(images) / 6 + 0.5))
        train.append(images[:-kept_back])
        test.append(images[-kept_back:])
    return np.concatenate(train), np.concatenate(test)


def read(spec: ImageData | QuickDrawData) -> Splits:
    with tempfile.TemporaryDirectory() as cache:
        splits = load_splits(spec, Path(cache))
        return Splits(
            train=type(splits.train)(splits.train.image_BHW.copy(), splits.train.label_B.copy()),
            test=type(splits.test)(splits.test.image_BHW.copy(), splits.test.label_B.copy()),
            class_names=splits.class_names,
            fingerprint=splits.fingerprint,
        )


def assert_pixels(root: Path, train: np.ndarray, test: np.ndarray) -> None:
    splits = read(ImageData(root=str(root)))
    assert np.array_equal(splits.train.image_BHW, train)
    assert np.array_equal(splits.test.image_BHW, test)


@given(
    train=labelled(), suffix=st.sampled_from(["", ".gz"]), between=st.sampled_from("-."), separate=st.booleans(),
    prefix=st.sampled_from(["", "emnist-balanced-", "kmnist-"]), test_name=st.sampled_from(["t10k", "test"]),
    inside=st.booleans(),
)  # fmt: skip
@EXAMPLES
def test_idx_files_of_every_name(
    train: tuple[np.ndarray, np.ndarray], suffix: str, between: str, separate: bool, prefix: str, test_name: str,
    inside: bool, tmp_path: Path,
) -> None:  # fmt: skip
    x, y = train
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    stored = x.swapaxes(1, 2) if prefix.startswith("emnist") else x
    for part in ("train", test_name) if separate else ("train",):
        for what, array in (("images-idx3", stored), ("labels-idx1", y.astype(np.uint8))):
            name = f"{prefix}{part}-{what}-ubyte".replace("-idx", f"{between}idx")
            content = idx(np.ascontiguousarray(array))
            file = root / name / name if inside else root / f"{name}{suffix}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(gzip.compress(content, 1) if suffix and not inside else content)
    whole = np.concatenate([x[y == label] for label in np.unique(y)])
    assert_pixels(root, *((whole, whole) if separate else expected(x, y)))


@given(
    train=labelled(), compressed=st.booleans(), words=st.booleans(), fortran=st.booleans(), column=st.booleans(),
    dtype=st.sampled_from(["u1", "<i2", ">i2", ">u4", "<i8"]), label_dtype=st.sampled_from(["u1", ">i4", "<u2", "<i8"]),
    scheme=st.sampled_from([("x", "y"), ("X", "Y"), ("x_train", "y_train", "x_test", "y_test"),
                            ("train_images", "train_labels", "test_images", "test_labels")]),
    channels=st.sampled_from([None, 1, 3]),
)  # fmt: skip
@EXAMPLES
def test_npz_files_of_every_kind(
    train: tuple[np.ndarray, np.ndarray], compressed: bool, words: bool, fortran: bool, column: bool, dtype: str,
    label_dtype: str, scheme: tuple[str, ...], channels: int | None, tmp_path: Path,
) -> None:  # fmt: skip
    x, y = train
    images = x.astype(dtype)
    if channels == 1:
        images = images[..., None]
    elif channels == 3:  # equal channels are grey: ITU-R 601 weights add up to 1
        images = np.repeat(images[..., None], 3, axis=-1)
    labels = np.array([f"class {label}" for label in y]) if words else y.astype(label_dtype)
    file = Path(tempfile.mkdtemp(dir=tmp_path)) / "set.npz"
    arrays = [np.asfortranarray(images) if fortran else images, labels[:, None] if column else labels]
    (np.savez_compressed if compressed else np.savez)(file, **dict(zip(scheme, arrays * 2, strict=False)))
    whole = np.concatenate([x[y == label] for label in np.unique(y)])
    splits = read(ImageData(root=str(file)))
    wanted = expected(x, y) if len(scheme) == 2 else (whole, whole)
    tolerance = 0 if channels != 3 else 1
    for dataset, images_of_split in zip((splits.train, splits.test), wanted, strict=True):
        assert np.abs(dataset.image_BHW.astype(int) - images_of_split).max() <= tolerance


@given(
    train=labelled(), suffix=st.sampled_from([".png", ".bmp", ".tif", ".gif", ".pgm", ".PNG", ".webp"]),
    parts=st.sampled_from([(), ("train", "test"), ("Train", "valid"), ("training", "testing")]),
    below=st.sampled_from(["", "images", "a/b"]), hidden=st.booleans(), links=st.booleans(),
)  # fmt: skip
@EXAMPLES
def test_folders_of_every_kind(
    train: tuple[np.ndarray, np.ndarray], suffix: str, parts: tuple[str, ...], below: str, hidden: bool, links: bool,
    tmp_path: Path,
) -> None:  # fmt: skip
    x, y = train
    y = np.concatenate([y, y + y.max() + 1])  # two classes at least, so that the root is no folder too high
    x = np.concatenate([x, 255 - x])
    store, root = (Path(tempfile.mkdtemp(dir=tmp_path)) for _ in range(2))
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        for part in parts or ("",):
            folder = store / part / f"class {label}" / below
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(
                folder / f"{number:03}{suffix}", **({"lossless": True} if suffix == ".webp" else {})
            )
            if hidden:
                (folder / f"._{number:03}{suffix}").write_bytes(b"x")
    if links:
        for entry in store.iterdir():
            (root / entry.name).symlink_to(entry)
    whole = np.concatenate([x[y == label] for label in np.unique(y)])
    assert_pixels(root if links else store, *((whole, whole) if parts else expected(x, y)))


@given(
    train=labelled(),
    ink=st.sampled_from(["black_on_white", "white_on_black"]),
    version=st.sampled_from([(1, 0), (2, 0)]),
)
@EXAMPLES
def test_bitmap_files(train: tuple[np.ndarray, np.ndarray], ink: str, version: tuple[int, int], tmp_path: Path) -> None:
    x, _ = train
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    with (root / "cat.npy").open("wb") as file:
        np.lib.format.write_array(file, x.reshape(len(x), -1), version=version)
    spec = QuickDrawData.model_validate(
        {
            "classes": ["cat"],
            "layout": "bitmap",
            "root": str(root),
            "ink": ink,
            "train_per_class": 1,
            "test_per_class": 1,
        }
    )
    splits = read(spec)
    shown = x if ink == "white_on_black" else 255 - x
    assert np.array_equal(splits.train.image_BHW, shown[:1])
    assert np.array_equal(splits.test.image_BHW, shown[-1:])


@given(
    seed=st.integers(0, 2**32 - 1), count=st.integers(2, 12),
    dtype=st.sampled_from(["<i2", ">i2", "<i8", "<f4", ">f8"]),
    protocol=st.sampled_from([2, 3, 4]), equal=st.booleans(), fortran=st.booleans(),
)  # fmt: skip
@EXAMPLES
def test_sketchrnn_files(
    seed: int, count: int, dtype: str, protocol: int, equal: bool, fortran: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    drawings = []
    for _ in range(count):
        points = 9 if equal else int(rng.integers(2, 30))
        drawing = rng.integers(-90, 90, (points, 3)).astype(np.int16)
        drawing[:, 2] = rng.random(points) < 0.3
        drawings.append(drawing)
    stored = [np.asfortranarray(d.astype(dtype)) if fortran else d.astype(dtype) for d in drawings]
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    if equal:
        np.savez(root / "cat.npz", train=np.stack(stored), test=np.stack(stored))
    else:
        write_sketchrnn(root / "cat.npz", stored, stored, protocol)
    spec = QuickDrawData(classes=("cat",), root=str(root), train_per_class=count, test_per_class=1)
    splits = read(spec)
    assert np.array_equal(splits.train.image_BHW, rasterise(drawings))
    assert np.array_equal(splits.test.image_BHW, rasterise(drawings[:1]))


# --- mutated files ----------------------------------------------------------------------------------------------------

MUTATED = 10_000
MAX_SECONDS = 5.0
MAX_MEMORY_BYTES = 2**30

_RNG = np.random.default_rng(5)
_X = _RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
_Y = np.arange(12, dtype=np.uint8) % 2


def _image_bytes(suffix: str) -> bytes:
    stream = io.BytesIO()
    colour = np.repeat(np.repeat(_X[0], 2, axis=0)[..., None], 3, axis=-1)
    picture = Image.fromarray(colour if suffix != "GIF" else colour[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(stream, format=suffix, **({"exif": exif} if suffix in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
    return stream.getvalue()


def _npz_bytes(compressed: bool) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, x=_X, y=_Y)
    return stream.getvalue()


def _sketchrnn_bytes() -> bytes:
    drawings = [_RNG.integers(-90, 90, (9, 3)).astype(np.int16) for _ in range(6)]
    for drawing in drawings:
        drawing[:, 2] = _RNG.random(9) < 0.3
    with tempfile.TemporaryDirectory() as folder:
        return write_sketchrnn(Path(folder) / "cat.npz", drawings, drawings).read_bytes()


def _npy_bytes() -> bytes:
    stream = io.BytesIO()
    np.save(stream, _X.reshape(12, -1))
    return stream.getvalue()


def _emnist_bytes() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for part in ("train", "test"):
            for what, array in (("images-idx3", _X), ("labels-idx1", _Y)):
                archive.writestr(f"gzip/emnist-digits-{part}-{what}-ubyte.gz", gzip.compress(idx(array)))
    return stream.getvalue()


def _cifar_bytes() -> bytes:
    pixels = _RNG.integers(0, 256, (4, 3072), dtype=np.uint8)
    return pickle.dumps({b"data": pixels, b"coarse_labels": [0, 1, 0, 1], b"fine_labels": [5, 6, 5, 6]}, 2)


def _mat_bytes() -> bytes:
    stream = io.BytesIO()
    digits = {
        "X": _RNG.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8),
        "y": np.array([[1], [10], [1], [10]], np.uint8),
    }
    savemat(stream, digits, do_compression=True)
    return stream.getvalue()


def _parquet_bytes() -> bytes:
    images = []
    for image in _X:
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        images.append({"bytes": content.getvalue(), "path": None})
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "label": _Y.tolist()}), stream, row_group_size=5)
    return stream.getvalue()


def _ndjson_bytes() -> bytes:
    strokes = [[_RNG.integers(0, 256, 9).tolist() for _ in range(2)] for _ in range(6)]
    return "\n".join(
        json.dumps({"word": "cat", "recognized": True, "drawing": [stroke]}) for stroke in strokes
    ).encode()


READERS: dict[str, tuple[Callable[[], bytes], bool]] = {
    # What makes a valid file, and whether the format can tell that its pixels were changed.
    "idx": (lambda: idx(_X), False),
    "idx.gz": (lambda: gzip.compress(idx(_X)), True),
    "npz": (lambda: _npz_bytes(True), True),
    "stored.npz": (lambda: _npz_bytes(False), True),
    "png": (lambda: _image_bytes("PNG"), True),
    "jpg": (lambda: _image_bytes("JPEG"), False),
    "gif": (lambda: _image_bytes("GIF"), False),
    "bmp": (lambda: _image_bytes("BMP"), False),
    "tif": (lambda: _image_bytes("TIFF"), False),
    "webp": (lambda: _image_bytes("WEBP"), False),
    "sketchrnn": (_sketchrnn_bytes, True),
    "bitmap": (_npy_bytes, False),
    "ndjson": (_ndjson_bytes, False),
    "emnist": (_emnist_bytes, True),
    "cifar": (_cifar_bytes, False),
    "mat": (_mat_bytes, True),
    "parquet": (_parquet_bytes, False),
}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes flipped, set or removed, or pieces cut, doubled or moved; headers more often than the rest."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        reach = min(len(changed), 200) if rng.random() < 0.5 else len(changed)
        if reach < 2:
            break
        at = int(rng.integers(reach))
        end = min(len(changed), at + int(rng.integers(1, 40)))
        kind = int(rng.integers(7))
        if kind <= 2:
            changed[at] ^= int(rng.integers(1, 256))
        elif kind == 3:
            changed[at:end] = bytes([int(rng.choice([0, 255, 127, 128]))]) * (end - at)
        elif kind == 4:
            del changed[at:end]
        elif kind == 5:
            changed[at:at] = changed[at:end]
        else:
            del changed[at:]
    return bytes(changed)


def place(reader: str, root: Path) -> tuple[Path, DataSpec]:
    """Where the mutated file of a reader goes (the files beside it are made), and the spec that reads it."""
    if reader in ("sketchrnn", "bitmap", "ndjson"):
        fields = {"classes": ["cat"], "root": str(root), "layout": reader, "train_per_class": 4, "test_per_class": 2}
        suffix = {"sketchrnn": ".npz", "bitmap": ".npy", "ndjson": ".ndjson"}[reader]
        return root / f"cat{suffix}", QuickDrawData.model_validate(fields)
    small = ImageFormat(size=28)
    if reader == "emnist":
        return root / "gzip.zip", EmnistData(split="digits", root=str(root))
    if reader == "cifar":
        (root / "test").write_bytes(_cifar_bytes())
        return root / "train", Cifar100Data(root=str(root), image=small)
    if reader == "mat":
        (root / "test_32x32.mat").write_bytes(_mat_bytes())
        return root / "train_32x32.mat", NamedData(source="svhn", root=str(root), image=small)
    if reader == "parquet":
        return root / "train.parquet", ParquetData(root=str(root), image=small)
    if reader.startswith("idx"):
        (root / "train-labels-idx1-ubyte").write_bytes(idx(_Y))
        return root / f"train-images-idx3-ubyte{reader.removeprefix('idx')}", ImageData(root=str(root))
    if reader.endswith("npz"):
        return root / "set.npz", ImageData(root=str(root / "set.npz"))
    (root / "F").mkdir()
    Image.fromarray(_X[1]).save(root / "F" / "1.png")
    return root / "F" / f"0.{reader}", ImageData(root=str(root), image=ImageFormat(size=28))


def try_mutants(reader: str, count: int) -> None:
    """Feed mutants to a reader; writes what went wrong as JSON. Run in a process of its own, to see its memory."""
    import shutil
    import time

    from smoe_ray.data.source import ReadContext
    from smoe_ray.data.sources import source_reader
    from smoe_ray.errors import DataError

    make, can_tell = READERS[reader]
    content, rng = make(), np.random.default_rng(len(reader))
    root = Path(tempfile.mkdtemp())
    file, spec = place(reader, root)
    context = ReadContext(root.parent / f"{root.name}-records", 1, None, lambda _: pytest.fail("not combined"))
    module = source_reader(spec)

    def pixels() -> bytes:
        found = module.find(spec, context)
        assert module.key(spec, found, context)
        read = module.read(spec, found, context)
        assert read.train.image_shape == read.test.image_shape
        assert read.train.image_shape[1:] == (28, 28)
        assert read.train.image_BHW.dtype == np.uint8
        return read.train.image_BHW.tobytes() + read.test.image_BHW.tobytes()

    file.write_bytes(content)
    original = pixels()
    started_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    faults: list[str] = []
    refused = longest_s = 0.0
    for number in range(count):
        mutant = mutated(content, rng)
        file.write_bytes(mutant)
        start_s = time.monotonic()
        try:
            if pixels() != original and can_tell:
                faults.append(f"{number}: other pixels in silence")
        except DataError as error:
            refused += 1
            if "\n" in str(error) or str(root) not in str(error):
                faults.append(f"{number}: {error}")
        except BaseException as error:
            faults.append(f"{number}: {type(error).__name__}: {error}")
        longest_s = max(longest_s, time.monotonic() - start_s)
    used_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - started_bytes
    shutil.rmtree(root)
    sys.stdout.write(
        json.dumps({"faults": faults, "refused": refused, "longest_s": longest_s, "used_bytes": used_bytes})
    )


def assert_mutants(reader: str, count: int) -> None:
    imports = f"import sys; sys.path[:0] = {sys.path!r}; from test_formats import try_mutants"
    program = f"{imports}; try_mutants({reader!r}, {count})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""  # no library has a word of its own
    outcome = json.loads(done.stdout)
    assert outcome["faults"] == []
    assert outcome["longest_s"] < MAX_SECONDS
    assert outcome["used_bytes"] < MAX_MEMORY_BYTES
    assert 0 < outcome["refused"] < count or READERS[reader][1]


SLOW = ("ndjson", "emnist", "cifar", "mat", "parquet")
"""Readers whose mutants are left to the slow test."""


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader not in SLOW])
def test_a_few_mutated_files(reader: str) -> None:
    assert_mutants(reader, 150)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("reader", READERS)
def test_ten_thousand_mutated_files(reader: str) -> None:
    assert_mutants(reader, MUTATED)
