"""Files in Google's two Quick, Draw! layouts, written for tests."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

Drawings = Sequence[np.ndarray]


def scribbles(count: int, seed: int = 0) -> list[np.ndarray]:
    """Random drawings in stroke-3 format."""
    rng = np.random.default_rng(seed)
    drawings = []
    for _ in range(count):
        points = int(rng.integers(2, 40))
        drawing = rng.integers(-60, 60, (points, 3)).astype(np.int16)
        drawing[:, 2] = rng.random(points) < 0.2
        drawings.append(drawing)
    return drawings


def object_array(drawings: Drawings) -> np.ndarray:
    array = np.empty(len(drawings), dtype=object)
    array[:] = list(drawings)
    return array


def npy(pickled: bytes, count: int) -> bytes:
    """An ``.npy`` of an object array whose body is `pickled`."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (count,)})
    return stream.getvalue() + pickled


def write_npz(file: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file


def write_sketchrnn(file: Path, train: Drawings, test: Drawings, protocol: int = 4) -> Path:
    parts = {"train": train, "valid": test, "test": test}
    return write_npz(
        file, {name: npy(pickle.dumps(object_array(part), protocol), len(part)) for name, part in parts.items()}
    )


def python2_pickle(drawings: Drawings) -> bytes:
    """What Python 2 and numpy 1 wrote for a list of drawings: protocol 2, byte strings, ``numpy.core``."""

    def string(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def dtype(name: bytes, order: bytes, flags: bytes) -> bytes:
        made = b"cnumpy\ndtype\n" + string(name) + b"K\x00K\x01\x87R"
        return made + b"(K\x03" + string(order) + b"NNN" + integer(-1) + integer(-1) + b"K" + flags + b"tb"

    def array(shape: tuple[int, ...], kind: bytes, content: bytes) -> bytes:
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R"
        return empty + b"(K\x01(" + b"".join(map(integer, shape)) + b"t" + kind + b"\x89" + content + b"tb"

    items = b"".join(array(d.shape, dtype(b"i2", b"<", b"\x00"), string(d.tobytes())) for d in drawings)
    return b"\x80\x02" + array((len(drawings),), dtype(b"O8", b"|", b"\x3f"), b"](" + items + b"e") + b"."
