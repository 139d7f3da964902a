"""CIFAR-10 and CIFAR-100 as they are published: pickled or binary batches, unpacked or in their archive.

Layouts: https://www.cs.toronto.edu/~kriz/cifar.html

Shapes: N images, X pixels of one (3 x 32 x 32).
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.bounded_read import RefusedReadError, read_bounded, refuse_bomb
from smoe_ray.data.array_files import ArraySet, Labelled
from smoe_ray.data.array_pickle import Array, load_arrays
from smoe_ray.data.checks import some
from smoe_ray.data.files import one_line
from smoe_ray.errors import DataError

_MOST_BYTES_OF_BATCH = 2**29
"""The largest there is, of CIFAR-100, has 155 MB."""

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32

Images = npt.NDArray[np.uint8]


class Cifar(NamedTuple):
    """What is to be read of which set."""

    train: tuple[str, ...]
    """Names of the batches."""
    test: tuple[str, ...]
    archives: tuple[str, ...]
    labels_key: str
    """Of the labels in a pickled batch."""
    label_bytes: int
    """Before the pixels of each image in a binary batch."""
    label_byte: int
    """Which of them is the label."""


CIFAR10 = Cifar(
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    ("test_batch",),
    ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
    "labels",
    label_bytes=1,
    label_byte=0,
)


def cifar100(labels: str) -> Cifar:
    """CIFAR-100 with its ``fine`` or ``coarse`` labels."""
    archives = ("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz")
    return Cifar(("train",), ("test",), archives, f"{labels}_labels", 2, ("coarse", "fine").index(labels))


@dataclass(frozen=True)
class CifarBatches:
    """The batches of a set, each in a file of its own or all in one archive."""

    cifar: Cifar
    paths: tuple[Path, ...]
    """Files of the batches, training batches first; or the archive alone."""

    is_transposed = False

    def files(self) -> list[tuple[str, Path]]:
        """Every file that is read, with its name."""
        return [(path.name, path) for path in self.paths]

    def read(self) -> ArraySet:
        """Raises DataError where a batch is missing, damaged or holds anything but images and labels."""
        names = (*self.cifar.train, *self.cifar.test)
        if is_archive(self.paths[0]):
            where, contents = str(self.paths[0]), _of_layout(self.paths[0], names)
        else:
            where, contents = str(self.paths[0].parent), {path.name: _read_file(path) for path in self.paths}
        batches = []
        for name, content in contents.items():
            try:
                batches.append(_read_batch(name, content, self.cifar))
            except Exception as error:  # damaged pickles raise nearly anything
                raise DataError(
                    f"{where}: {name} is no batch of CIFAR images ({one_line(error)}); download it again"
                ) from None
        border = len(self.cifar.train)
        return ArraySet(_join(batches[:border]), _join(batches[border:]))


def find_cifar(place: Path, cifar: Cifar) -> CifarBatches | None:
    """The batches in a folder, or an archive that is it or lies in it; None where there is none.

    Raises:
        DataError: some of the batches are missing.
    """
    if place.is_file():
        return CifarBatches(cifar, (place,)) if is_archive(place) else None
    names = (*cifar.train, *cifar.test)
    for suffix in (".bin", ""):
        files = [place / f"{name}{suffix}" for name in names]
        missing = [file.name for file in files if not file.is_file()]
        if len(missing) < len(files):
            if missing:
                raise DataError(f"{place}: {some(missing)} missing beside the other batches; unpack the archive again")
            return CifarBatches(cifar, tuple(files))
    archive = next((place / name for name in cifar.archives if (place / name).is_file()), None)
    return CifarBatches(cifar, (archive,)) if archive else None


def is_archive(file: Path) -> bool:
    """Whether a file is a tar archive, as its name says."""
    return file.name.lower().endswith((".tar.gz", ".tgz", ".tar"))


def _read_file(path: Path) -> bytes:
    try:
        return read_bounded(path, _MOST_BYTES_OF_BATCH)
    except RefusedReadError as error:
        raise DataError(f"{path}: {error.strerror}; it is no batch of CIFAR images: download it again") from None


def _of_layout(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Content of the batches in an archive, in the order of `names`."""
    found: dict[str, bytes] = {}
    try:
        packed = archive.stat().st_size
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                refuse_bomb(member.offset_data + member.size, packed)  # also what is passed over is unpacked
                name = PurePosixPath(member.name).name
                if name.removesuffix(".bin") in names and member.isfile():
                    if member.size > _MOST_BYTES_OF_BATCH:
                        raise ValueError(f"{name} unpacks to {member.size:,} bytes")
                    content = tar.extractfile(member)
                    found[name] = content.read() if content else b""
    except Exception as error:  # damaged archives raise several kinds
        raise DataError(f"{archive}: not a readable archive ({one_line(error)}); download it again") from None
    for suffix in (".bin", ""):
        if all(f"{name}{suffix}" in found for name in names):
            return {f"{name}{suffix}": found[f"{name}{suffix}"] for name in names}
    raise DataError(f"{archive}: holds {some(found) or 'no batch'}; needed: {', '.join(names)}, plain or as .bin")


def _read_batch(name: str, content: bytes, cifar: Cifar) -> Labelled:
    if name.endswith(".bin"):
        record = cifar.label_bytes + _PIXELS
        if not content or len(content) % record:
            raise ValueError(f"{len(content):,} bytes, not a multiple of {record:,}")
        byte_NX = np.frombuffer(content, np.uint8).reshape(-1, record)
        return Labelled(byte_NX[:, cifar.label_bytes :], byte_NX[:, cifar.label_byte].astype(np.int64))
    batch = load_arrays(content)
    if not isinstance(batch, dict):
        raise ValueError("its pickle holds no dictionary")
    pixels, labels = _entry(batch, "data"), _entry(batch, cifar.labels_key)
    if not isinstance(pixels, Array) or pixels.numbers.dtype != np.uint8 or pixels.numbers.shape[1:] != (_PIXELS,):
        raise ValueError(f"'data' is no array of bytes (N, {_PIXELS})")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise ValueError(f"'{cifar.labels_key}' is no list of labels")
    if len(labels) != len(pixels.numbers):
        raise ValueError(f"{len(labels):,} labels for {len(pixels.numbers):,} images")
    return Labelled(pixels.numbers, np.array(labels, np.int64))


def _entry(batch: Mapping[Any, Any], key: str) -> Any:
    """Keys are byte strings where Python 2 wrote them."""
    return batch[key] if key in batch else batch[key.encode()]


def _join(batches: Sequence[Labelled]) -> Labelled:
    pixel_NX = np.concatenate([batch.image for batch in batches])
    image_NHWC = np.moveaxis(pixel_NX.reshape(-1, *_SHAPE), 1, 3)
    return Labelled(image_NHWC, np.concatenate([batch.label_N for batch in batches]))
