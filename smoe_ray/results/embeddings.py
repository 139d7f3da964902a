"""Reading `embeddings.npz`, a file that anybody may have written: never more than its trial can have stored.

Shapes: B test images, E experts, Z latent, C H W an image, P parameters of a synthetic drawing.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from smoe_ray.results.record import TrialRecord

_INTEGERS = ("label", "expert", "style")
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error)
_SLACK = 1_000_000
"""Bytes of headers, and of arrays that a later version may add."""


def load_embeddings(content: bytes, most_bytes: int, record: TrialRecord | None) -> dict[str, npt.NDArray[Any]]:
    """The arrays in an archive, nothing unpickled.

    Args:
        content: of the file.
        most_bytes: limit of what it unpacks to; less where the trial's record says how much that must be.
        record: of the trial, if it has one.

    Raises:
        ValueError: it is no such archive, or too large.
    """
    if record is not None and record.data is not None:
        most_bytes = min(most_bytes, _bytes_of(record) + _SLACK)
    return load_arrays(content, most_bytes)


def load_arrays(content: bytes, most_bytes: int) -> dict[str, npt.NDArray[Any]]:
    """The arrays in an archive that unpacks to at most `most_bytes`, nothing unpickled. Raises ValueError."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            unpacked = sum(info.file_size for info in archive.zip.infolist())
            if unpacked > most_bytes:
                raise ValueError(f"{unpacked:,} bytes unpacked: more than the trial stores")
            for name in archive.zip.namelist():
                _refuse_larger(archive.zip, name, most_bytes)
            return dict(archive)
    except (OSError, EOFError, LookupError, TypeError, AttributeError, RuntimeError, *_ZIP_ERRORS) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def check_embeddings(arrays: Mapping[str, npt.NDArray[Any]], record: TrialRecord) -> None:
    """Raise ValueError if an array is missing, or its type, shape or range is not what the trial's record says."""
    if record.data is None:
        return
    for name, shape in _shapes(record).items():
        if name not in arrays:
            raise ValueError(f"'{name}' is missing")
        if arrays[name].shape != shape:
            raise ValueError(f"'{name}' has shape {arrays[name].shape}, the trial's record needs {shape}")
    for name, array in arrays.items():
        if name in _INTEGERS and (array.dtype.kind not in "iu" or array.shape != arrays["label"].shape):
            raise ValueError(f"'{name}' is {array.dtype} of shape {array.shape}, not an integer per image")
        if array.dtype.kind not in "iufb":
            raise ValueError(f"'{name}' is of type {array.dtype}, not numbers")
    for name, count in _counts(record).items():
        if name in arrays and arrays[name].size and not 0 <= arrays[name].min() <= arrays[name].max() < count:
            raise ValueError(f"'{name}' has {arrays[name].min()} to {arrays[name].max()}, not only 0 to {count - 1}")


def _shapes(record: TrialRecord) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays that every trial of such a model stores."""
    assert record.data is not None
    images, (channels, *size) = record.data.test_images, record.data.image_shape
    image = (images, channels, *size) if channels > 1 else (images, *size)
    model = record.spec.model
    shapes: dict[str, tuple[int, ...]] = {
        "mu": (images, model.representation_dim),
        "label": (images,),
        "expert": (images,),
        "gate": (images, model.num_experts),
        "image": image,
    }
    return shapes | {"reconstruction": image} if model.reconstructs else shapes


def _counts(record: TrialRecord) -> dict[str, int]:
    """Number of values that an index may have."""
    assert record.data is not None
    names = {"label": record.data.class_names, "style": record.data.style_names}
    return {"expert": record.spec.model.num_experts} | {name: len(values) for name, values in names.items()}


def _bytes_of(record: TrialRecord) -> int:
    """At most eight bytes per value."""
    assert record.data is not None
    values = sum(int(np.prod(shape, dtype=object)) for shape in _shapes(record).values())
    return 8 * (values + record.data.test_images * (len(record.data.parameter_names) + len(_INTEGERS)))


def _refuse_larger(archive: zipfile.ZipFile, name: str, most_bytes: int) -> None:
    """Raise ValueError for an array whose header claims more than `most_bytes`, before room is made for it."""
    with archive.open(name) as file:
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)
        if version not in read_header:
            raise ValueError(f"'{name}' is of version {version} of NumPy's format")
        shape, _, dtype = read_header[version](file)
        if dtype.itemsize * int(np.prod(shape, dtype=object)) > most_bytes:
            raise ValueError(f"'{name}' claims the shape {shape}: more than the trial stores")
