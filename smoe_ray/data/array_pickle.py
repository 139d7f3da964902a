"""Pickles of arrays, read without running anything that they name.

Pickles may call any function of Python when they are loaded. Here they see stand-ins for the few names that arrays are
made of; any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

NUMBERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
"""Types of numbers, as dtypes name them."""


class Stand:
    """Base of what a pickle sees instead of numpy. It takes no attributes, so a pickle leaves nothing behind."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("state for something that has none")


class DType(Stand):
    """Stands for a dtype: its name and byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: str | bytes, _align: object = False, _copy: object = True) -> None:
        self.name = _text(name)
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if _text(state[1]) == ">" else "<"


class Array(Stand):
    """Stands for an ndarray of numbers."""

    __slots__ = ("numbers",)
    numbers: npt.NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran_order, content = state
        self.numbers = numbers_of(shape, dtype, fortran_order, content)


def load_arrays(content: bytes) -> Any:
    """What a pickle holds: see `ArrayUnpickler`.

    Raises:
        pickle.UnpicklingError: it names anything that arrays do not need, or asks for memory without a use.
        Exception: it is damaged; of nearly any type.
    """
    refuse_greedy(content)
    return ArrayUnpickler(io.BytesIO(content)).load()


def refuse_greedy(content: bytes) -> None:
    """Raise pickle.UnpicklingError if a pickle asks for memory without a use."""
    for opcode, argument, _ in pickletools.genops(content):
        # pickle makes a table as long as the largest index says.
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise pickle.UnpicklingError(f"refused: its pickle counts to {argument:,}")
        if opcode.name == "BYTEARRAY8":  # made before its content is read; batches of arrays have none
            raise pickle.UnpicklingError("refused: its pickle holds a bytearray")


def numbers_of(shape: Any, dtype: DType, fortran_order: bool, content: bytes) -> npt.NDArray[Any]:
    """The array that the state of a pickled ndarray describes. Raises ValueError if it holds anything but numbers."""
    if dtype.name not in NUMBERS:
        raise ValueError(f"an array of type {dtype.name} and shape {shape}")
    return np.frombuffer(content, dtype.order + dtype.name).reshape(shape, order="F" if fortran_order else "C")


class _Reconstruct(Stand):
    """Stands for numpy's ``_reconstruct(ndarray, (0,), b'b')``: an empty array, filled by its state."""

    __slots__ = ("_array",)

    def __init__(self, array: type[Stand]) -> None:
        self._array = array

    def __call__(self, _cls: object, _shape: object, _typecode: object) -> Stand:
        return self._array()


class _Encode(Stand):
    """Stands for ``_codecs.encode(text, 'latin1')``: bytes, as Python 3 writes them in protocol 2."""

    __slots__ = ()

    def __call__(self, text: str, _encoding: str) -> bytes:
        return text.encode("latin1")


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value


class ArrayUnpickler(pickle.Unpickler):
    """Runs a pickle over stand-ins: none of its calls reaches numpy or anything else of Python.

    What it loads are stand-ins (`array`), byte strings, text, numbers, lists, tuples and dictionaries. Strings of
    Python 2 are byte strings.
    """

    array: ClassVar[type[Stand]] = Array
    """What an ndarray becomes."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name that the pickle holds. Raises pickle.UnpicklingError for what arrays do not need."""
        admitted = {
            ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(self.array),  # numpy 1
            ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(self.array),  # numpy 2
            ("numpy", "ndarray"): self.array,
            ("numpy", "dtype"): DType,
            ("_codecs", "encode"): _Encode(),
        }
        try:
            return admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused: its pickle names {module}.{name}") from None
