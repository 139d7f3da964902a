"""Quick, Draw! drawings: reading Google's sketch-rnn files, and rasterising drawings as the paper does.

Shapes: B drawings, P points of one drawing, H W pixels.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smoe_ray.bounded_read import refuse_bomb
from smoe_ray.data.array_pickle import NUMBERS, ArrayUnpickler, Stand, numbers_of, refuse_greedy
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
Drawing = npt.NDArray[np.int16] | npt.NDArray[np.float64]
"""(P, 3): dx, dy, and 1 where the pen is lifted after the point; int16 where the numbers fit."""


# --- sketch-rnn drawings ----------------------------------------------------------------------------------------------


def read_drawings(file: Path, member: str) -> list[Drawing]:
    """The drawings of one part (``train``, ``valid`` or ``test``) of a sketch-rnn ``.npz``.

    A part is an object array of drawings of any number type, or one array (B, P, 3) where all are of equal length.
    Such a file may hold pickles; this reader lets them build arrays of numbers and nothing else.

    Raises:
        DataError: the file is damaged, too large, or holds anything else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if f"{member}.npy" not in archive.namelist():
                found = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:10]) or "nothing"
                raise _NotDrawingsError(f"it holds {found}, but no '{member}'")
            info = archive.getinfo(f"{member}.npy")
            if info.file_size > MAX_MEMBER_BYTES:
                raise ValueError(f"'{member}' unpacks to {info.file_size:,} bytes")
            refuse_bomb(info.file_size, min(info.compress_size, file.stat().st_size))
            content = archive.read(info)  # never more than info.file_size bytes; checks the CRC
        return _parse_object_array(content)
    except _NotDrawingsError as error:
        raise DataError(
            f"{file}: not a sketch-rnn .npz file ({error}); needed: arrays 'train' and 'test', each an object array of "
            "drawings, int16 (points, 3): dx, dy, pen lifted (0 or 1)"
        ) from None
    except Exception as error:  # damaged archives and pickles raise nearly anything
        raise DataError(f"{file}: not a sketch-rnn .npz file ({one_line(error)}); {another_copy(file)}") from None


def another_copy(file: Path) -> str:
    """What to do about a damaged file."""
    is_download = file.with_name(f"{file.name}.sha256").is_file()
    return "delete it and fetch it again" if is_download else "copy or save it again"


class _NotDrawingsError(ValueError):
    """The file is whole, but holds something else than drawings."""


def _parse_object_array(content: bytes) -> list[Drawing]:
    stream = io.BytesIO(content)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Google's headers were written by Python 2
        shape, _, dtype = readers[version](stream)
    if not dtype.hasobject:
        stream.seek(0)
        numbers = np.lib.format.read_array(stream, allow_pickle=False)
        if numbers.ndim != 3 or stream.read(1):
            raise _NotDrawingsError(f"an array of {dtype} and shape {shape}, not a list of drawings")
        return [as_drawing(drawing_P3) for drawing_P3 in numbers]
    if len(shape) != 1:
        raise _NotDrawingsError(f"an array of Python objects and shape {shape}, not a list of drawings")
    refuse_greedy(content[stream.tell() :])
    array = _DrawingsUnpickler(stream).load()
    if not isinstance(array, _Array) or array.drawings is None or len(array.drawings) != shape[0]:
        raise ValueError("the pickle holds no list of drawings of the length that its header says")
    return array.drawings


def as_drawing(numbers: npt.NDArray[Any]) -> Drawing:
    """Checked numbers of one drawing, as int16 where they fit. Raises ValueError where they are no drawing."""
    if numbers.dtype.kind not in "iuf" or numbers.ndim != 2 or numbers.shape[0] == 0 or numbers.shape[1] != 3:
        raise _NotDrawingsError(f"a drawing is {numbers.dtype} of shape {numbers.shape}")
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise _NotDrawingsError("a drawing holds numbers that are not finite")
    if not np.isin(numbers[:, 2], (0, 1)).all():
        raise _NotDrawingsError(f"the third number of a point is {numbers[:, 2].max()}, where 0 or 1 is needed")
    int16_P3 = numbers.astype(np.int16)
    return int16_P3 if np.array_equal(int16_P3, numbers) else numbers.astype(np.float64)


class _Array(Stand):
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
                raise _NotDrawingsError("a list of drawings holds something else")
        elif dtype.name in NUMBERS:
            self.drawing = as_drawing(numbers_of(shape, dtype, fortran_order, content))
        else:
            raise _NotDrawingsError(f"an array of type {dtype.name} and shape {shape}")


class _DrawingsUnpickler(ArrayUnpickler):
    array = _Array


# --- raster -----------------------------------------------------------------------------------------------------------


def rasterise(
    drawings: Sequence[Drawing], jobs: int | Map = 1, step: Callable[[int, int], None] | None = None
) -> Image:
    """Black on white images (B, 28, 28) of drawings, the same whatever `jobs`.

    As in arXiv:2509.10025: a 56x56 canvas, the drawing's bounding box scaled to 0.8 of it and centred, lines 3 pixels
    wide, then LANCZOS to 28x28. A stroke within one pixel of the canvas (a tap, often stored as two equal points) is
    drawn as a dot of the line's width.

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
        stroke_P2 = pixel_P2[start:end]
        if len(stroke_P2) and _is_dot(stroke_P2):
            x, y = stroke_P2[0].tolist()
            radius = LINE_WIDTH / 2
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
        elif len(stroke_P2):
            pen.line(stroke_P2.ravel().tolist(), fill=0, width=LINE_WIDTH)
        start = end
    return np.asarray(canvas.resize((IMAGE_SIDE, IMAGE_SIDE), PILImage.Resampling.LANCZOS))


def _is_dot(stroke_P2: npt.NDArray[np.float64]) -> bool:
    """Whether Pillow, which truncates coordinates, would draw this stroke as a single pixel, whatever its width."""
    return bool((stroke_P2.astype(int) == stroke_P2[0].astype(int)).all())
