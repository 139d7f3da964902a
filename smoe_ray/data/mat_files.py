"""Arrays of numbers in MATLAB files of version 5 (also those of MATLAB 6 and 7).

Format: MathWorks, *MAT-File Format*, https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf. scipy reads more
of it, but its compiled reader ends the process on some damaged files (scipy 1.17, found by mutated files).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.bounded_read import most_unpacked, read_bounded
from smoe_ray.data.array_files import MAX_ARRAY_BYTES

_HEADER_BYTES = 128
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of stored data (table 1-1)."""
_MATRIX, _COMPRESSED = 14, 15
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Types of arrays (table 1-3), whose data may be stored as a smaller type."""
_COMPLEX = 0x0800


class _Element(NamedTuple):
    kind: int
    data: memoryview


def read_mat(file: Path, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of these names that a file holds; other content is passed over.

    Raises:
        ValueError: the file is damaged, too large or of another version, or such an array holds no real numbers.
        OSError, struct.error, zlib.error: likewise.
    """
    content = read_bounded(file, MAX_ARRAY_BYTES)
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER_BYTES])
    if order is None or struct.unpack_from(f"{order}H", content, 124) != (0x0100,):
        raise ValueError("not a MATLAB file of version 5; newer ones are saved as such with save -v7")
    arrays = {}
    for kind, data in _elements(memoryview(content)[_HEADER_BYTES:], order):
        if kind == _COMPRESSED:
            [(kind, data)] = _elements(_unpacked(data), order)
        if kind == _MATRIX:
            name, array = _matrix(data, order, names)
            if array is not None:
                arrays[name] = array
    return arrays


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Data elements, which follow one another on multiples of 8 bytes."""
    at = 0
    while at < len(data):
        [kind] = struct.unpack_from(f"{order}I", data, at)
        if kind >> 16:  # small element: up to 4 bytes in the tag itself
            size, kind, start, end = kind >> 16, kind & 0xFFFF, at + 4, at + 8
        else:
            [size] = struct.unpack_from(f"{order}I", data, at + 4)
            start = at + 8
            end = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data) or size > end - start:
            raise ValueError(f"an element of {size:,} bytes where {len(data) - start:,} are left")
        yield _Element(kind, data[start : start + size])
        at = end


def _unpacked(data: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    most = min(MAX_ARRAY_BYTES, most_unpacked(len(data)))
    content = stream.decompress(data, most)
    if not stream.eof:  # only then is its checksum compared
        raise ValueError(f"compressed data that are cut, or unpack to more than {most:,} bytes")
    return memoryview(content)


def _matrix(data: memoryview, order: str, names: Collection[str]) -> tuple[str, npt.NDArray[Any] | None]:
    """Name and array of a matrix element; None for the array where the name is none of `names`."""
    elements = _elements(data, order)
    flags, shape, name = next(elements, None), next(elements, None), next(elements, None)
    if flags is None or shape is None or name is None:
        raise ValueError("an array without flags, shape or name")
    text = bytes(name.data).decode("ascii")
    if text not in names:
        return text, None
    [flag] = struct.unpack_from(f"{order}I", flags.data)
    stored = next(elements, None)
    if flag & 0xFF not in _CLASSES or flag & _COMPLEX or stored is None or stored.kind not in _NUMBERS:
        raise ValueError(f"{text} is no array of real numbers")
    sizes = np.frombuffer(shape.data, f"{order}i4").tolist()
    numbers = np.frombuffer(stored.data, order + _NUMBERS[stored.kind])
    if min(sizes, default=-1) < 0 or math.prod(sizes) != len(numbers):
        raise ValueError(f"{text} has {len(numbers):,} numbers for the shape {tuple(sizes)}")
    return text, numbers.astype(_CLASSES[flag & 0xFF], copy=False).reshape(sizes, order="F")
