"""Data source `parquet`: encoded images and labels in Parquet files, as Hugging Face publishes image sets.

Layout: https://huggingface.co/docs/datasets/image_load, and `ClassLabel` and `Image` in
https://huggingface.co/docs/datasets/about_dataset_features. Labels are read first; then the images that the spec
chooses, one row group at a time.

Shapes: N rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.bounded_read import refuse_bomb
from smoe_ray.data.array_files import MAX_ARRAY_BYTES, MAX_LABEL
from smoe_ray.data.checks import some
from smoe_ray.data.files import fetch_uri, is_uri, one_line
from smoe_ray.data.labelled_images import Treatment, content_of_pictures
from smoe_ray.data.source import Content, DataRequirement, ReadContext
from smoe_ray.errors import DataError
from smoe_ray.spec import ParquetData
from smoe_ray.spec.data_base import MAX_CLASS_NAME, normalised

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "validation", "valid", "val", "dev")
"""Parts of a set, by the beginning of a file's name; the first of those for testing that is there is the test set."""
MAX_ROWS = 20_000_000
"""A file with more is refused; ImageNet has 1.3 million images, in many files."""

_NAME = re.compile(rf"(?P<part>{'|'.join((*_TRAIN, *_TEST))})(?:[-_.].*)?\.parquet", re.IGNORECASE)


@dataclass(frozen=True)
class ParquetFiles:
    """The files of each part."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    """Empty: the last images of each class are held out."""
    notes: tuple[str, ...] = ()


def requirements(spec: ParquetData) -> tuple[DataRequirement, ...]:
    """The file or folder that `spec.root` names."""
    if is_uri(spec.root):
        return (DataRequirement("images", spec.root, "remote"),)
    root = Path(spec.root).expanduser()
    size = root.stat().st_size if root.is_file() else None
    return (DataRequirement("images", str(root), "present" if root.exists() else "absent", size),)


def find(spec: ParquetData, context: ReadContext) -> ParquetFiles:
    """The files at `spec.root`, fetched if it is a URI.

    Raises:
        DataError: there are none that are named for a part of a set, or they cannot be fetched.
    """
    root = fetch_uri(spec.root, context.progress) if is_uri(spec.root) else Path(spec.root).expanduser()
    if root is None or not root.exists():
        raise DataError(f"{spec.root}: no such file or folder; set data.root")
    if root.is_file():
        return ParquetFiles((root,), ())
    for folder in (root, root / "data"):
        parts: dict[str, list[Path]] = {}
        for file in sorted(folder.glob("*.parquet")):
            match = _NAME.fullmatch(file.name)
            if match:
                parts.setdefault(match["part"].lower(), []).append(file)
        train = next((parts.pop(part) for part in _TRAIN if part in parts), None)
        if train is None:
            continue
        test = next((parts.pop(part) for part in _TEST if part in parts), [])
        unused = [file.name for files in parts.values() for file in files]
        return ParquetFiles(tuple(train), tuple(test), (f"not used: {some(unused)}",) if unused else ())
    found = sorted(file.name for file in root.rglob("*.parquet"))
    raise DataError(
        f"{root}: no train-*.parquet here or in data/ ({some(found) or 'no Parquet file'}); set data.root to their "
        "folder, or to one file"
    )


def key(_spec: ParquetData, found: ParquetFiles, context: ReadContext) -> list[str]:
    """Part, place in the part, and content hash of each file."""
    return [
        f"{part} {number} {context.content_hash(file)}"
        for part, files in (("train", found.train), ("test", found.test))
        for number, file in enumerate(files)
    ]


def read(spec: ParquetData, found: ParquetFiles, context: ReadContext) -> Content:
    """All images of `spec`, in one format.

    Raises:
        DataError: a file is damaged or lacks a column, an image cannot be decoded, a class is absent or has fewer
            images than required, or the images have several sizes and `spec.image` does not choose one.
    """
    files = [_Opened(number, file, spec) for number, file in enumerate((*found.train, *found.test))]
    try:
        names = _class_names([file for file in files if file.class_names is not None])
        border = len(found.train)
        train = _by_class(files[:border], names)
        test = _by_class(files[border:], names) if found.test else None
        treatment = Treatment(spec.root, spec.image, spec.background, allow_constant=spec.allow_constant)
        return content_of_pictures(train, test, spec, treatment, found.notes, context.progress, _Row.place)
    finally:
        for file in files:
            file.close()


class _Row(NamedTuple):
    """One image, whose content is read when it is asked for."""

    file: _Opened
    row: int

    def __str__(self) -> str:
        return f"{self.file.path}: row {self.row}"

    @property
    def content(self) -> bytes:
        return self.file.content(self.row)

    def place(self) -> int:
        """Rows of a file stand together, in order."""
        return (self.file.number << 40) + self.row


@dataclass(eq=False)
class _Opened:
    """One file: its labels at once, its images a row group at a time."""

    number: int
    path: Path
    spec: ParquetData
    class_names: tuple[str, ...] | None = None
    label_N: npt.NDArray[Any] = field(init=False)
    _first_row: npt.NDArray[np.int64] = field(init=False)
    """Of each row group, and the number of all rows."""
    _group: int = -1
    _images: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        import pyarrow.parquet

        try:
            self._file = pyarrow.parquet.ParquetFile(self.path)
            schema = self._file.schema_arrow
            for column, option in ((self.spec.image_column, "image"), (self.spec.label_column, "label")):
                if column not in schema.names:
                    raise DataError(
                        f"{self.path}: no column '{column}' (there are: {some(schema.names, 20)}); set "
                        f"data.{option}_column"
                    )
            _refuse_greedy(self._file.metadata, self.path.stat().st_size)
            self.class_names = _class_label(schema.metadata, self.spec.label_column)
            self.label_N = _labels(self._file.read(columns=[self.spec.label_column]).column(0).to_pylist())
            groups = [self._file.metadata.row_group(k).num_rows for k in range(self._file.num_row_groups)]
            self._first_row = np.cumsum([0, *groups])
        except DataError:
            raise
        except Exception as error:  # pyarrow has exceptions of its own
            raise DataError(
                f"{self.path}: not a readable Parquet file of images ({one_line(error)}); download it again"
            ) from None

    def close(self) -> None:
        """Close the file and forget its images."""
        self._images = []
        self._file.close()

    def content(self, row: int) -> bytes:
        """The encoded image of a row. Raises ValueError where there is none."""
        group = int(np.searchsorted(self._first_row, row, side="right")) - 1
        if group != self._group:
            self._images = []  # before the next group is read: never two at a time
            self._images = self._file.read_row_group(group, columns=[self.spec.image_column]).column(0).to_pylist()
            self._group = group
        value = self._images[row - int(self._first_row[group])]
        if isinstance(value, Mapping):
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise ValueError("the row holds no encoded image: bytes, or a struct with bytes")
        return value


def _refuse_greedy(metadata: Any, held: int) -> None:
    """Raise ValueError, before any value is read, for what no set of images has."""
    if metadata.num_rows > MAX_ROWS:
        raise ValueError(f"{metadata.num_rows:,} rows; at most {MAX_ROWS:,} are read")
    for group in range(metadata.num_row_groups):
        unpacked = metadata.row_group(group).total_byte_size
        if unpacked > MAX_ARRAY_BYTES:
            raise ValueError(f"a row group of {unpacked:,} bytes")
        refuse_bomb(unpacked, held)


def _labels(values: list[Any]) -> npt.NDArray[Any]:
    """Whole numbers or words. Raises ValueError for anything else."""
    if values and isinstance(values[0], str):
        odd = next((value for value in values if not _is_word(value)), None)
        if odd is None and None not in values:
            return np.array([normalised(value) for value in values])
    else:
        odd = next((value for value in values if type(value) is not int or not 0 <= value <= MAX_LABEL), None)
        if odd is None and None not in values:
            return np.array(values, dtype=np.int64)
    raise ValueError(f"a label is {odd!r}; needed: whole numbers from 0 to {MAX_LABEL:,}, or words")


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_CLASS_NAME and value.isprintable()


def _class_label(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """Names of the classes, which the library `datasets` keeps in a file's schema; None where there are none."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        names = feature["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(names, list) or not all(map(_is_word, names)) or len(set(names)) < len(names):
        return None
    return tuple(map(normalised, names))


def _class_names(files: Sequence[_Opened]) -> tuple[str, ...] | None:
    for file in files:
        if file.class_names != files[0].class_names:
            raise DataError(f"{file.path}: names its classes otherwise than {files[0].path.name}; are they of one set?")
    return files[0].class_names if files else None


def _by_class(files: Sequence[_Opened], names: tuple[str, ...] | None) -> dict[str, list[_Row]]:
    """Rows of each class, in order of the labels."""
    rows: dict[Any, list[_Row]] = {}
    for file in files:
        for row, label in enumerate(file.label_N.tolist()):
            rows.setdefault(label, []).append(_Row(file, row))
    if len({type(label) for label in rows}) > 1:
        raise DataError(f"{files[0].path.parent}: labels are numbers in some files and words in others")
    if names is not None and rows and isinstance(next(iter(rows)), int):
        beyond = max(rows)
        if beyond >= len(names):
            raise DataError(f"{files[0].path}: label {beyond}, but its schema names {len(names)} classes")
        return {names[label]: rows[label] for label in sorted(rows)}
    return {str(label): rows[label] for label in sorted(rows)}
