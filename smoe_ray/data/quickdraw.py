"""Quick, Draw! drawings: reading Google's sketch-rnn files, and rasterising drawings as the paper does.

Shapes: B drawings, P points of one drawing, H W pixels.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smoe_ray.data.dataset import IMAGE_SIDE
from smoe_ray.data.files import Map, one_line
from smoe_ray.errors import DataError

CANVAS_SIDE = 56
FILLED_SHARE = 0.8
LINE_WIDTH = 3
WHITE = 255

MAX_MEMBER_BYTES = 2**30
"""A member of an ``.npz`` that would unpack to more is refused; Google's largest are about a tenth of it."""

_CHUNK = 500
_POOL_PAYS_FROM = 20_000  # drawings; below, starting processes takes longer than rasterising

Image = npt.NDArray[np.uint8]
Drawing = npt.NDArray[np.int16]


# --- sketch-rnn drawings ----------------------------------------------------------------------------------------------


def read_drawings(file: Path, member: str) -> list[Drawing]:
    """The drawings of one part (``train``, ``valid`` or ``test``) of a sketch-rnn ``.npz``.

    Each is int16 (P, 3): dx, dy and 1 where the pen is lifted after the point. Such a file holds pickles; this reader
    lets them build int16 arrays and nothing else.

    Raises:
        DataError: the file is damaged, too large, or holds anything else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            info = archive.getinfo(f"{member}.npy")
            if info.file_size > MAX_MEMBER_BYTES:
                raise ValueError(f"'{member}' unpacks to {info.file_size:,} bytes")
            content = archive.read(info)  # never more than info.file_size bytes; checks the CRC
        return _parse_object_array(content)
    except Exception as error:  # damaged archives and pickles raise nearly anything
        raise DataError(f"{file}: not a sketch-rnn .npz file ({one_line(error)}); fetch it again") from None


def _parse_object_array(content: bytes) -> list[Drawing]:
    stream = io.BytesIO(content)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Google's headers were written by Python 2
        shape, _, dtype = readers[version](stream)
    if not dtype.hasobject or len(shape) != 1:
        raise ValueError(f"an array of {dtype} and shape {shape}, not a list of drawings")
    array = _ArrayUnpickler(stream).load()
    if not isinstance(array, _Array) or array.drawings is None or len(array.drawings) != shape[0]:
        raise ValueError("the pickle holds no list of drawings of the length that its header says")
    return array.drawings


class _Stand:
    """Base of what a pickle sees instead of numpy. It takes no attributes, so a pickle leaves nothing behind."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("state for something that has none")


class _Array(_Stand):
    """Stands for an ndarray: one drawing, or the list of them."""

    __slots__ = ("drawing", "drawings")
    drawing: Drawing | None
    drawings: list[Drawing] | None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran_order, content = state
        self.drawing = self.drawings = None
        if dtype.name.startswith("O"):
            self.drawings = [item.drawing for item in content]
            if any(drawing is None for drawing in self.drawings) or shape != (len(self.drawings),):
                raise pickle.UnpicklingError("a list of drawings holds something else")
        elif dtype.name == "i2" and len(shape) == 2 and shape[0] > 0 and shape[1] == 3:
            self.drawing = np.frombuffer(content, dtype.order + "i2").reshape(
                shape, order="F" if fortran_order else "C"
            )
        else:
            raise pickle.UnpicklingError(
                f"an array of type {dtype.name} and shape {shape}; drawings are i2 (points, 3)"
            )


class _DType(_Stand):
    """Stands for a dtype: its name and byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: str | bytes, _align: object = False, _copy: object = True) -> None:
        self.name = _text(name)
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if _text(state[1]) == ">" else "<"


class _Reconstruct(_Stand):
    """Stands for numpy's ``_reconstruct(ndarray, (0,), b'b')``: an empty array, filled by its state."""

    __slots__ = ()

    def __call__(self, _cls: object, _shape: object, _typecode: object) -> _Array:
        return _Array()


class _Encode(_Stand):
    """Stands for ``_codecs.encode(text, 'latin1')``: bytes, as Python 3 writes them in protocol 2."""

    __slots__ = ()

    def __call__(self, text: str, _encoding: str) -> bytes:
        return text.encode("latin1")


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value


class _ArrayUnpickler(pickle.Unpickler):
    """Runs a pickle over stand-ins: none of its calls reaches numpy or anything else of Python."""

    _admitted = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),  # numpy 1
        ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),  # numpy 2
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("_codecs", "encode"): _Encode(),
    }

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="bytes")  # strings of Python 2 are bytes

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused: its pickle names {module}.{name}") from None


# --- raster -----------------------------------------------------------------------------------------------------------


def rasterise(
    drawings: Sequence[Drawing], jobs: int | Map = 1, step: Callable[[int, int], None] | None = None
) -> Image:
    """Black on white images (B, 28, 28) of drawings, the same whatever `jobs`.

    As in arXiv:2509.10025: a 56x56 canvas, the drawing's bounding box scaled to 0.8 of it and centred, lines 3 pixels
    wide, then LANCZOS to 28x28. A stroke of one point is drawn as a dot of the line's width.

    Raises:
        DataError: a process that draws ended without a word.
    """
    image_BHW = np.empty((len(drawings), IMAGE_SIDE, IMAGE_SIDE), dtype=np.uint8)
    done = 0
    for chunk_BHW in _rasterised_chunks(drawings, jobs):
        image_BHW[done : done + len(chunk_BHW)] = chunk_BHW
        done += len(chunk_BHW)
        if step:
            step(done, len(drawings))
    return image_BHW


def _rasterised_chunks(drawings: Sequence[Drawing], jobs: int | Map) -> Iterator[Image]:
    chunks = [drawings[start : start + _CHUNK] for start in range(0, len(drawings), _CHUNK)]
    if jobs == 1 or len(drawings) < _POOL_PAYS_FROM:
        yield from map(_rasterise_chunk, chunks)
        return
    if not isinstance(jobs, int):
        yield from jobs(_rasterise_chunk, chunks)
        return

    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    try:
        # Spawned, because forking a process that has threads (torch, a web server) can lock up.
        with ProcessPoolExecutor(min(jobs, len(chunks)), mp_context=get_context("spawn")) as pool:
            yield from pool.map(_rasterise_chunk, chunks)
    except BrokenProcessPool:
        raise DataError(
            "a process that draws images ended early (out of memory, or started by a script without "
            "`if __name__ == '__main__':`); try again with one job"
        ) from None


def _rasterise_chunk(drawings: Sequence[Drawing]) -> Image:
    return np.stack([_rasterise_one(drawing_P3) for drawing_P3 in drawings])


def _rasterise_one(drawing_P3: Drawing) -> Image:
    from PIL import Image as PILImage
    from PIL import ImageDraw

    position_P2 = np.cumsum(drawing_P3[:, :2], axis=0, dtype=np.float64)
    low_2, high_2 = position_P2.min(axis=0), position_P2.max(axis=0)
    extent = float((high_2 - low_2).max())
    scale = FILLED_SHARE * CANVAS_SIDE / extent if extent > 0 else 1.0
    pixel_P2 = (position_P2 - (low_2 + high_2) / 2) * scale + CANVAS_SIDE / 2

    canvas = PILImage.new("L", (CANVAS_SIDE, CANVAS_SIDE), WHITE)
    pen = ImageDraw.Draw(canvas)
    ends = (np.flatnonzero(drawing_P3[:, 2]) + 1).tolist()
    start = 0
    for end in [*ends, len(drawing_P3)]:
        if end - start > 1:
            pen.line(pixel_P2[start:end].ravel().tolist(), fill=0, width=LINE_WIDTH)
        elif end - start == 1:
            x, y = pixel_P2[start].tolist()
            radius = LINE_WIDTH / 2
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
        start = end
    return np.asarray(canvas.resize((IMAGE_SIDE, IMAGE_SIDE), PILImage.Resampling.LANCZOS))
