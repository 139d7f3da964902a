"""Data source `images`: MNIST-format IDX files, an ``.npz`` with x and y, or folders of image files.

Shapes: N images of a file or class, H W pixels.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
import math
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt

from smoe_ray.data.dataset import IMAGE_SIDE, Dataset
from smoe_ray.data.files import Progress, fetch_uri, is_uri, one_line
from smoe_ray.data.source import Content, DataRequirement, ReadContext
from smoe_ray.errors import DataError
from smoe_ray.spec import ImageData

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
MAX_ARRAY_BYTES = 2**32
"""An array that would unpack to more is refused."""
MAX_LABEL = 9_999

_IDX_UINT8 = 0x08
_TEST_SHARE = 6  # without a separate test set, one image in six is held out, as in MNIST

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Some = TypeVar("Some", Images, tuple[Path, ...])
Layout = Literal["idx", "npz", "folder"]


def requirements(spec: ImageData) -> tuple[DataRequirement, ...]:
    """The file or folder that `spec.root` names."""
    if is_uri(spec.root):
        return (DataRequirement("images", spec.root, "remote"),)
    root = Path(spec.root).expanduser()
    if root.is_file():
        return (DataRequirement("images", str(root), "present", root.stat().st_size),)
    return (DataRequirement("images", str(root), "present" if root.is_dir() else "absent"),)


def find(spec: ImageData, context: ReadContext) -> Path:
    """The file or folder that `spec.root` names, fetched if it is a URI.

    Raises:
        DataError: it does not exist, or cannot be fetched.
    """
    found = fetch_uri(spec.root, context.progress) if is_uri(spec.root) else Path(spec.root).expanduser()
    if found is None or not found.exists():
        raise DataError(f"{spec.root}: no such file or folder; set data.root")
    return found


def key(spec: ImageData, root: Path, context: ReadContext) -> list[str]:
    """The content of the files; for a folder of images, their names, sizes and modification times."""
    layout = _layout(spec, root)
    if layout == "npz":
        return [context.content_hash(root)]
    if layout == "idx":
        return [context.content_hash(file) for file in _idx_files(root)]
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    states = [(file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return [hashlib.sha256(json.dumps(states).encode()).hexdigest()]


def read(spec: ImageData, root: Path, context: ReadContext) -> Content:
    """All images of `spec` as 28x28 grey. Other sizes are resampled (LANCZOS), what is transparent becomes white.

    Raises:
        DataError: a file is damaged or of the wrong kind, or a class is absent or has fewer images than required.
    """
    layout = _layout(spec, root)
    if layout == "folder":
        train_files, test_files = _list_folder(root)
        names, train_parts, test_parts = _choose(train_files, test_files, spec)
        total = sum(map(len, (*train_parts, *test_parts)))
        reader = _FileReader(total, context.progress)
        return _content(names, [reader(part) for part in train_parts], [reader(part) for part in test_parts])
    arrays = _read_npz(root) if layout == "npz" else _read_idx(root)
    train, test = (None if part is None else _by_label(*part) for part in arrays)
    names, train_arrays, test_arrays = _choose(cast(dict[str, Images], train), test, spec)
    return _content(names, [_grey(part) for part in train_arrays], [_grey(part) for part in test_arrays])


def _content(names: Sequence[str], train: Sequence[Images], test: Sequence[Images]) -> Content:
    def dataset(parts: Sequence[Images]) -> Dataset:
        label_B = np.repeat(np.arange(len(parts), dtype=np.int64), [len(part) for part in parts])
        return Dataset(np.concatenate(parts), label_B)

    return Content(dataset(train), dataset(test), tuple(names))


def _layout(spec: ImageData, root: Path) -> Layout:
    if spec.layout != "auto":
        if root.is_file() != (spec.layout == "npz"):
            kind = "an .npz file" if spec.layout == "npz" else "a folder"
            raise DataError(f"{root}: data.layout '{spec.layout}' needs {kind}")
        return spec.layout
    if root.is_file():
        return "npz"
    return "idx" if any(root.glob("*-idx?-ubyte*")) else "folder"


def _choose(
    train: Mapping[str, Some], test: Mapping[str, Some] | None, spec: ImageData
) -> tuple[tuple[str, ...], list[Some], list[Some]]:
    """Class names, and the images of each class for training and testing: the first n that the spec requires.

    Without a separate test set, the last images of each class are the test set.
    """
    known = list(dict.fromkeys([*train, *(test or ())]))
    names = spec.classes or tuple(known)
    train_parts, test_parts = [], []
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"there are: {', '.join(known[:20])}"
            raise DataError(f"{spec.root}: no class '{name}'; {hint}")
        for_training: Any = train.get(name, ())
        if test is None:
            kept_back = spec.test_per_class or max(1, math.floor(len(for_training) / _TEST_SHARE + 0.5))
            border = max(0, len(for_training) - kept_back)
            for_training, for_test = for_training[:border], for_training[border:]
        else:
            for_test = test.get(name, ())
        train_parts.append(_first(for_training, spec.train_per_class, "train", name, spec))
        test_parts.append(_first(for_test, spec.test_per_class, "test", name, spec))
    return names, train_parts, test_parts


def _first(images: Any, wanted: int | None, split: str, name: str, spec: ImageData) -> Any:
    if len(images) < (wanted or 1):
        raise DataError(
            f"{spec.root}: class '{name}' has {len(images):,} {split} images, {wanted or 1:,} are needed; "
            f"lower data.{split}_per_class or leave the class out of data.classes"
        )
    return images[:wanted]


# --- arrays of images -------------------------------------------------------------------------------------------------

Labelled = tuple[Images, Labels]


def _by_label(image_NHW: Images, label_N: Labels) -> dict[str, Images]:
    return {str(label): image_NHW[label_N == label] for label in np.unique(label_N).tolist()}


def _checked(image: npt.NDArray[Any], label: npt.NDArray[Any], file: Path) -> Labelled:
    colour = image.ndim == 4 and image.shape[3] in (1, 3, 4)
    if image.dtype != np.uint8 or not (image.ndim == 3 or colour) or 0 in image.shape:
        raise DataError(
            f"{file}: images are {image.dtype} of shape {image.shape}; needed: uint8, (N, H, W) or (N, H, W, 3)"
        )
    if label.ndim == 2 and label.shape[1] == 1:  # as in Keras's CIFAR
        label = label[:, 0]
    if label.dtype.kind not in "iu" or label.shape != image.shape[:1]:
        raise DataError(
            f"{file}: labels are {label.dtype} of shape {label.shape}; needed: whole numbers, ({len(image)},)"
        )
    if label.min() < 0 or label.max() > MAX_LABEL:
        raise DataError(f"{file}: labels run from {label.min()} to {label.max()}; needed: 0 to {MAX_LABEL}")
    return image, label.astype(np.int64)


def _read_npz(file: Path) -> tuple[Labelled, Labelled | None]:
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        halves = [("x_train", "y_train"), ("x_test", "y_test")] if "x_train" in sizes else [("x", "y")]
        names = [name for half in halves for name in half]
        if not sizes.keys() >= set(names):
            raise ValueError(f"needs x_train, y_train, x_test, y_test, or x and y; has {', '.join(sorted(sizes))}")
        if sum(sizes[name] for name in names) > MAX_ARRAY_BYTES:
            raise ValueError(f"unpacks to more than {MAX_ARRAY_BYTES:,} bytes")
        with np.load(file, allow_pickle=False) as arrays:
            content = [(arrays[x], arrays[y]) for x, y in halves]
    except Exception as error:  # damaged archives raise nearly anything
        raise DataError(f"{file}: not a readable .npz of images ({one_line(error)})") from None
    parts = [_checked(image, label, file) for image, label in content]
    return parts[0], parts[1] if len(parts) == 2 else None


def _idx_files(root: Path) -> list[Path]:
    """The image and label files of the training set and, if present, of the test set."""
    found = []
    for name in IDX_FILES:
        present = [root / f"{name}{suffix}" for suffix in ("", ".gz") if (root / f"{name}{suffix}").is_file()]
        if present:
            found.append(present[0])
        elif name.startswith("train") or any(file.name.startswith("t10k") for file in found):
            raise DataError(f"{root / name}[.gz]: no such file; an IDX folder holds {', '.join(IDX_FILES)}")
    if len(found) == 3:
        raise DataError(f"{root / IDX_FILES[2]}[.gz]: no such file, but its labels are there")
    return found


def _read_idx(root: Path) -> tuple[Labelled, Labelled | None]:
    files = _idx_files(root)
    arrays = [_read_idx_file(file) for file in files]
    train = _checked(arrays[0], arrays[1], files[0])
    return train, _checked(arrays[2], arrays[3], files[2]) if len(files) == 4 else None


def _read_idx_file(file: Path) -> npt.NDArray[np.uint8]:
    """The array of an IDX file of bytes: 0, 0, type, number of dimensions, each size (big-endian), then the data."""
    try:
        with cast(BinaryIO, gzip.open(file) if file.suffix == ".gz" else file.open("rb")) as stream:
            magic = stream.read(4)
            if len(magic) < 4 or magic[:3] != bytes((0, 0, _IDX_UINT8)):
                raise ValueError(f"begins with {magic.hex(' ')}, not with 00 00 08")
            shape = np.frombuffer(stream.read(4 * magic[3]), dtype=">u4").tolist()
            size = math.prod(shape)
            if len(shape) != magic[3] or size > MAX_ARRAY_BYTES:
                raise ValueError(f"its header is cut or asks for {size:,} bytes")
            content = stream.read(size + 1)  # one more, to see the end (and, in gzip, to check the CRC)
    except Exception as error:  # damaged gzip streams raise several kinds
        raise DataError(f"{file}: not a readable IDX file ({one_line(error)})") from None
    if len(content) != size:
        held = "more" if len(content) > size else f"{len(content):,}"
        raise DataError(f"{file}: its header promises {size:,} bytes, it holds {held}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _grey(image_NHW: Images) -> Images:
    if image_NHW.shape[1:] == (IMAGE_SIDE, IMAGE_SIDE):
        return image_NHW
    from PIL import Image

    if image_NHW.ndim == 4 and image_NHW.shape[3] == 1:
        return _grey(image_NHW[..., 0])
    return np.stack([_small(Image.fromarray(np.ascontiguousarray(image))) for image in image_NHW])


def _small(image: Any) -> Images:
    """A PIL image as (28, 28) grey."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        raise ValueError(f"pixels of mode {image.mode}; only 8-bit images are read")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    image = image.convert("L")
    if image.size != (IMAGE_SIDE, IMAGE_SIDE):
        image = image.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


# --- folders of image files -------------------------------------------------------------------------------------------


def _list_folder(root: Path) -> tuple[dict[str, tuple[Path, ...]], dict[str, tuple[Path, ...]] | None]:
    """Files of each class, from ``train/<class>/`` and ``test/<class>/``, or from ``<class>/`` alone."""
    train, test = root / "train", root / "test"
    if train.is_dir():
        return _list_classes(train), _list_classes(test) if test.is_dir() else None
    return _list_classes(root), None


def _list_classes(folder: Path) -> dict[str, tuple[Path, ...]]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = {
        name: tuple(sorted(file for file in (folder / name).iterdir() if file.suffix.lower() in IMAGE_SUFFIXES))
        for name in names
    }
    files = {name: found for name, found in files.items() if found}
    if not files:
        raise DataError(
            f"{folder}: no images; needed: IDX files, or one folder per class with {', '.join(IMAGE_SUFFIXES)}"
        )
    return files


class _FileReader:
    """Reads image files and reports progress."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress

    def __call__(self, files: Sequence[Path]) -> Images:
        images = []
        for file in files:
            images.append(_read_image(file))
            self._done += 1
            if self._progress and (self._done % 500 == 0 or self._done == self._total):
                self._progress("reading images", self._done, self._total)
        return np.stack(images)


def _read_image(file: Path) -> Images:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return _small(image)
    except Exception as error:  # every format has exceptions of its own
        raise DataError(f"{file}: not a readable image ({one_line(error)}); mend or remove it") from None
