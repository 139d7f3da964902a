"""A prepared source on disk: arrays as memory-mappable ``.npy`` files beside a ``meta.json`` and their checksums.

Shapes: B images, H W pixels, P continuous parameters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smoe_ray.bounded_read import read_bounded
from smoe_ray.data.dataset import Dataset
from smoe_ray.data.files import content_hashes, sha256_of
from smoe_ray.data.source import Content
from smoe_ray.errors import DataError

META = "meta.json"
"""Written last: a folder that has it is complete."""
SUMS = "SHA256SUMS"
"""Checksums of all other files, as ``sha256sum --check`` reads them."""

_MOST_BYTES = 100_000_000
"""Size limit of `META` and `SUMS`, which hold names and notes."""

_DTYPES = {"image_BHW": np.uint8, "label_B": np.int64, "style_B": np.int64, "parameter_BP": np.float32}


@dataclass(frozen=True)
class Source:
    """A whole prepared source, at fraction 1 and without imbalance; arrays are read-only memory maps."""

    train: Dataset
    """Sorted by label."""
    test: Dataset
    class_names: tuple[str, ...]
    style_names: tuple[str, ...]
    parameter_names: tuple[str, ...]
    fingerprint: str
    """SHA-256 (hex) of all arrays and names; independent of the files they were read from."""
    folder: Path
    notes: tuple[str, ...] = ()
    """One line each: what the user should know about these data."""


def write_source(content: Content, folder: Path) -> None:
    """Write `content` into an existing, empty folder.

    Raises:
        ValueError: the arrays do not fit together (a bug of the reader).
    """
    digest = hashlib.sha256()
    names = {
        "class_names": list(content.class_names),
        "style_names": list(content.style_names),
        "parameter_names": list(content.parameter_names),
    }
    digest.update(json.dumps(names, sort_keys=True).encode())
    shapes = {}
    for name, array in _arrays(content):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
        shapes[name] = list(array.shape)
    meta = names | {"arrays": shapes, "fingerprint": digest.hexdigest(), "notes": list(content.notes)}
    text = json.dumps(meta, indent=1).encode()
    sums = {f"{name}.npy": sha256_of(folder / f"{name}.npy") for name in shapes} | {
        META: hashlib.sha256(text).hexdigest()
    }
    (folder / SUMS).write_text(_lines_of_sums(sums), encoding="utf-8")
    (folder / META).write_bytes(text)


def damaged_file(folder: Path, hashes: Path | None = None) -> str | None:
    """Name of the first file of a prepared source that is absent or not what was written; None if there is none.

    Args:
        folder: of the source.
        hashes: folder that remembers what was read before, for `content_hashes`; None: every byte is read.
    """
    try:
        expected = parse_sums(read_bounded(folder / SUMS, _MOST_BYTES))
        paths = [folder / name for name in expected]
        found = [sha256_of(path) for path in paths] if hashes is None else content_hashes(paths, hashes)
    except (OSError, ValueError) as error:
        return Path(getattr(error, "filename", None) or SUMS).name
    changed = [name for name, digest in zip(expected, found, strict=True) if expected[name] != digest]
    if changed and hashes is not None:  # what is remembered may be what is damaged
        return damaged_file(folder)
    return changed[0] if changed else None


def parse_sums(content: bytes) -> dict[str, str]:
    """Name of each file -> SHA-256 (hex), from the content of `SUMS`. Raises ValueError if it is not that."""
    text = content.decode()
    lines = [line.split("  ") for line in text.splitlines()]
    sums = {name: digest for digest, name in lines}
    if META not in sums or any("/" in name for name in sums):
        raise ValueError(f"no sum of {META}")
    if text != _lines_of_sums(sums):  # a line may end in more characters than a line feed, one bit away from it
        raise ValueError("not as it was written")
    return sums


def _lines_of_sums(sums: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def _arrays(content: Content) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for split_name, dataset in (("train", content.train), ("test", content.test)):
        image_shape = content.train.image_BHW.shape[1:]
        if len(dataset) == 0 or dataset.image_BHW.shape != (len(dataset), *image_shape):
            raise ValueError(
                f"{split_name}: images of shape {dataset.image_BHW.shape} for {len(dataset)} labels; each training "
                f"image has shape {image_shape}"
            )
        for field, dtype in _DTYPES.items():
            array = getattr(dataset, field)
            if array is not None:
                yield f"{split_name}.{field}", np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("<"))


def open_source(folder: Path) -> Source:
    """Memory-map a prepared source.

    Raises:
        DataError: the folder is damaged.
    """
    try:
        meta = json.loads(read_bounded(folder / META, _MOST_BYTES))
        return Source(
            train=_open_dataset(folder, "train", meta["arrays"]),
            test=_open_dataset(folder, "test", meta["arrays"]),
            class_names=tuple(meta["class_names"]),
            style_names=tuple(meta["style_names"]),
            parameter_names=tuple(meta["parameter_names"]),
            fingerprint=meta["fingerprint"],
            folder=folder,
            notes=tuple(meta.get("notes", ())),
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: prepared data is damaged ({error}); delete this folder and start again") from None


def _open_dataset(folder: Path, split_name: str, shapes: dict[str, list[int]]) -> Dataset:
    arrays = {}
    for field, dtype in _DTYPES.items():
        name = f"{split_name}.{field}"
        if name in shapes:
            array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            if array.dtype != dtype or list(array.shape) != shapes[name]:
                raise ValueError(f"{name}.npy is {array.dtype} {array.shape}")
            arrays[field] = array
    return Dataset(**arrays)
