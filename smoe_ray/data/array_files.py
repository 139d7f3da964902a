"""Labelled images in array files: MNIST-format IDX files, Kuzushiji's four ``.npz``, and one ``.npz`` with all arrays.

Shapes: N images, H W pixels, C channels.
"""

from __future__ import annotations

import gzip
import math
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from smoe_ray.bounded_read import open_regular, refuse_bomb
from smoe_ray.data.checks import some
from smoe_ray.data.files import one_line
from smoe_ray.errors import DataError
from smoe_ray.spec.data_base import MAX_CLASS_NAME, normalised

MAX_ARRAY_BYTES = 2**32
"""An array that would unpack to more is refused."""
MAX_LABEL = 9_999

_IDX_UINT8 = 0x08

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[Any]


class Labelled(NamedTuple):
    """Images (N, H, W) or (N, H, W, C) and one label each, whole numbers or words (N)."""

    image: Images
    label_N: Labels

    def transposed(self) -> Labelled:
        """The same images with rows and columns exchanged, as a view."""
        return Labelled(self.image.swapaxes(1, 2), self.label_N)


class ArraySet(NamedTuple):
    """What array files hold."""

    train: Labelled
    test: Labelled | None
    notes: tuple[str, ...] = ()
    label_names: tuple[str, ...] | None = None
    """Name of each label from 0 on, where the labels are numbers whose names are known."""

    def by_class(self, part: Labelled) -> dict[str, npt.NDArray[np.int64]]:
        """Indices of the images of each class of a part, sorted by label (numbers as numbers)."""
        labels = np.unique(part.label_N).tolist()
        names = [str(label) if self.label_names is None else self.label_names[label] for label in labels]
        return {name: np.flatnonzero(part.label_N == label) for name, label in zip(names, labels, strict=True)}

    def transposed(self) -> ArraySet:
        """The same images with rows and columns exchanged."""
        return self._replace(train=self.train.transposed(), test=self.test and self.test.transposed())


# --- four files -------------------------------------------------------------------------------------------------------

_IDX_NAME = re.compile(
    r"(?P<set>.*?)(?P<part>train|t10k|test)[-_.](?P<what>images|labels)[-_.]idx\d[-_.]ubyte(?P<gz>\.gz)?", re.IGNORECASE
)
"""``train-images-idx3-ubyte``, ``train-images.idx3-ubyte``, ``emnist-letters-test-labels-idx1-ubyte.gz`` …"""
_NPZ_NAME = re.compile(r"(?P<set>.*?)(?P<part>train|test)-(?P<what>imgs|images|labels)\.npz", re.IGNORECASE)
"""``k49-train-imgs.npz``, ``kmnist-test-labels.npz`` …"""

_ROLES = ("train images", "train labels", "test images", "test labels")
_EXPECTED = {
    "idx": dict(
        zip(
            _ROLES,
            ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
            strict=True,
        )
    ),
    "npz": dict(zip(_ROLES, ("train-imgs.npz", "train-labels.npz", "test-imgs.npz", "test-labels.npz"), strict=True)),
}


def is_idx_name(name: str) -> bool:
    """Whether a file of this name is one of an IDX set."""
    return _IDX_NAME.fullmatch(name) is not None


def is_kuzushiji_name(name: str) -> bool:
    """Whether a file of this name is one of Kuzushiji's four."""
    return _NPZ_NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class FourFiles:
    """Images and labels, for training and perhaps for testing, each in a file of its own."""

    of_role: Mapping[str, Sequence[Path]]
    """All files of a role: more than one where a plain one lies beside a ``.gz``; then all must hold the same."""
    is_transposed: bool
    """EMNIST, whose images are stored column by column."""

    def files(self) -> list[tuple[str, Path]]:
        """Every file that is read, with its role and what its name says about it."""
        transposed = "transposed " * self.is_transposed
        return [(f"{transposed}{role}", file) for role, files in self.of_role.items() for file in files]

    def read(self) -> ArraySet:
        """Raises DataError for damaged files, files of other kinds, and files of one role that differ."""
        arrays = {role: _same(files) for role, files in self.of_role.items()}
        name = {role: files[0].name for role, files in self.of_role.items()}
        sets = []
        for part in ("train", "test"):
            images, labels = f"{part} images", f"{part} labels"
            if images in arrays:
                folder = self.of_role[images][0].parent
                sets.append(checked(arrays[images], arrays[labels], folder, name[images], name[labels]))
        train, *rest = sets
        looks_like_emnist = not self.is_transposed and (train.label_N.min(), train.label_N.max()) == (1, 26)
        note = (
            "labels run from 1 to 26, as in EMNIST letters: if the images lie on their side, set data.transpose: true"
        )
        return ArraySet(train, rest[0] if rest else None, (note,) if looks_like_emnist else ())


def find_four_files(root: Path, of_set: str = "") -> FourFiles | None:
    """The IDX or Kuzushiji files in a folder whose names begin with `of_set`; None where it holds none.

    Raises:
        DataError: one of them is missing, or they are of several sets.
    """
    for kind, pattern in (("idx", _IDX_NAME), ("npz", _NPZ_NAME)):
        found: dict[str, dict[str, list[Path]]] = {}
        for entry in sorted(root.iterdir()):
            match = pattern.fullmatch(entry.name)
            # Some programs unpack `name.gz` into a folder `name` that holds `name`.
            files = [entry] if entry.is_file() else _inside(entry, pattern) if match and entry.is_dir() else []
            if match and files and match["set"].lower().startswith(of_set):
                part = "train" if match["part"].lower() == "train" else "test"
                what = "labels" if match["what"].lower() == "labels" else "images"
                found.setdefault(match["set"].lower(), {}).setdefault(f"{part} {what}", []).extend(files)
        if len(found) > 1:
            names = some(name.rstrip("-_.") or "(no name)" for name in found)
            raise DataError(f"{root}: holds files of {len(found)} sets: {names}; keep one here and move the others")
        for name, roles in found.items():
            return _complete(root, name, roles, kind)
    return None


def _inside(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if pattern.fullmatch(file.name) and file.is_file()]


def _complete(root: Path, name: str, roles: Mapping[str, list[Path]], kind: str) -> FourFiles:
    needed = _ROLES if any(role.startswith("test") for role in roles) else _ROLES[:2]
    for role in needed:
        if role not in roles:
            file = root / f"{name}{_EXPECTED[kind][role]}"
            raise DataError(
                f"{file}{'[.gz]' if kind == 'idx' else ''}: no such file; beside it are "
                f"{some(file.name for files in roles.values() for file in files)}"
            )
    # Plain files first: they are faster to read.
    of_role = {role: sorted(roles[role], key=lambda file: (file.suffix == ".gz", file)) for role in needed}
    return FourFiles(of_role, is_transposed=name.startswith("emnist"))


def _same(files: Sequence[Path]) -> npt.NDArray[Any]:
    first, *others = (_read_idx(file) if is_idx_name(file.name) else _read_only_array(file) for file in files)
    for file, other in zip(files[1:], others, strict=True):
        if not np.array_equal(first, other):
            raise DataError(f"{file}: holds something else than {files[0].name} beside it; remove one of them")
    return cast(npt.NDArray[Any], first)


def _read_idx(file: Path) -> npt.NDArray[np.uint8]:
    with open_regular(file) as stream:
        return parse_idx(stream, str(file), file.stat().st_size, packed=file.suffix.lower() == ".gz")


def parse_idx(stream: IO[bytes], what: str, held: int, packed: bool) -> npt.NDArray[np.uint8]:
    """The array of an IDX file of bytes: 0, 0, type, number of dimensions, each size (big-endian), then the data.

    Args:
        stream: the file.
        what: its name, for messages.
        held: its size, bytes.
        packed: whether it is compressed by gzip.

    Raises:
        DataError: it is damaged, or anything else.
    """
    try:
        with cast(IO[bytes], gzip.open(stream)) if packed else nullcontext(stream) as unpacked:
            magic = unpacked.read(4)
            if len(magic) < 4 or magic[:3] != bytes((0, 0, _IDX_UINT8)):
                raise ValueError(f"begins with {magic.hex(' ')}, not with 00 00 08")
            shape = np.frombuffer(unpacked.read(4 * magic[3]), dtype=">u4").tolist()
            size = math.prod(shape)
            if len(shape) != magic[3] or size > MAX_ARRAY_BYTES:
                raise ValueError(f"its header is cut or asks for {size:,} bytes")
            if packed:
                refuse_bomb(size, held)
            # One more, to see the end (and, in gzip, to check the CRC).
            content = unpacked.read((size if packed else min(size, held)) + 1)
    except Exception as error:  # damaged gzip streams raise several kinds
        raise DataError(f"{what}: not a readable IDX file ({one_line(error)}); copy or unpack it again") from None
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content):,}"
        raise DataError(f"{what}: its header promises {size:,} bytes, it holds {found}; copy or unpack it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read_only_array(file: Path) -> npt.NDArray[Any]:
    with _arrays(file) as arrays:
        if len(arrays.headers) != 1:
            raise DataError(f"{file}: holds {_listing(arrays.headers)}; one array is needed")
        [array] = arrays.load(tuple(arrays.headers))
        return array


# --- one npz ----------------------------------------------------------------------------------------------------------

_SCHEMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
    ("x", "y"),
)


@dataclass(frozen=True)
class OneNpz:
    """All arrays in one ``.npz``: ``x_train, y_train, x_test, y_test`` (also MedMNIST's names), or ``x, y``."""

    file: Path
    is_transposed: bool = False

    def files(self) -> list[tuple[str, Path]]:
        """The file."""
        return [("npz", self.file)]

    def read(self) -> ArraySet:
        """Raises DataError where the file is damaged or its arrays are not labelled images."""
        with _arrays(self.file) as arrays:
            actual = {name.lower(): name for name in arrays.headers}
            scheme = next((scheme for scheme in _SCHEMES if scheme[0] in actual), None)
            if scheme is None or not actual.keys() >= set(scheme):
                raise DataError(_wrong_names(self.file, arrays.headers, scheme))
            names = tuple(actual[name] for name in scheme)
            content = arrays.load(names)
        sets = [checked(content[k], content[k + 1], self.file, names[k], names[k + 1]) for k in range(0, len(names), 2)]
        unused = [actual[name] for name in ("val_images", "x_val", "x_valid") if name in actual]
        notes = (f"{self.file.name}: {', '.join(unused)} is not used",) if unused else ()
        return ArraySet(sets[0], sets[1] if len(sets) == 2 else None, notes)


class _Npz(NamedTuple):
    file: Path
    headers: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
    """Shape and type of each array, by name."""

    def load(self, names: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Raises DataError for pickled objects and for arrays that are too large."""
        for name in names:
            shape, dtype = self.headers[name]
            if dtype.hasobject:
                raise DataError(
                    f"{self.file}: {name} holds pickled Python objects, which are not read; save it as numbers or as "
                    f"{name}.astype(str)"
                )
            if math.prod(shape) * dtype.itemsize > MAX_ARRAY_BYTES:
                raise DataError(f"{self.file}: {name} unpacks to more than {MAX_ARRAY_BYTES:,} bytes")
        with zipfile.ZipFile(self.file) as archive:
            return [_load_array(archive, name) for name in names]


def _load_array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    with warnings.catch_warnings(), archive.open(f"{name}.npy") as stream:
        warnings.simplefilter("ignore")  # headers as Python 2 wrote them
        array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):  # reading to the end is also what checks the CRC
            raise ValueError(f"{name} holds more than its header says")
        return array


@contextmanager
def _arrays(file: Path) -> Iterator[_Npz]:
    """An ``.npz``, whatever goes wrong while reading it being a DataError."""
    try:
        held = file.stat().st_size
        with warnings.catch_warnings(), zipfile.ZipFile(file) as archive:
            warnings.simplefilter("ignore")  # headers as Python 2 wrote them
            headers = {}
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    if info.file_size > MAX_ARRAY_BYTES:
                        raise ValueError(f"{info.filename} unpacks to more than {MAX_ARRAY_BYTES:,} bytes")
                    refuse_bomb(info.file_size, min(info.compress_size, held))
                    with archive.open(info) as stream:
                        headers[info.filename.removesuffix(".npy")] = _header(stream)
        yield _Npz(file, headers)
    except DataError:
        raise
    except Exception as error:  # damaged archives raise nearly anything
        raise DataError(f"{file}: not a readable .npz of images ({one_line(error)}); copy or save it again") from None


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    else:  # 3.0 differs from 2.0 in the encoding of field names, which images have none of
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    return shape, dtype


def _listing(headers: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> str:
    return some(f"{name} ({dtype}, {shape})" for name, (shape, dtype) in headers.items()) or "no array"


def _wrong_names(file: Path, headers: Mapping[str, Any], scheme: Sequence[str] | None) -> str:
    found = f"{file}: holds {_listing(headers)}"
    if is_kuzushiji_name(file.name):
        return f"{found}: one of a set of files with images or labels each; set data.root: {file.parent}"
    if scheme is not None:
        missing = [name for name in scheme if name not in {name.lower() for name in headers}]
        return f"{found}; {', '.join(missing)} is missing: save all of {', '.join(scheme)}, or only x and y"
    return f"{found}; needed: x_train, y_train, x_test, y_test, or x and y: np.savez('images.npz', x=images, y=labels)"


# --- what arrays must be ----------------------------------------------------------------------------------------------


def checked(image: npt.NDArray[Any], label: npt.NDArray[Any], file: Path, image_name: str, label_name: str) -> Labelled:
    """Images as uint8 and one label each.

    Raises:
        DataError: they are anything else; the message says how to save them.
    """
    image = _checked_images(image, f"{file}: {image_name}", image_name)
    label = _checked_labels(label, f"{file}: {label_name}", label_name)
    if len(label) != len(image):
        raise DataError(f"{file}: {label_name} has {len(label):,} labels for {len(image):,} images in {image_name}")
    return Labelled(image, label)


def _checked_images(image: npt.NDArray[Any], what: str, name: str) -> Images:
    found = f"{what} is {image.dtype} of shape {image.shape}"
    is_images = image.ndim == 3 or (image.ndim == 4 and image.shape[3] in (1, 3, 4))
    if not is_images:
        raise DataError(f"{found}; needed: (N, H, W), or (N, H, W, C) with C = 1, 3 or 4{_reshape(image, name)}")
    if 0 in image.shape:
        raise DataError(f"{what} holds no image (shape {image.shape})")
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind not in "iuf":
        raise DataError(f"{found}; needed: whole numbers from 0 to 255")
    low, high = image.min(), image.max()
    if image.dtype.kind == "f":
        raise DataError(f"{found}, from {low:.4g} to {high:.4g}; {_as_bytes(name, float(low), float(high))}")
    if low < 0 or high > 255:
        raise DataError(f"{found}, from {low} to {high}; rescale it to 0..255 and save it as uint8")
    return image.astype(np.uint8, copy=False)


def _as_bytes(name: str, low: float, high: float) -> str:
    if low >= 0 and high <= 1:
        return f"save (255 * {name}).round().astype('uint8')"
    if low >= 0 and high <= 255:
        return f"save {name}.round().astype('uint8')"
    if low >= -1 and high <= 1:
        return f"save (127.5 * ({name} + 1)).round().astype('uint8')"
    return "rescale it to 0..255 and save it as uint8"


def _reshape(image: npt.NDArray[Any], name: str) -> str:
    if image.ndim == 2 and math.isqrt(image.shape[1]) ** 2 == image.shape[1]:
        side = math.isqrt(image.shape[1])
        return f": save {name}.reshape(-1, {side}, {side})"
    if image.ndim == 4 and image.shape[1] in (1, 3, 4):
        return f": save {name}.transpose(0, 2, 3, 1)"
    return ""


def _checked_labels(label: npt.NDArray[Any], what: str, name: str) -> Labels:
    if label.ndim == 2 and label.shape[1] == 1:  # as Keras's CIFAR and MedMNIST have them
        label = label[:, 0]
    found = f"{what} is {label.dtype} of shape {label.shape}"
    if label.ndim != 1:
        hint = f": save {name}.argmax(axis=1)" if _is_one_hot(label) else ""
        raise DataError(f"{found}; needed: one label per image, shape (N,){hint}")
    if label.dtype.kind == "U":
        return _checked_words(label, what)
    if label.dtype.kind not in "iu":
        raise DataError(f"{found}; needed: whole numbers or words: save {name}.astype('int64') or {name}.astype(str)")
    if len(label) and (label.min() < 0 or label.max() > MAX_LABEL):
        raise DataError(f"{what}: labels run from {label.min()} to {label.max()}; needed: 0 to {MAX_LABEL}")
    return label.astype(np.int64)


def _checked_words(label_N: npt.NDArray[np.str_], what: str) -> Labels:
    words = {word: normalised(word) for word in np.unique(label_N).tolist()}
    for word in words.values():
        if not 0 < len(word) <= MAX_CLASS_NAME or not word.isprintable():
            raise DataError(f"{what}: {word[:40]!r} cannot be the name of a class; needed: printable text")
    if len(words) > MAX_LABEL + 1:
        raise DataError(f"{what}: holds {len(words):,} different words; at most {MAX_LABEL + 1:,} classes are read")
    return np.array([words[word] for word in label_N.tolist()])


def _is_one_hot(label: npt.NDArray[Any]) -> bool:
    return bool(
        label.ndim == 2
        and label.dtype.kind in "iufb"
        and np.isin(label, (0, 1)).all()
        and (label.sum(axis=1) == 1).all()
    )
