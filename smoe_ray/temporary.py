"""Temporary folders that only this user can enter, wherever one can be made."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smoe_ray.errors import SmoeRayError

_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
_LEAST_BYTES_FREE = 20_000_000


def private_folder(prefix: str, most_characters: int | None = None) -> Path:
    """A new folder of mode 700 below TMPDIR or, where that cannot be, one of the usual places.

    Args:
        prefix: of its name.
        most_characters: limit of the path of the place; longer ones are passed over.

    Raises:
        SmoeRayError: there is no such place that can be written to and has room.
    """
    places = list(_PLACES)
    with suppress(OSError):  # where there is no usable place at all
        places.insert(0, tempfile.gettempdir())
    reason = ""
    for place in dict.fromkeys(places):
        if most_characters is not None and len(place) > most_characters:
            reason = reason or f"{place}: too long for the paths of sockets"
            continue
        try:
            room = os.statvfs(place)
            if room.f_bavail * room.f_frsize < _LEAST_BYTES_FREE:
                reason = reason or f"{place}: full"
                continue
            return Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        except OSError as error:
            reason = reason or f"{place}: {error.strerror}"
    raise SmoeRayError(f"no place for temporary files ({reason}); make room there, or set TMPDIR to another folder")


@contextmanager
def temporary_folder(prefix: str) -> Iterator[str]:
    """A `private_folder` that is deleted at the end. Raises SmoeRayError as that does."""
    folder = private_folder(prefix)
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
