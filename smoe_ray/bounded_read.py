"""Reads of files that anybody may have written: regular files only, up to a limit that is enforced while reading."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

MOST_FREE_BYTES = 2**26
"""What an archive may unpack to, however small it is."""
MOST_PER_PACKED_BYTE = 500
"""Above that, an archive may unpack to this many times its own size. Single thin lines on white, 256x256 in three equal
channels, reach 340; Deflate itself ends at 1032, where nothing comes out but one byte repeated."""


_PIECE_BYTES = 2**20


class RefusedReadError(OSError):
    """A file is no regular file, or larger than what may be read; `strerror` says which."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(None, problem, str(path))


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file to read it; a FIFO would be waited for, and a device has no end. Raises OSError."""
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # else opening a FIFO waits for its writer
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise RefusedReadError(path, "not a regular file")
    return os.fdopen(opened, "rb")


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Content of a regular file of at most `most_bytes`.

    Raises:
        OSError: it cannot be read; a `RefusedReadError` if it is no regular file, or larger.
    """
    with open_regular(path) as file:
        content = read_up_to(file, most_bytes)
    if len(content) > most_bytes:
        raise RefusedReadError(path, f"larger than {most_bytes:,} bytes")
    return content


def read_up_to(file: io.BufferedReader, most_bytes: int) -> bytes:
    """Content of an open file, cut after `most_bytes` + 1; memory is asked for as far as the file goes."""
    content = file.read(min(os.fstat(file.fileno()).st_size, most_bytes) + 1)
    while len(content) <= most_bytes and (piece := file.read(min(_PIECE_BYTES, most_bytes + 1 - len(content)))):
        content += piece  # it grows, or is of a kind whose size is unknown
    return content


def most_unpacked(packed: int) -> int:
    """Bytes of images that an honest archive of `packed` bytes may hold."""
    return max(MOST_FREE_BYTES, MOST_PER_PACKED_BYTE * packed)


def refuse_bomb(unpacked: int, packed: int) -> None:
    """Raise ValueError if no honest archive of `packed` bytes holds `unpacked` bytes of images."""
    if unpacked > most_unpacked(packed):
        raise ValueError(f"{packed:,} bytes that would unpack to {unpacked:,}")
