"""Reading results: one tidy table per study, its trials' records, and their weights and embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smoe_ray.errors import ResultsError
from smoe_ray.results.current import current_trials
from smoe_ray.results.integrity import missing
from smoe_ray.results.record import FileDigest, TrialRecord
from smoe_ray.results.store import Store
from smoe_ray.results.study_file import equivalence_margin
from smoe_ray.results.table import Found, build_table
from smoe_ray.results.trial import EPOCHS, RECORD, Arrays, TrialFolder, trial_names
from smoe_ray.spec import NAME_PATTERN
from smoe_ray.spec.messages import nearest

if TYPE_CHECKING:
    import pandas as pd
_BATCH = 500
"""Number of trials whose files are in memory at the same time."""


def list_studies(out: str | Path) -> list[str]:
    """Names of the studies in `out`, sorted; empty if `out` does not exist."""
    store = Store(out)
    names = [name for name in store.folders() if re.fullmatch(NAME_PATTERN, name)]
    if store.folder is None:  # an object store has no empty folders
        return names
    of_study = [(name, store.folder / name) for name in names]
    return [name for name, folder in of_study if (folder / "study.yaml").is_file() or (folder / "trials").is_dir()]


def read_trials(out: str | Path, study: str, *, skip_broken: bool = False) -> list[TrialRecord]:
    """All trials of a study that were ever started, sorted by `trial_id`.

    Raises:
        ResultsError: no such study, or a `trial.json` is unreadable and `skip_broken` is false, or so is every one.
    """
    store = Store(out)
    found = _read_all(store, study, with_epochs=False)
    return [item.record for item in _usable(found, skip_broken, problems=[])]


def read_results(out: str | Path, study: str, *, skip_broken: bool = False) -> pd.DataFrame:
    """The table of a study: one row per trial and epoch, sorted by `trial_id`, then `epoch`.

    Columns: study, trial_id, status, seed, epoch, ``config.<dotted spec path>`` (lists as tuples), data.train_images,
    data.image_shape, data.fingerprint, then train.*, test.*, experts.* and cost.* (`EPOCH_COLUMNS`). A trial without
    epochs has one row, whose epoch is NaN. The table has all trials of the study's folder, including those of earlier
    versions of its file, but not those of earlier data, numerics or plug-ins (`current_trials`):
    ``frame.attrs["notices"]`` counts them, and names damaged files that the table does not need;
    ``frame.attrs["equivalence_margin"]`` is that of the study's file, or None.

    Args:
        skip_broken: leave out trials with an unreadable file, and list the messages in ``frame.attrs["problems"]``.

    Raises:
        ResultsError: no such study, or a file is unreadable and `skip_broken` is false, or so is every trial; the
            message names the file.
    """
    problems: list[str] = []
    store = Store(out)
    found = list(_usable(_read_all(store, study, with_epochs=True), skip_broken, problems))
    kept, notices = current_trials(item.record for item in found)
    ids = {record.trial_id for record in kept}
    frame = build_table([item for item in found if item.record.trial_id in ids])
    frame.attrs["problems"] = problems
    frame.attrs["equivalence_margin"] = equivalence_margin(store, study)
    frame.attrs["notices"] = [f"{study}: {notice}" for notice in notices] + _damaged(store, study, kept)
    return frame


def _damaged(store: Store, study: str, records: Sequence[TrialRecord]) -> list[str]:
    """One line per file of these trials that is absent or of another size than recorded."""
    if not any(record.files for record in records):
        return []
    listed = store.files(f"{study}/trials")
    errors = (missing(TrialFolder(store, study, record.trial_id), record, listed) for record in records)
    return [str(error) for of_trial in errors for error in of_trial]


def read_together(out: str | Path, studies: Sequence[str], *, skip_broken: bool = False) -> pd.DataFrame:
    """The concatenated tables of several studies. A trial that several of them ran is included once, preferably from a
    study in which it finished. `skip_broken`, the attrs and errors are those of `read_results`.
    """
    import pandas as pd

    tables = [read_results(out, study, skip_broken=skip_broken) for study in studies]
    told = {name: [line for table in tables for line in table.attrs[name]] for name in ("problems", "notices")}
    margins = {table.attrs["equivalence_margin"] for table in tables}
    results = pd.concat(tables, ignore_index=True)
    copies = results[["trial_id", "study", "status"]].drop_duplicates()
    copies = copies.sort_values("status", key=lambda status: status != "finished", kind="stable")
    kept = copies.drop_duplicates("trial_id")[["trial_id", "study"]]
    results = results.merge(kept, on=["trial_id", "study"]).reset_index(drop=True)
    results.attrs.update(told, equivalence_margin=margins.pop() if len(margins) == 1 else None)
    return results


def read_embeddings(out: str | Path, study: str, trial_id: str) -> Arrays:
    """Per-image outputs of a finished trial on the fixed test set.

    Returns:
        mu (B, Z) float32, label (B,) int64, expert (B,) int64, gate (B, E) float32, image uint8 and
        reconstruction float16 in [0, 1], both (B, H, W) where they are grey, else (B, 3, H, W). For synthetic data
        also style (B,) int64 and parameter (B, P) float32, whose names are in the trial's record (`DataFacts`).

    Raises:
        ResultsError: no such trial, it stored none, or the file is unreadable.
    """
    return trial_folder(out, study, trial_id).read_embeddings()


def read_weights(out: str | Path, study: str, trial_id: str) -> Arrays:
    """Final weights of a finished trial, name -> array. Raises ResultsError if absent or unreadable."""
    return trial_folder(out, study, trial_id).read_weights()


def trial_folder(out: str | Path, study: str, trial_id: str) -> TrialFolder:
    """The files of a trial. Raises ResultsError for names that could lead out of OUT."""
    store = Store(out)
    for name in (study, trial_id):
        check_name(store, name)
    return TrialFolder(store, study, trial_id)


def check_name(store: Store, name: str) -> None:
    """Raise ResultsError for a name that could lead out of OUT as part of a path."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ResultsError(f"{store.out}: {name!r} names nothing there; names are of a-z, 0-9 and '-'")


def _read_all(store: Store, study: str, *, with_epochs: bool) -> list[Found | ResultsError | None]:
    """Files of every trial; None for a folder without `trial.json`."""
    check_name(store, study)
    trials = trial_names(store, study)
    if not trials and store.read(f"{study}/study.yaml") is None:
        _require_folder_of_studies(store)
        known = list_studies(store.out)
        hint = nearest(study, known)
        raise ResultsError(f"{store.path(study)}: no such study (studies there: {', '.join(known) or 'none'}){hint}")

    files = (RECORD, EPOCHS) if with_epochs else (RECORD,)
    found: list[Found | ResultsError | None] = []
    for start in range(0, len(trials), _BATCH):
        folders = [TrialFolder(store, study, trial) for trial in trials[start : start + _BATCH]]
        contents: dict[str, bytes | ResultsError] = {}
        for file in files:  # the record first: epochs are complete when it says that the trial has ended
            contents |= store.read_many([f"{folder.name}/{file}" for folder in folders])
        found += [_parse(folder, contents, with_epochs) for folder in folders]
    return found


def _require_folder_of_studies(store: Store) -> None:
    """Raises ResultsError for a local OUT that is absent, a file, or the folder of one study."""
    if store.folder is None:  # an object store has no empty folders
        return
    if store.folder.is_file():
        raise ResultsError(f"{store.out}: a file, not a folder of results")
    if not store.folder.exists():
        raise ResultsError(f"{store.out}: no such folder; pass the folder given to 'smoe-ray run --out'")
    if (store.folder / "study.yaml").is_file() and (store.folder / "trials").is_dir():
        raise ResultsError(f"{store.out}: a study's own folder; pass {Path(store.out).parent}")


def _parse(
    folder: TrialFolder, contents: Mapping[str, bytes | ResultsError], with_epochs: bool
) -> Found | ResultsError | None:
    content, epochs = (contents.get(f"{folder.name}/{file}") for file in (RECORD, EPOCHS))
    if content is None or isinstance(content, ResultsError):
        return content
    if isinstance(epochs, ResultsError):
        return epochs
    try:
        record = folder.parse_record(content)
        if with_epochs:
            folder.check(EPOCHS, None if epochs is None else FileDigest.of(epochs), record)
        return Found(record, None if epochs is None else folder.parse_epochs(epochs))
    except ResultsError as error:
        return error


def _usable(found: list[Found | ResultsError | None], skip_broken: bool, problems: list[str]) -> Iterator[Found]:
    none_is_left = not any(isinstance(item, Found) for item in found)
    for item in found:
        if isinstance(item, ResultsError):
            if none_is_left or not skip_broken:
                raise item
            problems.append(str(item))
        elif item is not None:
            yield item
