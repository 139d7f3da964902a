"""Whether the files of a trial are what its record says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from smoe_ray.errors import DamagedError
from smoe_ray.results.record import FileDigest, TrialRecord
from smoe_ray.results.store import FileVersion
from smoe_ray.results.trial import EMBEDDINGS, EPOCHS, WEIGHTS, TrialFolder

DigestOf = Callable[[TrialFolder, TrialRecord, str], FileDigest | None]
"""(trial, its record, name of a file) -> the file's digest, None if it is absent; may raise ResultsError."""

_FILES = {EPOCHS, WEIGHTS, EMBEDDINGS}  # a record is not trusted to name others, which may be anywhere


def expected_files(record: TrialRecord) -> list[str]:
    """Names of the files that a trial which has ended must have beside its record."""
    names = record.files.keys() & _FILES
    if record.status == "finished":
        names |= {EPOCHS, WEIGHTS, *((EMBEDDINGS,) if record.spec.evaluation.save_embeddings else ())}
    return sorted(names)


def damage(folder: TrialFolder, record: TrialRecord, digest_of: DigestOf) -> Iterator[DamagedError]:
    """An error per file that is absent or not what the record says.

    Records of earlier versions say nothing: then the files must be there, and the epochs be readable.
    """
    for file in expected_files(record):
        try:
            found = digest_of(folder, record, file)
            if found is None:
                raise folder.broken(file, "missing")
            folder.check(file, found, record)
            if file == EPOCHS and file not in record.files:
                folder.read_epochs()
        except DamagedError as error:
            yield error


def missing(folder: TrialFolder, record: TrialRecord, listed: Mapping[str, FileVersion]) -> Iterator[DamagedError]:
    """`damage` as far as a listing of the study's files tells it: absent files and other sizes."""
    for file in sorted(record.files.keys() & _FILES):
        recorded = record.files[file]
        found = listed.get(f"{folder.name}/{file}")
        if found is None:
            yield folder.broken(file, "missing")
        elif found.size != recorded.size:
            yield folder.broken(file, f"{found.size:,} bytes of {recorded.size:,}")
