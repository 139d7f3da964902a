"""A search's history in Optuna's journal format, next to the results: for `optuna-dashboard` and Optuna's plots.

A copy that nothing depends on: it is rebuilt from the trials in OUT whenever the search is run. A journal is JSON
lines, and nothing in it is unpickled: Optuna pickles only snapshots, which the backend here does not keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.columns import Direction
from smoe_ray.errors import ResultsError
from smoe_ray.inspect.past_trials import past_trial
from smoe_ray.results import Row, Store, TrialRecord
from smoe_ray.spec import SearchStudy

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

JOURNAL = "optuna.journal"
"""Name of the file in the study's folder."""


class Journal:
    """Writes the journal. Trials that are not part of this search, e.g. of an earlier version of it, are left out."""

    def __init__(self, study: SearchStudy, store: Store) -> None:
        self._study, self._store = study, store
        self._lines = _lines()
        self._copy = _create(
            self._lines, study.name, *zip(*((one.metric, one.direction) for one in study.objectives), strict=True)
        )
        self._known: set[str] = set()
        self._added = self._written = 0

    def add(self, record: TrialRecord, rows: Sequence[Row]) -> FrozenTrial | None:
        """Append a trial that has ended; a second time does nothing. Raises ResultsError if OUT cannot be written.

        Returns:
            The trial as Optuna stores it; None if it is not part of this search.
        """
        trial = past_trial(self._study, record, rows)
        if trial is not None and record.trial_id not in self._known:
            self._known.add(record.trial_id)
            self._copy.add_trial(trial)
            self._added += 1
        # The whole file is rewritten each time: only after 1 % more trials, so that the total work stays linear.
        if self._added > 1.01 * self._written:
            self.write()
        return trial

    def write(self) -> None:
        """Update the file in OUT. Raises ResultsError if OUT cannot be written."""
        self._store.write(f"{self._study.name}/{JOURNAL}", _text(self._lines))
        self._written = self._added


def journal_text(
    name: str, metrics: Sequence[str], directions: Sequence[Direction], trials: Iterable[FrozenTrial]
) -> bytes:
    """A journal of these trials, whole: what Optuna's ``JournalFileBackend`` reads."""
    lines = _lines()
    _create(lines, name, metrics, directions).add_trials(trials)
    return _text(lines)


def _create(lines: Any, name: str, metrics: Sequence[str], directions: Sequence[Direction]) -> optuna.Study:
    import optuna

    storage = optuna.storages.JournalStorage(lines)
    made = optuna.create_study(study_name=name, storage=storage, directions=list(directions))
    made.set_user_attr("objectives", list(metrics))
    return made


def _text(lines: Any) -> bytes:
    return "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in lines.read_logs(0)).encode()


class History(NamedTuple):
    """What a search has tried so far, as Optuna sees it."""

    metrics: tuple[str, ...]
    """Result column of each objective."""
    directions: tuple[Direction, ...]
    """Of each objective: ``minimize`` or ``maximize``."""
    trials: tuple[FrozenTrial, ...]
    """Those that have ended, in that order; `user_attrs` has `trial_id` and `why`, the pruning reason or the error."""


def parse_journal(content: bytes, study: SearchStudy) -> History:
    """Parse the content of a journal. It may contain arbitrary text: escape it before showing it.

    Raises:
        ResultsError: it is not a journal of this search.
    """
    import optuna

    try:
        lines = _lines(json.loads(line) for line in content.splitlines())
        stored = optuna.load_study(study_name=study.name, storage=optuna.storages.JournalStorage(lines))
        trials = [trial for trial in stored.get_trials(deepcopy=False) if trial.state.is_finished()]
    except Exception as error:  # Optuna raises whatever the damage happens to cause
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ResultsError(f"{JOURNAL} is no journal of Optuna {optuna.__version__}: {reason}") from None
    history = _history(study, trials)
    directions = tuple(direction.name.lower() for direction in stored.directions)
    if directions != history.directions or not all(set(trial.params) <= set(study.space) for trial in trials):
        raise ResultsError(f"{JOURNAL} is of another version of the search; run it again to renew the file")
    return history


def history_from_trials(
    study: SearchStudy, records: Iterable[TrialRecord], rows: Mapping[str, Sequence[Row]]
) -> History:
    """What the journal would contain, from the trials themselves. `rows`: trial_id -> epochs."""
    in_order = sorted(records, key=lambda record: record.timings.finished_at or record.timings.started_at)
    trials = (past_trial(study, record, rows.get(record.trial_id, ())) for record in in_order)
    return _history(study, [trial for trial in trials if trial is not None])


def _history(study: SearchStudy, trials: Sequence[FrozenTrial]) -> History:
    for number, trial in enumerate(trials):
        trial.number = number
    metrics, directions = zip(*((one.metric, one.direction) for one in study.objectives), strict=True)
    return History(metrics, directions, tuple(trials))


def _lines(entries: Iterable[dict[str, Any]] = ()) -> Any:
    """A journal backend in memory: Optuna's own backends need a local file, and OUT may be an object store."""
    from optuna.storages.journal import BaseJournalBackend

    class Lines(BaseJournalBackend):
        def __init__(self) -> None:
            self._entries: list[dict[str, Any]] = list(entries)

        def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
            return self._entries[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self._entries += logs

    return Lines()
