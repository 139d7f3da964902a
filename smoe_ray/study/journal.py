"""A search's history in Optuna's own journal format, beside the results: for `optuna-dashboard` and Optuna's plots.

A mirror, never the truth: it is made anew from the trials in OUT whenever the search is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from smoe_ray.results import Row, Store, TrialRecord
from smoe_ray.spec import SearchStudy
from smoe_ray.study.plan import past_trial

JOURNAL = "optuna.journal"
"""Name of the file in the study's folder."""


class Journal:
    """Writes the mirror. Trials of other searches, which an earlier version of the study left, stay out."""

    def __init__(self, study: SearchStudy, store: Store) -> None:
        import optuna

        self._study, self._store = study, store
        self._lines = _lines()
        self._mirror = optuna.create_study(
            study_name=study.name,
            storage=optuna.storages.JournalStorage(self._lines),
            directions=[objective.direction for objective in study.objectives],
        )
        self._mirror.set_user_attr("objectives", [objective.metric for objective in study.objectives])
        self._known: set[str] = set()
        self._added = self._written = 0

    def add(self, record: TrialRecord, rows: Sequence[Row]) -> None:
        """Append a trial that has ended, once. Raises ResultsError when OUT cannot be written."""
        trial = past_trial(self._study, record, rows)
        if trial is not None and record.trial_id not in self._known:
            self._known.add(record.trial_id)
            self._mirror.add_trial(trial)
            self._added += 1
        # Files are written whole: at every hundredth part more, so that the work stays in proportion to the trials.
        if self._added > 1.01 * self._written:
            self.write()

    def write(self) -> None:
        """Bring the file in OUT up to date. Raises ResultsError when OUT cannot be written."""
        text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in self._lines.read_logs(0))
        self._store.write(f"{self._study.name}/{JOURNAL}", text.encode())
        self._written = self._added


def _lines() -> Any:
    """A journal backend in memory: Optuna's own need a local file, and OUT may be an object store."""
    from optuna.storages.journal import BaseJournalBackend

    class Lines(BaseJournalBackend):
        def __init__(self) -> None:
            self._entries: list[dict[str, Any]] = []

        def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
            return self._entries[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self._entries += logs

    return Lines()
