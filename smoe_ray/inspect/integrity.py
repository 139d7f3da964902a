"""Scrubs results: reads every byte of OUT and compares it with what was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from smoe_ray.data.prepared import META, SUMS, parse_sums
from smoe_ray.errors import DamagedError, ResultsError, StudyError
from smoe_ray.results import Store, TrialFolder, list_studies
from smoe_ray.results.integrity import damage, expected_files
from smoe_ray.results.probe import probe_of, read_probe_record, why_stale
from smoe_ray.results.record import FileDigest, TrialRecord
from smoe_ray.results.study_file import read_study_text
from smoe_ray.results.trial import EMBEDDINGS, EPOCHS, SET_ASIDE, WEIGHTS
from smoe_ray.spec import parse_study

PREPARED = ".cache/data/prepared"
_THREADS = 8  # hashing and reading release the interpreter's lock


@dataclass
class Scrub:
    """What was found in OUT."""

    problems: list[str] = field(default_factory=list)
    """One line per damage that is still there."""
    repaired: list[str] = field(default_factory=list)
    """One line per damage that was set aside."""
    counts: Counter[str] = field(default_factory=Counter)
    """What was read: studies, trials, files, bytes; ``set aside``: earlier damage that is kept."""


def scrub(out: str, studies: Sequence[str] | None = None, *, repair: bool = False) -> Scrub:
    """Read the files of studies in `out` and compare them with their checksums.

    Args:
        out: folder or URI of the results.
        studies: names; None: all, and the prepared data below OUT.
        repair: set damaged trials and prepared data aside, so that the next run of the study makes them again.

    Raises:
        ResultsError: no such study, or OUT cannot be read.
    """
    store = Store(out)
    known = list_studies(out)
    for name in studies or ():
        if name not in known:
            raise ResultsError(f"{store.path(name)}: no such study (studies there: {', '.join(known) or 'none'})")
    if studies is None and not known:
        raise ResultsError(f"{out}: no study found; pass the folder given to 'smoe-ray run --out'")
    found = Scrub()
    for name in known if studies is None else studies:
        _scrub_study(store, name, found, repair)
    if studies is None:
        _scrub_prepared(store, found, repair)
    return found


def _scrub_study(store: Store, study: str, found: Scrub, repair: bool) -> None:
    found.counts["studies"] += 1
    if problem := _study_file_problem(store, study):
        found.problems.append(f"{problem}; run the study again, which writes it")
    names = store.folders(f"{study}/trials")
    found.counts["set aside"] += sum(SET_ASIDE in name for name in names)
    folders = [TrialFolder(store, study, name) for name in names if SET_ASIDE not in name]
    with ThreadPoolExecutor(_THREADS) as threads:
        for folder, (problems, of_probe, counts) in zip(folders, threads.map(_scrub_trial, folders), strict=True):
            found.counts += counts
            found.problems += [str(error) for error in of_probe]  # no reason to set the trial aside
            if not problems:
                continue
            kept = _set_aside(folder) if repair else None
            if kept is not None:
                found.repaired += [f"{error.problem}; the damaged trial is kept as {kept}" for error in problems]
            else:
                found.problems += [str(error) for error in problems]


def _study_file_problem(store: Store, study: str) -> str | None:
    name = f"{study}/study.yaml"
    try:
        text = read_study_text(store, study)
        if text is None:
            return f"{store.path(name)}: missing"
        parse_study(text, origin=store.path(name))
    except (DamagedError, StudyError) as error:
        return str(error)
    return None


def _scrub_trial(folder: TrialFolder) -> tuple[list[DamagedError], list[DamagedError], Counter[str]]:
    """Damage of the trial, damage of its probe, and what was read."""
    counts = Counter[str](trials=1)
    of_probe: list[DamagedError] = []
    try:
        record = folder.read_record()
        if record is None:
            return [], [], counts
        counts["files"] += 1
        problems = list(damage(folder, record, partial(_counted_digest, counts)))
        problems += _unreadable(folder, record)
        of_probe += _damage_of_probe(folder, record, counts)
    except DamagedError as error:
        problems = [error]
    return problems, of_probe, counts


def _counted_digest(counts: Counter[str], folder: TrialFolder, _record: TrialRecord, file: str) -> FileDigest | None:
    found = folder.digest(file)
    if found is not None:
        counts.update(files=1, bytes=found.size)
    return found


def _unreadable(folder: TrialFolder, record: TrialRecord) -> Iterator[DamagedError]:
    """Files of which the record has no digest: of a trial that has not ended, or of an earlier version."""
    present = {name.rpartition("/")[2] for name in folder.store.files(folder.name)}
    reads: dict[str, Callable[[], object]] = {
        EPOCHS: folder.read_epochs,
        WEIGHTS: folder.read_weights,
        EMBEDDINGS: folder.read_embeddings,
        "state.safetensors": folder.read_checkpoint,
    }
    for file, read in reads.items():
        read_before = file == EPOCHS and file in expected_files(record)  # by `damage`
        if file in present and file not in record.files and not read_before:
            try:
                read()
            except DamagedError as error:
                yield error


def _damage_of_probe(folder: TrialFolder, record: TrialRecord, counts: Counter[str]) -> Iterator[DamagedError]:
    try:
        probe = read_probe_record(folder)
        if probe is not None and why_stale(probe, folder, record) is None:
            probe_of(folder, record)
            counts.update(files=2, bytes=probe.arrays.size)
    except DamagedError as error:
        yield error


def _set_aside(folder: TrialFolder) -> str | None:
    """The new name of the trial's folder; None if a run holds the trial's lock."""
    with folder.claim(0) as claimed:
        return folder.set_aside() if claimed else None


def _scrub_prepared(store: Store, found: Scrub, repair: bool) -> None:
    for key in store.folders(PREPARED):
        if key.startswith("."):  # being made
            continue
        name = f"{PREPARED}/{key}"
        problem = _prepared_problem(store, name, found.counts)
        if problem is None:
            continue
        line = f"{store.path(name)}: damaged prepared data ({problem})"
        if repair:
            store.remove(name)
            found.repaired.append(f"{line}; deleted: a run that needs them makes them again")
        else:
            found.problems.append(f"{line}; a run that needs them makes them again, --repair deletes them")


def _prepared_problem(store: Store, name: str, counts: Counter[str]) -> str | None:
    present = store.files(name)
    if f"{name}/{SUMS}" not in present and f"{name}/{META}" in present:
        return None  # of an earlier version, which no run uses
    try:
        sums = parse_sums(store.read(f"{name}/{SUMS}") or b"")
    except ValueError:
        return SUMS
    for file, expected in sums.items():
        digest = store.digest(f"{name}/{file}")
        if digest is None or digest[1] != expected:
            return file
        counts.update(files=1, bytes=digest[0])
    return None
