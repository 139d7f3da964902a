"""Reading: one tidy table a study, the trials behind it, and what a trial kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.errors import ResultsError
from smoe_ray.results.columns import empty_epochs
from smoe_ray.results.record import TrialRecord
from smoe_ray.results.store import Store
from smoe_ray.results.trial import Arrays, TrialFolder
from smoe_ray.spec import NAME_PATTERN

if TYPE_CHECKING:
    import pandas as pd

_READERS = 16
_DATA_COLUMNS = ["data.train_images", "data.fingerprint"]


def list_studies(out: str | Path) -> list[str]:
    """Names of the studies below `out`, sorted; none where `out` does not exist."""
    return [name for name in Store(out).folders() if re.fullmatch(NAME_PATTERN, name)]


def read_trials(out: str | Path, study: str, *, skip_broken: bool = False) -> list[TrialRecord]:
    """All trials of a study that were ever started, by `trial_id`.

    Raises:
        ResultsError: no such study, or a `trial.json` is unreadable and `skip_broken` is false.
    """
    store = Store(out)
    found = _read_all(store, study, with_epochs=False)
    return [item.record for item in _usable(found, skip_broken, problems=[])]


def read_results(out: str | Path, study: str, *, skip_broken: bool = False) -> pd.DataFrame:
    """The table of a study: one row a (trial, epoch), by `trial_id`, then `epoch`.

    Columns: study, trial_id, status, seed, epoch, ``config.<dotted spec path>`` (lists as tuples), data.train_images,
    data.fingerprint, then train.*, test.*, experts.* and cost.* as `EPOCH_COLUMNS` names them. A trial without epochs
    keeps one row, whose epoch is NaN. All trials of the study's folder are in the table, also those that an earlier
    version of the study asked for.

    Args:
        skip_broken: leave out trials with an unreadable file, and list the messages in ``frame.attrs["problems"]``.

    Raises:
        ResultsError: no such study, or a file is unreadable and `skip_broken` is false; the message names the file.
    """
    problems: list[str] = []
    found = list(_usable(_read_all(Store(out), study, with_epochs=True), skip_broken, problems))
    frame = _table(found)
    frame.attrs["problems"] = problems
    return frame


def read_embeddings(out: str | Path, study: str, trial_id: str) -> Arrays:
    """What a finished trial says of each image of the fixed test set.

    Returns:
        mu (B, Z) float32, label (B,) int64, expert (B,) int64, gate (B, E) float32, image (B, 28, 28) uint8,
        reconstruction (B, 28, 28) float16 in [0, 1]. For data that were drawn also style (B,) int64 and
        parameter (B, P) float32, whose names are in the trial's record (`DataFacts`).

    Raises:
        ResultsError: no such trial, it kept none, or the file is unreadable.
    """
    return _trial(out, study, trial_id).read_embeddings()


def read_weights(out: str | Path, study: str, trial_id: str) -> Arrays:
    """Final weights of a finished trial, name -> array. Raises ResultsError when absent or unreadable."""
    return _trial(out, study, trial_id).read_weights()


def _trial(out: str | Path, study: str, trial_id: str) -> TrialFolder:
    store = Store(out)
    for name in (study, trial_id):
        _check_name(store, name)
    return TrialFolder(store, study, trial_id)


def _check_name(store: Store, name: str) -> None:
    """A name becomes part of a path, which must not lead out of OUT."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ResultsError(f"{store.out}: {name!r} names nothing there; names are of a-z, 0-9 and '-'")


class _Found(NamedTuple):
    record: TrialRecord
    epochs: Any  # pyarrow.Table | None


def _read_all(store: Store, study: str, *, with_epochs: bool) -> list[_Found | ResultsError | None]:
    """Every trial's files, read in threads after one listing; None for a folder without `trial.json`."""
    _check_name(store, study)
    trials = store.folders(f"{study}/trials")
    if not trials and store.read(f"{study}/study.yaml") is None:
        known = ", ".join(list_studies(store.out)) or "none"
        raise ResultsError(f"{store.path(study)}: no such study (studies there: {known})")

    def read(trial_id: str) -> _Found | ResultsError | None:
        folder = TrialFolder(store, study, trial_id)
        try:
            record = folder.read_record()
            if record is None:
                return None
            return _Found(record, folder.read_epochs() if with_epochs else None)
        except ResultsError as error:
            return error

    with ThreadPoolExecutor(_READERS) as threads:
        return list(threads.map(read, trials))


def _usable(found: list[_Found | ResultsError | None], skip_broken: bool, problems: list[str]) -> Iterator[_Found]:
    for item in found:
        if isinstance(item, ResultsError):
            if not skip_broken:
                raise item
            problems.append(str(item))
        elif item is not None:
            yield item


def _table(found: list[_Found]) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    no_epoch = pa.table({"epoch": pa.nulls(1, pa.int64())})
    epochs = [no_epoch if item.epochs is None or not len(item.epochs) else item.epochs for item in found]
    # The empty part fixes order and types of the columns, also where no trial has an epoch yet.
    measured: pd.DataFrame = pa.concat_tables([empty_epochs(), *epochs], promote_options="permissive").to_pandas()
    described = pd.DataFrame(
        [_describe(item.record) for item in found],
        columns=None if found else ["study", "trial_id", "status", "seed", *_DATA_COLUMNS],
    )
    config = [name for name in described.columns if name.startswith("config.") and not _is_parent(name, described)]
    repeated = described.loc[described.index.repeat([len(part) for part in epochs])].reset_index(drop=True)
    head = [*(repeated[name] for name in ("study", "trial_id", "status", "seed")), measured.pop("epoch")]
    return pd.concat([*head, repeated[config], repeated[_DATA_COLUMNS], measured], axis=1)


def _describe(record: TrialRecord) -> dict[str, Any]:
    """The columns that are the same in every epoch of a trial."""
    spec = record.spec.model_dump(mode="json")
    seed = spec.pop("seed")
    return {
        "study": record.study,
        "trial_id": record.trial_id,
        "status": record.status,
        "seed": seed,
        **_flatten(spec, "config"),
        "data.train_images": record.data.train_images if record.data else None,
        "data.fingerprint": record.data.fingerprint if record.data else None,
    }


def _flatten(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}"
        if isinstance(value, Mapping):
            flat |= _flatten(value, path)
        else:
            flat[path] = tuple(value) if isinstance(value, list) else value
    return flat


def _is_parent(name: str, described: pd.DataFrame) -> bool:
    """`config.objective` is null in a supervised trial; beside `config.objective.name` of others it says nothing."""
    return any(other.startswith(f"{name}.") for other in described.columns)
