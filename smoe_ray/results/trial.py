"""The files of one trial, and the order in which they are written.

After epoch k: `epochs.parquet` with k rows, then `checkpoint/` of epoch k. At the end: `model.safetensors`,
`embeddings.npz`, then `trial.json` with its final status (the commit), then `checkpoint/` is deleted. So whenever a
trial is killed, `epochs.parquet` has at least the checkpoint's epochs, and a finished trial has all its files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from smoe_ray.errors import ResultsError
from smoe_ray.results.columns import Row, from_parquet, to_parquet
from smoe_ray.results.record import TrialRecord
from smoe_ray.results.store import Store
from smoe_ray.spec.messages import in_words

_MOST_BYTES_UNPACKED = 4_000_000_000
"""Size limit of an unpacked `embeddings.npz`: a million test images with 100 experts."""

Arrays = dict[str, npt.NDArray[Any]]


class TrialFolder:
    """The files in ``OUT/<study>/trials/<trial_id>/``. Every method may raise ResultsError, which names the file."""

    def __init__(self, store: Store, study: str, trial_id: str) -> None:
        self.store = store
        self.name = f"{study}/trials/{trial_id}"
        self.lock_name = f"{study}/.locks/{trial_id}.lock"

    def write_record(self, record: TrialRecord) -> None:
        """Write `trial.json`."""
        self.store.write(f"{self.name}/trial.json", record.model_dump_json(indent=2).encode())

    def read_record(self) -> TrialRecord | None:
        """Read `trial.json`; None if the trial was never started."""
        content = self.store.read(f"{self.name}/trial.json")
        return None if content is None else self.parse_record(content)

    def parse_record(self, content: bytes) -> TrialRecord:
        """Parse the content of `trial.json`."""
        try:
            return TrialRecord.model_validate_json(content)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            if problem["type"] == "json_invalid":
                raise self._broken("trial.json", f"{len(content):,} bytes that are not whole JSON text") from None
            where = ".".join(str(part) for part in problem["loc"])
            raise ResultsError(
                f"{self.store.path(self.name)}/trial.json: not a record of this version of smoe-ray "
                f"({where}: {in_words(problem)}); {_version(content)} wrote it: read it with that"
            ) from None

    def write_epochs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `epochs.parquet`, one row per epoch."""
        self.store.write(f"{self.name}/epochs.parquet", to_parquet(rows))

    def read_epochs(self) -> Any | None:
        """Read `epochs.parquet` as a `pyarrow.Table`; None if no epoch has ended yet."""
        content = self.store.read(f"{self.name}/epochs.parquet")
        return None if content is None else self.parse_epochs(content)

    def parse_epochs(self, content: bytes) -> Any:
        """Parse the content of `epochs.parquet` into a `pyarrow.Table`."""
        try:
            return from_parquet(content)
        except ValueError as error:
            raise self._broken("epochs.parquet", str(error)) from None

    def read_rows(self) -> list[Row]:
        """`read_epochs` as rows; empty if no epoch has ended yet."""
        table = self.read_epochs()
        return [] if table is None else table.to_pylist()

    def write_checkpoint(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace the checkpoint."""
        self.store.write(f"{self.name}/checkpoint/state.safetensors", _to_safetensors(state))

    def read_checkpoint(self) -> Arrays | None:
        """Read the checkpoint; None if there is none."""
        return self._read_safetensors("checkpoint/state.safetensors")

    def remove_checkpoint(self) -> None:
        """Delete `checkpoint/`, if it exists."""
        self.store.remove(f"{self.name}/checkpoint")

    def write_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write `model.safetensors`."""
        self.store.write(f"{self.name}/model.safetensors", _to_safetensors(weights))

    def read_weights(self) -> Arrays:
        """Read the final weights, name -> array."""
        weights = self._read_safetensors("model.safetensors")
        if weights is None:
            raise self._absent("model.safetensors", "it is written when a trial finishes")
        return weights

    def write_embeddings(self, embeddings: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write `embeddings.npz`."""
        buffer = io.BytesIO()
        plain = {name: np.asarray(array) for name, array in embeddings.items()}
        assert not any(array.dtype.hasobject for array in plain.values()), "objects would be pickled"
        np.savez_compressed(buffer, **plain)  # type: ignore[arg-type]  # numpy types **kwds like its own option
        self.store.write(f"{self.name}/embeddings.npz", buffer.getvalue())

    def read_embeddings(self) -> Arrays:
        """Arrays over the fixed test set: see `results.read_embeddings`."""
        import zipfile

        content = self.store.read(f"{self.name}/embeddings.npz")
        if content is None:
            raise self._absent(
                "embeddings.npz", "a trial writes it at its end, where evaluation.save_embeddings is true"
            )
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                unpacked = sum(info.file_size for info in archive.zip.infolist())
                if unpacked > _MOST_BYTES_UNPACKED:
                    raise ValueError(f"{unpacked:,} bytes unpacked: more than a trial stores")
                return dict(archive)
        except (ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise self._broken("embeddings.npz", str(error)) from None

    def remove_leftovers(self) -> None:
        """Delete temporary files of writes that were killed. Only for the process that holds the trial's lock."""
        if self.store.folder is not None:
            for aside in Path(self.store.folder / self.name).glob("**/.*.tmp"):
                aside.unlink(missing_ok=True)

    def _read_safetensors(self, file: str) -> Arrays | None:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        content = self.store.read(f"{self.name}/{file}")
        try:
            return None if content is None else load(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise self._broken(file, str(error)) from None

    def _broken(self, file: str, problem: str) -> ResultsError:
        path = self.store.path(f"{self.name}/{file}")
        problem = " ".join(problem.split())
        return ResultsError(
            f"{path}: unreadable ({problem}); was it copied while it was written? copy it again, or delete the "
            "trial's folder and run the study again"
        )

    def _absent(self, file: str, hint: str) -> ResultsError:
        return ResultsError(f"{self.store.path(f'{self.name}/{file}')}: no such file; {hint}")


def _version(trial_json: bytes) -> str:
    try:
        return " ".join(f"smoe-ray {json.loads(trial_json)['versions']['smoe_ray']}".split())
    except (KeyError, TypeError):
        return "another version"


def _to_safetensors(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    from safetensors.numpy import save

    # safetensors stores the raw memory, which readers take to be in C order. (ascontiguousarray would turn a scalar
    # into a vector.)
    content: bytes = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    return content
