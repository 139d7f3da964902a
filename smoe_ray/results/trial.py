"""The files of one trial, and the order in which they are written.

After epoch k: `epochs.parquet` with k rows, then `checkpoint/` of epoch k. At the end: `model.safetensors`,
`embeddings.npz`, then `trial.json` with its final status (the commit), then `checkpoint/` is deleted. So whenever a
trial is killed, `epochs.parquet` has at least the checkpoint's epochs, and a finished trial has all its files.

The final `trial.json` has size and SHA-256 of each of the other files, and its own SHA-256 in its last line. A
checkpoint has its own SHA-256, the trial's id and its rows. Records of earlier versions have none of these.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from smoe_ray.errors import DamagedError, ResultsError
from smoe_ray.results.columns import Row, from_parquet, to_parquet
from smoe_ray.results.embeddings import check_embeddings, load_embeddings
from smoe_ray.results.locks import locked
from smoe_ray.results.record import FileDigest, TrialRecord
from smoe_ray.results.store import Store
from smoe_ray.spec.messages import in_words

RECORD, EPOCHS, WEIGHTS, EMBEDDINGS = "trial.json", "epochs.parquet", "model.safetensors", "embeddings.npz"
CHECKPOINT = "checkpoint/state.safetensors"

SET_ASIDE = ".damaged-"
"""In the name of the folder of a damaged trial that was set aside: before it the trial's id, after it the time."""

_MOST_BYTES = {RECORD: 4_000_000, EPOCHS: 64_000_000}
_MOST_BYTES_OF_ARRAYS = 4_000_000_000
"""Size limit of a file of arrays: the embeddings of a million test images with 100 experts."""

_SEAL = re.compile(rb',\n  "sha256": "([0-9a-f]{64})"\n\}\Z')
"""The end of a `trial.json`: the SHA-256 of what it would be without this line."""

Arrays = dict[str, npt.NDArray[Any]]


class Checkpoint(NamedTuple):
    """A trial after an epoch."""

    state: Arrays
    rows: list[Row]
    """Of all epochs so far."""


def trial_names(store: Store, study: str) -> list[str]:
    """Names of the folders of a study's trials, sorted, without those that were set aside."""
    return [name for name in store.folders(f"{study}/trials") if SET_ASIDE not in name]


class TrialFolder:
    """The files in ``OUT/<study>/trials/<trial_id>/``. Every method may raise ResultsError, which names the file."""

    def __init__(self, store: Store, study: str, trial_id: str) -> None:
        self.store = store
        self.trial_id = trial_id
        self.name = f"{study}/trials/{trial_id}"
        self.lock_name = f"{study}/.locks/{trial_id}.lock"
        self.written: dict[str, FileDigest] = {}
        """The files beside the record and the checkpoint that this object has written."""

    def write_record(self, record: TrialRecord) -> None:
        """Write `trial.json`."""
        self.store.write(f"{self.name}/{RECORD}", sealed(record.model_dump_json(indent=2).encode()))

    def read_record(self) -> TrialRecord | None:
        """Read `trial.json`; None if the trial was never started."""
        content = self.store.read(f"{self.name}/{RECORD}", self._limit(RECORD))
        return None if content is None else self.parse_record(content)

    def parse_record(self, content: bytes) -> TrialRecord:
        """Parse the content of `trial.json`."""
        seal = _SEAL.search(content)
        if seal and not is_sealed(content):
            raise self.broken(RECORD, "not what was written: its SHA-256 is another")
        try:
            record = TrialRecord.model_validate_json(content)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            if problem["type"] == "json_invalid":
                raise self.broken(RECORD, f"{len(content):,} bytes that are not whole JSON text") from None
            where = ".".join(str(part) for part in problem["loc"])
            kind = ResultsError if seal else DamagedError
            raise kind(
                f"{self.store.path(self.name)}/trial.json: not a record of this version of smoe-ray "
                f"({where}: {in_words(problem)}); {_version(content)} wrote it: read it with that"
            ) from None
        if record.trial_id != self.trial_id:
            raise self.broken(RECORD, f"of trial {record.trial_id[:80]!r}")
        if record.files and not seal:
            raise self.broken(RECORD, "not what was written: its last line is not its SHA-256")
        return record

    def write_epochs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `epochs.parquet`, one row per epoch."""
        self._write(EPOCHS, to_parquet(rows))

    def read_epochs(self) -> Any | None:
        """Read `epochs.parquet` as a `pyarrow.Table`; None if no epoch has ended yet."""
        content = self.store.read(f"{self.name}/{EPOCHS}", self._limit(EPOCHS))
        return None if content is None else self.parse_epochs(content)

    def parse_epochs(self, content: bytes) -> Any:
        """Parse the content of `epochs.parquet` into a `pyarrow.Table`."""
        try:
            return from_parquet(content)
        except ValueError as error:
            raise self.broken(EPOCHS, str(error)) from None

    def check(self, file: str, found: FileDigest | None, record: TrialRecord) -> None:
        """Raise DamagedError if `file` is not what the trial's record says; records of earlier versions say nothing."""
        recorded = record.files.get(file)
        if recorded is None or recorded == found:
            return
        if found is None:
            raise self.broken(file, "missing")
        if found.size != recorded.size:
            raise self.broken(file, f"{found.size:,} bytes of {recorded.size:,}")
        raise self.broken(file, "not what was written: its SHA-256 is another")

    def read_rows(self) -> list[Row]:
        """`read_epochs` as rows; empty if no epoch has ended yet."""
        table = self.read_epochs()
        return [] if table is None else table.to_pylist()

    def write_checkpoint(self, state: Mapping[str, npt.NDArray[Any]], rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the checkpoint: the state after the last epoch of `rows`, with all of them."""
        arrays = {
            **{f"state/{name}": array for name, array in state.items()},
            "trial_id": np.frombuffer(self.trial_id.encode(), np.uint8),
            "rows": np.frombuffer(to_parquet(rows), np.uint8),
        }
        arrays["sha256"] = np.frombuffer(_digest(arrays), np.uint8)
        self.store.write(f"{self.name}/{CHECKPOINT}", _to_safetensors(arrays))

    def read_checkpoint(self) -> Checkpoint | None:
        """Read the checkpoint; None if there is none. Raises DamagedError if it was changed or is another trial's."""
        arrays = self._read_safetensors(CHECKPOINT, None)
        if arrays is None:
            return None
        digest = arrays.pop("sha256", None)
        if digest is None or digest.tobytes() != _digest(arrays):
            raise self.broken(CHECKPOINT, "not what was written: its SHA-256 is another")
        if arrays.pop("trial_id").tobytes() != self.trial_id.encode():
            raise self.broken(CHECKPOINT, "of another trial")
        rows = from_parquet(arrays.pop("rows").tobytes()).to_pylist()
        return Checkpoint({name.removeprefix("state/"): array for name, array in arrays.items()}, rows)

    def remove_checkpoint(self) -> None:
        """Delete `checkpoint/`, if it exists."""
        self.store.remove(f"{self.name}/checkpoint")

    def write_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write `model.safetensors`."""
        self._write(WEIGHTS, _to_safetensors(weights))

    def read_weights(self) -> Arrays:
        """Read the final weights, name -> array."""
        weights = self._read_safetensors(WEIGHTS, self.read_record())
        if weights is None:
            raise self._absent(WEIGHTS, "it is written when a trial finishes")
        return weights

    def write_embeddings(self, embeddings: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write `embeddings.npz`."""
        self._write(EMBEDDINGS, to_npz(embeddings))

    def read_embeddings(self) -> Arrays:
        """Arrays over the fixed test set: see `results.read_embeddings`. Their shapes fit the trial's record."""
        record = self.read_record()
        content = self._read_checked(EMBEDDINGS, record)
        if content is None:
            raise self._absent(EMBEDDINGS, "a trial writes it at its end, where evaluation.save_embeddings is true")
        try:
            arrays = load_embeddings(content, _MOST_BYTES_OF_ARRAYS, record)
            if record is not None:
                check_embeddings(arrays, record)
        except ValueError as error:
            raise self.broken(EMBEDDINGS, str(error)) from None
        return arrays

    def claim(self, timeout_s: float) -> AbstractContextManager[bool]:
        """Hold the trial's lock. Yields False if another process still holds it after `timeout_s` (-1: wait forever).

        Behind a URI there are no locks: yields True.
        """
        return locked(self.store, self.lock_name, timeout_s)

    def is_abandoned(self, host: str) -> bool:
        """Whether no process trains this trial of `host`, which its record says is running: its lock is free.

        False where that cannot be known: behind a URI, and on another machine. Nothing is written.
        """
        import fcntl  # absent on Windows, so not for every reader of results

        root = self.store.folder
        if root is None or host != socket.gethostname():
            return False
        try:
            with (root / self.lock_name).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released at once, by closing the file
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def digests(self) -> dict[str, FileDigest]:
        """What the files are now that a trial which has ended may have beside its record."""
        found = {file: self.digest(file) for file in (EPOCHS, WEIGHTS, EMBEDDINGS)}
        return {file: digest for file, digest in found.items() if digest is not None}

    def digest(self, file: str) -> FileDigest | None:
        """What a file is now; None if it is absent."""
        found = self.store.digest(f"{self.name}/{file}")
        return None if found is None else FileDigest.model_construct(size=found[0], sha256=found[1])

    def set_aside(self) -> str:
        """Rename the folder of a damaged trial; returns its new name. For the process that holds the trial's lock."""
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        self.store.rename(self.name, f"{self.name}{SET_ASIDE}{moment}")
        return f"{self.trial_id}{SET_ASIDE}{moment}"

    def remove_leftovers(self) -> None:
        """Delete temporary files of writes that were killed. Only for the process that holds the trial's lock."""
        if self.store.folder is not None:
            for aside in Path(self.store.folder / self.name).glob("**/.*.tmp"):
                aside.unlink(missing_ok=True)

    def _write(self, file: str, content: bytes) -> None:
        self.store.write(f"{self.name}/{file}", content)
        self.written[file] = FileDigest.of(content)

    def _read_checked(self, file: str, record: TrialRecord | None) -> bytes | None:
        """Content of a file of arrays, which is what the record says of it."""
        recorded = record.files.get(file) if record else None
        content = self.store.read(f"{self.name}/{file}", recorded.size if recorded else _MOST_BYTES_OF_ARRAYS)
        if record is not None and recorded is not None:
            self.check(file, None if content is None else FileDigest.of(content), record)
        return content

    def _read_safetensors(self, file: str, record: TrialRecord | None) -> Arrays | None:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        content = self._read_checked(file, record)
        try:
            return None if content is None else load(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise self.broken(file, str(error)) from None

    def _limit(self, file: str) -> int | None:
        """Size limit of one of the small files; behind a URI it would cost a request each."""
        return _MOST_BYTES[file] if self.store.folder is not None else None

    def broken(self, file: str, problem: str) -> DamagedError:
        """The error that says that `file` is damaged, and how."""
        path = self.store.path(f"{self.name}/{file}")
        problem = " ".join(problem.split())
        return DamagedError(
            f"{path}: damaged ({problem})",
            "copy it again, or run the study again, which keeps the damaged trial aside and trains it anew",
        )

    def _absent(self, file: str, hint: str) -> ResultsError:
        return ResultsError(f"{self.store.path(f'{self.name}/{file}')}: no such file; {hint}")


def sealed(text: bytes) -> bytes:
    """An object in indented JSON, with its own SHA-256 as one more key in its last line."""
    seal = f',\n  "sha256": "{hashlib.sha256(text).hexdigest()}"\n}}'
    return text[: -len(b"\n}")] + seal.encode()


def is_sealed(content: bytes) -> bool:
    """Whether this is what `sealed` made."""
    seal = _SEAL.search(content)
    return seal is not None and hashlib.sha256(content[: seal.start()] + b"\n}").hexdigest().encode() == seal[1]


def to_npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays as a compressed archive without pickles."""
    buffer = io.BytesIO()
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    assert not any(array.dtype.hasobject for array in plain.values()), "objects would be pickled"
    np.savez_compressed(buffer, **plain)  # type: ignore[arg-type]  # numpy types **kwds like its own option
    return buffer.getvalue()


def _version(trial_json: bytes) -> str:
    try:
        return " ".join(f"smoe-ray {json.loads(trial_json)['versions']['smoe_ray']}".split())
    except (KeyError, TypeError):
        return "another version"


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _to_safetensors(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    from safetensors.numpy import save

    # safetensors stores the raw memory, which readers take to be in C order. (ascontiguousarray would turn a scalar
    # into a vector.)
    content: bytes = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    return content
