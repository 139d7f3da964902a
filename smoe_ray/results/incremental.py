"""Incremental reading of a study while it runs: only files that have changed are read again."""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.errors import ResultsError, StorageError
from smoe_ray.results.current import current_trials
from smoe_ray.results.integrity import missing
from smoe_ray.results.pack import PACKS, unpack
from smoe_ray.results.read import check_name
from smoe_ray.results.record import FileDigest, TrialRecord
from smoe_ray.results.store import FileVersion, Store
from smoe_ray.results.study_file import equivalence_margin
from smoe_ray.results.table import Found, build_table
from smoe_ray.results.trial import EPOCHS, RECORD, SET_ASIDE, TrialFolder

if TYPE_CHECKING:
    import pandas as pd

_MOST_BYTES = {RECORD: 4_000_000, EPOCHS: 64_000_000}
"""Size limits, in bytes: training never writes larger files."""
_STUDY_FILES = ("study.yaml", "optuna.journal")
_PACK_THRESHOLD = 20  # fewer files are read faster one by one
_BATCH = 500
_RETRY_S = 30.0
"""Interval between attempts to read files for which the storage returned an error, seconds."""


class _Cached(NamedTuple):
    tag: str
    value: Any  # the parsed content, or the ResultsError that says why not


class _Epochs(NamedTuple):
    table: Any  # pyarrow.Table
    digest: FileDigest


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Suspend garbage collection while very many objects are created: its passes over them would find no garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class StudyReader:
    """Trials and table of one study as of the last `look`. Unreadable trials are left out and listed in `problems`.

    Not thread-safe. In a folder that was copied from a study of another name, the records count as this study's.

    Raises:
        ResultsError: from every method but `problems`: OUT cannot be read, or has no such study.
    """

    def __init__(self, out: str | Path, study: str) -> None:
        self.store = Store(out)
        self.study = study
        check_name(self.store, study)
        self.version = ""
        """Changes when a file of the study has changed, or when unreadable files are due to be retried."""
        self._retries, self._retried_at = 0, -math.inf
        self._files: dict[str, dict[str, FileVersion]] = {}
        self._listed: dict[str, FileVersion] = {}
        self._packs: dict[str, FileVersion] = {}
        self._cached: dict[str, dict[str, _Cached]] = {file: {} for file in _MOST_BYTES}
        self._table: tuple[str, pd.DataFrame] | None = None
        self._changed: list[str] = []
        self._notices: list[str] = []

    @_without_garbage_collection()
    def look(self) -> None:
        """List the study's files. All other methods return the state as of this listing."""
        root = self.study
        listed = self.store.files(root)
        files: dict[str, dict[str, FileVersion]] = {file: {} for file in (*_STUDY_FILES, *_MOST_BYTES)}
        for name, version in listed.items():
            parts = name.split("/")
            if len(parts) == 2 and parts[1] in _STUDY_FILES:
                files[parts[1]][""] = version
            elif len(parts) == 4 and parts[1] == "trials" and parts[3] in _MOST_BYTES and SET_ASIDE not in parts[2]:
                files[parts[3]][parts[2]] = version
        if not any(files.values()) and root not in self.store.folders():
            raise ResultsError(f"{self.store.path(root)}: no such study")
        self._files, self._listed = files, listed
        self._packs = {file: listed[f"{root}/{pack}"] for file, pack in PACKS.items() if f"{root}/{pack}" in listed}
        refused = any(isinstance(one.value, StorageError) for of in self._cached.values() for one in of.values())
        if refused and time.monotonic() - self._retried_at > _RETRY_S:
            self._retried_at, self._retries = time.monotonic(), self._retries + 1
        self.version = f"{hash((self._retries, *(frozenset(of.items()) for of in files.values()))):x}"

    @_without_garbage_collection()
    def records(self) -> dict[str, TrialRecord]:
        """All trials that were ever started, sorted by `trial_id`, the name of their folder."""
        found = self._read(RECORD, self._parse_record)
        return {trial: found[trial] for trial in sorted(found) if isinstance(found[trial], TrialRecord)}

    @_without_garbage_collection()
    def table(self) -> pd.DataFrame:
        """The table of `read_results` with all readable trials. Shared with other callers: do not modify it."""
        if self._table is None or self._table[0] != self.version:
            self._table = self.version, self._build()
        return self._table[1]

    def _build(self) -> pd.DataFrame:
        records = self.records()  # before the epochs, which are complete when a record says that its trial has ended
        epochs = self._read(EPOCHS, _parse_epochs)
        found, self._changed = [], []
        for trial, record in records.items():
            value = epochs.get(trial)
            if isinstance(value, ResultsError):
                continue
            try:
                self._folder(trial).check(EPOCHS, value.digest if value else None, record)
                found.append(Found(record, value.table if value else None))
            except ResultsError as error:
                self._changed.append(str(error))
        kept, notices = current_trials(item.record for item in found)
        ids = {record.trial_id for record in kept}
        damaged = (missing(self._folder(record.trial_id), record, self._listed) for record in kept)
        self._notices = notices + [str(error) for of_trial in damaged for error in of_trial]
        table = build_table([item for item in found if item.record.trial_id in ids])
        table.attrs["equivalence_margin"] = equivalence_margin(self.store, self.study)
        return table

    def problems(self) -> list[str]:
        """One line per file that could not be read so far."""
        kept = (kept for of in self._cached.values() for _, kept in sorted(of.items()))
        return [str(one.value) for one in kept if isinstance(one.value, ResultsError)] + self._changed

    def notices(self) -> list[str]:
        """The notices of `read_results` about the last `table`."""
        return self._notices

    def modified(self, trial: str) -> datetime | None:
        """When the trial's record was last written, UTC; None if OUT does not tell."""
        version = self._files[RECORD].get(trial)
        return version.modified if version else None

    def file(self, name: str, most_bytes: int) -> bytes | None:
        """Content of ``study.yaml`` or ``optuna.journal``; None if absent."""
        version = self._files[name].get("")
        if version is None:
            return None
        if version.size > most_bytes:
            raise ResultsError(self._too_large(f"{self.study}/{name}", version, most_bytes))
        return self.store.read(f"{self.study}/{name}")

    def _read(self, file: str, parse: Callable[[TrialFolder, bytes], Any]) -> dict[str, Any]:
        """Every trial's `file`, parsed, or the ResultsError that says why not. Reads only files with a new tag."""
        kept, present = self._cached[file], self._files[file]
        for gone in kept.keys() - present.keys():
            del kept[gone]
        stale = [trial for trial, version in present.items() if trial not in kept or kept[trial].tag != version.tag]
        copies = self._unpack(file, stale) if len(stale) >= _PACK_THRESHOLD else {}
        for trials in _batches(stale):
            names = {trial: f"{self.study}/trials/{trial}/{file}" for trial in trials}
            small = [names[trial] for trial in trials if present[trial].size <= _MOST_BYTES[file]]
            contents: dict[str, bytes | ResultsError] = {
                names[trial]: copies[trial] for trial in trials if trial in copies
            }
            contents |= self.store.read_many([name for name in small if name not in contents])
            for trial, name in names.items():
                value: Any = contents.get(name)
                if name not in small:
                    value = ResultsError(self._too_large(name, present[trial], _MOST_BYTES[file]))
                elif isinstance(value, bytes):
                    try:
                        value = parse(self._folder(trial), value)
                    except ResultsError as error:
                        value = error
                # A storage error may be temporary: no tag, so that the file is read again.
                kept[trial] = _Cached("" if isinstance(value, StorageError) else present[trial].tag, value)
        return {trial: one.value for trial, one in kept.items()}

    def _folder(self, trial: str) -> TrialFolder:
        return TrialFolder(self.store, self.study, trial)

    def _unpack(self, file: str, trials: list[str]) -> dict[str, bytes]:
        wanted = {trial: self._files[file][trial] for trial in trials}
        return unpack(self.store, self.study, file, wanted, self._packs.get(file))

    def _parse_record(self, folder: TrialFolder, content: bytes) -> TrialRecord:
        record = folder.parse_record(content)
        return record if record.study == self.study else record.model_copy(update={"study": self.study})

    def _too_large(self, name: str, version: FileVersion, most_bytes: int) -> str:
        return f"{self.store.path(name)}: {version.size:,} bytes; files of more than {most_bytes:,} are not read"


def _parse_epochs(folder: TrialFolder, content: bytes) -> _Epochs:
    return _Epochs(folder.parse_epochs(content), FileDigest.of(content))


def _batches(names: list[str]) -> Iterator[list[str]]:
    waiting = iter(names)
    while batch := list(itertools.islice(waiting, _BATCH)):
        yield batch
