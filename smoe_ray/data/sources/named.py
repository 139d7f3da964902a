"""Image sets that are chosen by name: MNIST and its relatives, CIFAR, SVHN, MedMNIST.

They are read in the files in which they are published, packed or unpacked, and as ``.npz`` with Keras's names.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from smoe_ray.data.array_files import ArraySet, Labelled, OneNpz, checked, find_four_files, parse_idx
from smoe_ray.data.cifar import CIFAR10, cifar100, find_cifar
from smoe_ray.data.download import fetch_files
from smoe_ray.data.files import cache_folder, fetch_uri, is_uri, one_line
from smoe_ray.data.labelled_images import Treatment, content_of_arrays
from smoe_ray.data.mat_files import read_mat
from smoe_ray.data.published_files import fetch_name, medmnist_file, published_files
from smoe_ray.data.source import Content, DataRequirement, ReadContext
from smoe_ray.errors import DataError
from smoe_ray.spec import Cifar100Data, EmnistData, MedMnistData, NamedDataBase


class ArrayFiles(Protocol):
    """Files with all labelled images of a set."""

    @property
    def is_transposed(self) -> bool:
        """Whether images are stored column by column."""

    def files(self) -> list[tuple[str, Path]]:
        """Every file that is read, with its role or name."""

    def read(self) -> ArraySet:
        """Raises DataError for damaged files and files of other kinds."""


def requirements(spec: NamedDataBase) -> tuple[DataRequirement, ...]:
    """The set, wherever its files are."""
    title = spec.image_set.title
    if spec.root is not None and is_uri(spec.root):
        return (DataRequirement(title, spec.root, "remote"),)
    place = Path(spec.root).expanduser() if spec.root is not None else download_folder(spec)
    for folder in (place, download_folder(spec)) if spec.download else (place,):
        try:
            found = _search(spec, folder)
        except DataError:  # some of its files
            continue
        if found is not None:
            files = [file for _, file in found.files()]
            where = files[0] if len(files) == 1 else files[0].parent
            return (DataRequirement(title, str(where), "present", sum(file.stat().st_size for file in files)),)
    if spec.download:
        sizes = [file.size_bytes for file in published_files(spec)]
        size = None if None in sizes else sum(filter(None, sizes))
        return (DataRequirement(title, str(download_folder(spec)), "download", size),)
    return (DataRequirement(title, str(place), "absent", can_download=True),)


def find(spec: NamedDataBase, context: ReadContext) -> ArrayFiles:
    """The files of the set, downloaded if they are absent and the spec allows it.

    Raises:
        DataError: files are absent, or cannot be fetched.
    """
    found = None
    if spec.root is not None or not spec.download:
        place = _local(spec, context)
        found = _search(spec, place)
    if found is None and spec.download:
        # Never into `root`: it belongs to the user, and may be read-only.
        fetch_files(published_files(spec), download_folder(spec), context.progress)
        found = _search(spec, download_folder(spec))
    if found is None:
        names = " or ".join(_needed(spec))
        raise DataError(
            f"{spec.root or download_folder(spec)}: {spec.image_set.title} is not there (needed: {names}); set "
            f"data.root, or data.download: true, or run: smoe-ray data fetch {fetch_name(spec)}"
        )
    return found


def key(_spec: NamedDataBase, found: ArrayFiles, context: ReadContext) -> list[str]:
    """Role or name, and content hash, of each file."""
    return [f"{name} {context.content_hash(file)}" for name, file in found.files()]


def read(spec: NamedDataBase, found: ArrayFiles, context: ReadContext) -> Content:
    """The classes of the set that `spec` chooses, by their names.

    Raises:
        DataError: a file is damaged or holds another set, or a class has fewer images than required.
    """
    where = str(found.files()[0][1].parent if spec.root is None else spec.root)
    if context.progress:
        context.progress(f"reading {spec.image_set.title}", 0, 1)
    arrays = _named(found.read(), spec, where)
    if found.is_transposed:
        arrays = arrays.transposed()
    # Published sets are what they are: a blank image or a copy in them is no mistake of the user.
    content = content_of_arrays(arrays, spec, Treatment(where, spec.image_format, allow_constant=True))
    if context.progress:
        context.progress(f"reading {spec.image_set.title}", 1, 1)
    return content


def download_folder(spec: NamedDataBase) -> Path:
    """Where a downloaded set is kept; also searched when `data.root` is null."""
    return cache_folder() / spec.source


def _local(spec: NamedDataBase, context: ReadContext) -> Path:
    if spec.root is None:
        return download_folder(spec)
    if not is_uri(spec.root):
        return Path(spec.root).expanduser()
    place = fetch_uri(spec.root, context.progress)
    if place is None:
        raise DataError(f"{spec.root}: no such file or folder; set data.root")
    return place


# --- finding the files ------------------------------------------------------------------------------------------------

_FOLDERS = {
    "mnist": ("MNIST/raw",),
    "fashion_mnist": ("FashionMNIST/raw",),
    "kmnist": ("KMNIST/raw",),
    "emnist": ("EMNIST/raw", "gzip"),
    "cifar10": ("cifar-10-batches-bin", "cifar-10-batches-py"),
    "cifar100": ("cifar-100-binary", "cifar-100-python"),
}
"""Where torchvision and the archives put the files below a root."""


def _search(spec: NamedDataBase, place: Path) -> ArrayFiles | None:
    """The files of a set in a file or folder, or in a folder below it that is named for the set."""
    below = [place / name for name in (spec.source, *_FOLDERS.get(spec.source, ()))]
    for candidate in (place, *below):
        if candidate.exists():
            found = _find_in(spec, candidate)
            if found is not None:
                return found
    return None


def _find_in(spec: NamedDataBase, place: Path) -> ArrayFiles | None:
    if isinstance(spec, EmnistData):
        return _find_emnist(spec, place)
    if spec.source == "svhn":
        return _find_mat(place)
    npz = place if place.is_file() else place / f"{_npz_name(spec)}.npz"
    if npz.suffix.lower() == ".npz" and npz.is_file():
        return OneNpz(npz)
    if spec.source == "cifar10":
        return find_cifar(place, CIFAR10)
    if isinstance(spec, Cifar100Data):
        return find_cifar(place, cifar100(spec.labels))
    return find_four_files(place) if place.is_dir() and not isinstance(spec, MedMnistData) else None


def _npz_name(spec: NamedDataBase) -> str:
    return medmnist_file(spec) if isinstance(spec, MedMnistData) else spec.source


def _needed(spec: NamedDataBase) -> Iterator[str]:
    """The files that would do."""
    yield ", ".join(file.name for file in published_files(spec))
    if spec.source in ("cifar10", "cifar100"):
        yield "its batches"
    if isinstance(spec, EmnistData):
        yield f"emnist-{spec.split}-train-images-idx3-ubyte.gz and the other three"
    elif spec.source != "svhn" and not isinstance(spec, MedMnistData):
        yield f"{_npz_name(spec)}.npz"


# --- EMNIST -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ZippedIdx:
    """IDX files in the archive in which EMNIST is published: ``gzip/emnist-<split>-train-images-idx3-ubyte.gz`` …"""

    archive: Path
    prefix: str

    is_transposed = True

    def files(self) -> list[tuple[str, Path]]:
        """The archive."""
        return [(self.prefix, self.archive)]

    def read(self) -> ArraySet:
        """Raises DataError where the archive is damaged or lacks the split."""
        try:
            with zipfile.ZipFile(self.archive) as archive:
                return ArraySet(self._part(archive, "train"), self._part(archive, "test"))
        except DataError:
            raise
        except Exception as error:  # damaged archives raise several kinds
            raise DataError(
                f"{self.archive}: not the archive of EMNIST ({one_line(error)}); download it again"
            ) from None

    def _part(self, archive: zipfile.ZipFile, part: str) -> Labelled:
        images, labels = (f"{self.prefix}{part}-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1"))
        return checked(self._array(archive, images), self._array(archive, labels), self.archive, images, labels)

    def _array(self, archive: zipfile.ZipFile, name: str) -> npt.NDArray[np.uint8]:
        member = next((info for info in archive.infolist() if Path(info.filename).name == name), None)
        if member is None:
            raise DataError(f"{self.archive}: holds no {name}; it is not the archive of EMNIST")
        held = min(member.compress_size, self.archive.stat().st_size)
        with archive.open(member) as stream:
            return parse_idx(stream, f"{self.archive}: {name}", held, packed=True)


def _find_emnist(spec: EmnistData, place: Path) -> ArrayFiles | None:
    prefix = f"emnist-{spec.split}-"
    if place.is_file():
        return ZippedIdx(place, prefix) if place.suffix.lower() == ".zip" else None
    four = find_four_files(place, prefix)
    if four is not None:
        return four
    archive = next((place / name for name in ("gzip.zip", "emnist.zip") if (place / name).is_file()), None)
    return ZippedIdx(archive, prefix) if archive else None


# --- SVHN -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MatFiles:
    """SVHN's cropped digits: MATLAB files with X (32, 32, 3, N) and y (N, 1), where 10 stands for the digit 0.

    See http://ufldl.stanford.edu/housenumbers/ (format 2).
    """

    train: Path
    test: Path

    is_transposed = False

    def files(self) -> list[tuple[str, Path]]:
        """Both files."""
        return [("train", self.train), ("test", self.test)]

    def read(self) -> ArraySet:
        """Raises DataError where a file is damaged or holds anything else."""
        return ArraySet(_read_mat(self.train), _read_mat(self.test))


def _find_mat(place: Path) -> MatFiles | None:
    files = [place / f"{part}_32x32.mat" for part in ("train", "test")]
    present = [file for file in files if file.is_file()]
    if len(present) == 1:
        missing = next(file for file in files if file not in present)
        raise DataError(f"{missing}: no such file; beside it is {present[0].name}")
    return MatFiles(*files) if present else None


def _read_mat(file: Path) -> Labelled:
    try:
        content = read_mat(file, ("X", "y"))
        image_HWCN, label = content["X"], content["y"]
        if label.dtype.kind == "f" and (label == np.rint(label)).all():  # MATLAB's usual type of numbers
            label = label.astype(np.int64)
        if image_HWCN.dtype != np.uint8 or image_HWCN.ndim != 4:
            raise ValueError(f"X is {image_HWCN.dtype} of shape {image_HWCN.shape}, not uint8 (32, 32, 3, N)")
    except Exception as error:  # damaged files raise nearly anything
        raise DataError(f"{file}: not a file of SVHN's cropped digits ({one_line(error)}); download it again") from None
    held = checked(np.moveaxis(image_HWCN, 3, 0), label, file, "X", "y")
    return Labelled(held.image, np.where(held.label_N == 10, 0, held.label_N))


# --- what the arrays must be ------------------------------------------------------------------------------------------


def _named(arrays: ArraySet, spec: NamedDataBase, where: str) -> ArraySet:
    """`arrays` with labels from 0 on and the names of the classes.

    Raises:
        DataError: they are not those of the set.
    """
    title, (channels, *size), class_names = spec.image_set
    if arrays.test is None:
        raise DataError(f"{where}: holds no test images; {title} has a test set of its own")
    first = 1 if isinstance(spec, EmnistData) and spec.split == "letters" else 0
    parts = []
    for part in (arrays.train, arrays.test):
        shape = (*size, channels) if part.image.ndim == 4 else (*size,)
        if part.image.shape[1:] != shape or (part.image.ndim == 3 and channels == 3):
            found, wanted = ("x".join(map(str, each)) for each in (part.image.shape[1:], (*size, channels)))
            raise DataError(f"{where}: images of {found}, where {title} has {wanted}; is it another set?")
        label_N: npt.NDArray[Any] = part.label_N
        last = first + len(class_names) - 1
        if label_N.dtype.kind not in "iu" or label_N.min() < first or label_N.max() > last:
            found = f"{label_N.min()} to {label_N.max()}"
            raise DataError(f"{where}: labels from {found}, where {title} has {first} to {last}; is it another set?")
        parts.append(Labelled(part.image, label_N - first))
    return arrays._replace(train=parts[0], test=parts[1], label_names=class_names)
