"""Packs: copies of all trials' small files in two archives, since object stores are slow to read thousands of files.

    OUT/<study>/packed/trials.zip   trial.json of every trial
    OUT/<study>/packed/epochs.zip   epochs.parquet of every trial

A cache that nothing depends on: a copy is used only if OUT lists the original in the version that was copied. Only
studies behind a URI have packs; reading without them gives the same results, more slowly.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress

from smoe_ray.errors import StorageError
from smoe_ray.results.store import FileVersion, Store
from smoe_ray.results.trial import SET_ASIDE

PACKS = {"trial.json": "packed/trials.zip", "epochs.parquet": "packed/epochs.zip"}
"""Name of a trial's file -> name of its pack, in the folder of the study."""

_MOST_BYTES_OF_PACK = 512_000_000
_MOST_BYTES_OF_COPY = 1_000_000  # larger files are not packed
_GROWTH = 1.1  # packs are rewritten whole: only after 10 % more trials, so that the total work stays linear


def unpack(
    store: Store, study: str, file: str, wanted: Mapping[str, FileVersion], pack: FileVersion | None
) -> dict[str, bytes]:
    """Packed copies of `file`, trial_id -> content, of the trials in `wanted` whose copy has the wanted version.

    Empty if the pack is absent, too large or invalid.

    Raises:
        StorageError: OUT cannot be read.
    """
    if pack is None or pack.size > _MOST_BYTES_OF_PACK:
        return {}
    limit = None if store.folder is None else _MOST_BYTES_OF_PACK  # behind a URI it would be one more request
    content = store.read(f"{study}/{PACKS[file]}", limit) or b""
    found: dict[str, bytes] = {}
    # The file is not trusted: an invalid pack is treated as absent.
    with suppress(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, ValueError, EOFError):
        archive = zipfile.ZipFile(io.BytesIO(content))
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        for trial, version in wanted.items():
            name = _copy(trial, version)
            if sizes.get(name) == version.size <= _MOST_BYTES_OF_COPY:
                found[trial] = archive.read(name)
    return found


class Packer:
    """Keeps the packs of a running study up to date. Does nothing for a local OUT, whose files are fast to read.

    Storage errors are ignored, since nothing depends on a pack.
    """

    def __init__(self, store: Store, study: str) -> None:
        self._store, self._study = store, study
        self._packed_at = 0

    def ended(self, trials: int) -> None:
        """`trials` trials have ended: write the packs if this is 10 % more than when they were last written."""
        if trials > 20 and trials > _GROWTH * self._packed_at:
            self._packed_at = trials
            self.write()

    def write(self) -> None:
        """Update the packs."""
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
                if SET_ASIDE not in name
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
