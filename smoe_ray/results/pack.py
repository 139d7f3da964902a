"""Copies of the trials' small files in two larger ones: a bucket is asked for one object at a time, and a study of
thousands of trials has thousands of them.

    OUT/<study>/packed/trials.zip   the trial.json of every trial that had ended, or was under way
    OUT/<study>/packed/epochs.zip   likewise epochs.parquet

A mirror, never the truth: a copy counts while OUT lists the file in the version that was copied. Only studies behind a
URI have it; whoever reads without it finds the same, later.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress

from smoe_ray.errors import StorageError
from smoe_ray.results.store import FileVersion, Store

PACKS = {"trial.json": "packed/trials.zip", "epochs.parquet": "packed/epochs.zip"}
"""A trial's file -> the pack with its copies, in the folder of the study."""

_MOST_BYTES_OF_PACK = 512_000_000
_MOST_BYTES_OF_COPY = 1_000_000  # larger ones are read where they are
_GROWTH = 1.1  # a pack is written whole: at every tenth part more, so that the work stays in proportion to the trials


def unpack(
    store: Store, study: str, file: str, wanted: Mapping[str, FileVersion], pack: FileVersion | None
) -> dict[str, bytes]:
    """Copies of `file` of the trials `wanted` that are of the versions wanted; none where the pack is unusable.

    Raises:
        StorageError: OUT cannot be read.
    """
    if pack is None or pack.size > _MOST_BYTES_OF_PACK:
        return {}
    content = store.read(f"{study}/{PACKS[file]}") or b""
    found: dict[str, bytes] = {}
    # It may be anybody's file: what is wrong with it is as good as its absence.
    with suppress(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, ValueError, EOFError):
        archive = zipfile.ZipFile(io.BytesIO(content))
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        for trial, version in wanted.items():
            name = _copy(trial, version)
            if sizes.get(name) == version.size <= _MOST_BYTES_OF_COPY:
                found[trial] = archive.read(name)
    return found


class Packer:
    """Keeps the packs of a study that runs up to date. Does nothing for a local OUT, whose files are quick to read.

    What OUT refuses is left out: nothing depends on a pack.
    """

    def __init__(self, store: Store, study: str) -> None:
        self._store, self._study = store, study
        self._packed_at = 0

    def ended(self, trials: int) -> None:
        """So many trials have ended: write the packs if they are many more than at the last time."""
        if trials > 20 and trials > _GROWTH * self._packed_at:
            self._packed_at = trials
            self.write()

    def write(self) -> None:
        """Bring the packs up to date."""
        if self._store.folder is None:
            with suppress(StorageError):
                self._write()

    def _write(self) -> None:
        listed = self._store.files(self._study)
        for file, pack in PACKS.items():
            present = {
                name.split("/")[2]: version
                for name, version in listed.items()
                if name.startswith(f"{self._study}/trials/") and name.count("/") == 3 and name.endswith(f"/{file}")
            }
            there = listed.get(f"{self._study}/{pack}")
            copies = {
                _copy(trial, present[trial]): content
                for trial, content in unpack(self._store, self._study, file, present, there).items()
            }
            new = {
                trial: version
                for trial, version in present.items()
                if _copy(trial, version) not in copies and version.size <= _MOST_BYTES_OF_COPY
            }
            if not new:
                continue
            names = {trial: f"{self._study}/trials/{trial}/{file}" for trial in new}
            contents = self._store.read_many(list(names.values()))
            for trial, version in new.items():
                content = contents.get(names[trial])
                if isinstance(content, bytes) and len(content) == version.size:
                    copies[_copy(trial, version)] = content
            self._store.write(f"{self._study}/{pack}", _zip(copies))


def _copy(trial: str, version: FileVersion) -> str:
    """Name of a copy within its pack."""
    return f"{trial}/{version.tag}"


def _zip(copies: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, copy in copies.items():
            archive.writestr(name, copy)
    return content.getvalue()
