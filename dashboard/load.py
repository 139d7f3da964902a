"""Cached reads of OUT. A file is read again only after a change; nothing is written, nothing is unpickled."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import streamlit as st

from smoe_ray.errors import ResultsError, SmoeRayError
from smoe_ray.results import Store, StudyReader, TrialRecord, list_studies, read_embeddings
from smoe_ray.results.study_file import study_text
from smoe_ray.results.trial import Arrays, TrialFolder
from smoe_ray.spec import GridStudy, SearchStudy, parse_study

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from smoe_ray.inspect.status import StudyStatus
    from smoe_ray.planning import StudyPlan

Value = TypeVar("Value")

_MAX_BYTES = {"study.yaml": 1_000_000, "optuna.journal": 64_000_000}
_MAX_BYTES_OF_TRIAL = 512_000_000
_MIN_SECONDS = 1.0
"""Minimum interval between two refreshes of a study."""
_SHARE_OF_TIME = 10.0
"""A slow refresh is repeated only after this multiple of its own duration."""
_QUICK_SECONDS = 0.3
"""A refresh no slower than this is done in the foreground."""


# --- command line -----------------------------------------------------------------------------------------------------


class Arguments(NamedTuple):
    """The command line, after Streamlit's ``--``."""

    out: str
    address: str | None
    annotate: bool


def arguments() -> Arguments:
    """Read from the command line."""
    parser = argparse.ArgumentParser(prog="smoe-ray dashboard")
    parser.add_argument("out")
    parser.add_argument("--address")
    parser.add_argument("--annotate", action="store_true")
    return Arguments(**vars(parser.parse_args(sys.argv[1:])))


def out() -> str:
    """Folder or URI with the results."""
    return arguments().out


def address() -> str | None:
    """Head of the Ray cluster that the Submit page talks to; None where there is no such page."""
    return arguments().address


# --- studies ----------------------------------------------------------------------------------------------------------


class Trials(NamedTuple):
    """Snapshot of the trials of a study. Shared between sessions: do not modify."""

    version: str
    """Changes with every file of the study: the cache key of everything computed from it."""
    records: dict[str, TrialRecord]
    """By trial_id."""


class Results(NamedTuple):
    """Snapshot with the table of `read_results`, unreadable trials left out. Shared between sessions: do not modify."""

    version: str
    table: pd.DataFrame
    records: dict[str, TrialRecord]
    problems: tuple[str, ...]
    """Files that could not be read, one line per file."""
    notices: tuple[str, ...]
    """Older trials that the table leaves out, and damaged files of others, one line each."""


def studies() -> list[str]:
    """Names of the studies in OUT, those with a trial that is trained first, then those begun last; folders without a
    study are skipped. Raises ResultsError.
    """
    return _ordered(out())


def _place(study: str) -> tuple[bool, float, str]:
    try:
        records = trials(study).records.values()
        return (
            not any(map(is_trained, records)),
            -max(record.timings.started_at.timestamp() for record in records),
            study,
        )
    except Exception:  # no trial yet, or unreadable, which is said where the study is shown
        return True, 0.0, study


def trials(study: str) -> Trials:
    """The trials without their epochs, which is much faster to read than `results`."""
    return _followed(study).trials()


def results(study: str) -> Results:
    """The trials with their epochs. Raises ResultsError if there is no such study."""
    return _followed(study).results()


def is_read(study: str) -> bool:
    """Whether `results` is cached, and so returns without reading every epoch."""
    return _followed(study).is_read()


def drawn_version(study: str) -> str | None:
    """Version of the results that a page shows which is drawn now; None if it has to read them first."""
    return _followed(study).drawn_version()


def modified(study: str, trial_id: str) -> datetime | None:
    """When the record of a trial was last written, UTC, which is after each epoch."""
    return _followed(study).modified(trial_id)


def file(study: str, name: str) -> bytes | None:
    """Content of ``study.yaml`` or ``optuna.journal``; None if absent. Raises ResultsError if it is too large."""
    return _followed(study).file(name)


def spec(study: str) -> GridStudy | SearchStudy:
    """The study as it was run. Raises ResultsError or StudyError if its file is absent or cannot be read."""
    return _followed(study).plan().study


def question(study: str) -> str:
    """The study's question, or why its file cannot be read."""
    try:
        return spec(study).question
    except (
        Exception
    ) as error:  # a malformed file can make the parser raise anything; the other studies are still listed
        return f"({error})"


def status(study: str, with_best: bool = True) -> StudyStatus:
    """Progress of the study; `with_best` reads its epochs. Raises ResultsError or StudyError as `spec` does."""
    return _followed(study).status(with_best)


def read_ahead(out: str) -> None:
    """Read everything that the first page shows. Errors are ignored here; the page reports them."""
    with suppress(SmoeRayError):
        for study in _studies(out):
            with suppress(Exception):  # a malformed study can raise anything; the others are still read
                _follow(out, study).status(with_best=True)


@st.cache_data(ttl=2, max_entries=4, show_spinner=False)
def _studies(out: str) -> list[str]:
    return list_studies(out)


@st.cache_data(ttl=2, max_entries=4, show_spinner=False)
def _ordered(out: str) -> list[str]:
    return sorted(_studies(out), key=_place)


def _followed(study: str) -> _Followed:
    return _follow(out(), study)


@st.cache_resource(show_spinner=False)  # as many as there are studies
def _follow(out: str, study: str) -> _Followed:
    return _Followed(out, study)


class _Followed:
    """One study, shared by all sessions and refreshed on access, at most once per second.

    Stale-while-revalidate: where a refresh is slow (an object store), the last snapshot is returned and a thread
    refreshes it in the background.
    """

    def __init__(self, out: str, study: str) -> None:
        self._reader = StudyReader(out, study)
        self._lock = threading.RLock()
        self._refreshed_at, self._took = float("-inf"), 0.0
        self._refreshing: threading.Thread | None = None
        self._trials: Trials | None = None
        self._results: Results | None = None
        self._files: dict[str, tuple[str, bytes | None]] = {}
        self._plan: tuple[bytes, StudyPlan] | None = None
        self._current: tuple[tuple[str, StudyPlan], list[TrialRecord]] | None = None
        self._status: dict[bool, tuple[tuple[str, StudyPlan], StudyStatus]] = {}

    def trials(self) -> Trials:
        known = self._trials
        due = time.monotonic() - self._refreshed_at > max(_MIN_SECONDS, _SHARE_OF_TIME * self._took)
        if known is None or (due and self._took < _QUICK_SECONDS):
            with self._lock:
                return self._refresh()
        if due and not self._is_refreshing():
            self._refreshing = threading.Thread(target=self._refresh_in_background, daemon=True)
            self._refreshing.start()
        return known

    def results(self) -> Results:
        trials, known = self.trials(), self._results
        if known is not None and (known.version == trials.version or self._is_refreshing()):
            return known
        with self._lock:
            return self._read()

    def is_read(self) -> bool:
        return self._results is not None

    def drawn_version(self) -> str | None:
        return None if self._results is None else self._results.version

    def modified(self, trial: str) -> datetime | None:
        return self._reader.modified(trial)

    def file(self, name: str) -> bytes | None:
        version, known = self.trials().version, self._files.get(name)
        if known is not None and (known[0] == version or self._is_refreshing()):
            return known[1]
        with self._lock:
            return self._read_file(name)

    def plan(self) -> StudyPlan:
        """The study of study.yaml, parsed again only after a change."""
        from smoe_ray.planning import StudyPlan

        origin = self._reader.store.path(f"{self._reader.study}/study.yaml")
        content = self.file("study.yaml")
        if content is None:
            raise ResultsError(f"{origin}: absent; run the study again, which writes it")
        if self._plan is None or self._plan[0] != content:
            self._plan = content, StudyPlan(parse_study(study_text(content, origin), origin=origin))
        return self._plan[1]

    def status(self, with_best: bool) -> StudyStatus:
        from smoe_ray.inspect.status import current, status_of
        from smoe_ray.planning import MAX_TRIALS, trials_to_plan

        plan = self.plan()
        if isinstance(plan.study, GridStudy):
            planned = trials_to_plan(plan.study)
            if planned > MAX_TRIALS:
                raise ResultsError(
                    f"study '{self._reader.study}': {planned:,} trials are too many to plan on this page"
                )
        found = self.results() if with_best else self.trials()
        state = found.version, plan  # `plan` is a new object after its file has changed
        known, answers = self._status.get(with_best), self._current
        if known is None or known[0] != state:
            if answers is None or answers[0] != state:
                answers = self._current = state, current(plan, found.records.values())
            modified = {trial: self._reader.modified(trial) for trial in found.records}
            table = found.table if isinstance(found, Results) else None
            known = self._status[with_best] = state, status_of(plan, answers[1], table, modified)
        return known[1]

    def _is_refreshing(self) -> bool:
        return self._refreshing is not None and self._refreshing.is_alive()

    def _refresh(self) -> Trials:
        started = time.monotonic()
        self._reader.look()
        self._took = time.monotonic() - started
        if self._trials is None or self._trials.version != self._reader.version:
            self._trials = Trials(self._reader.version, self._reader.records())
        self._refreshed_at = time.monotonic()
        return self._trials

    def _read(self) -> Results:
        trials = self._trials
        if trials is None or trials.version != self._reader.version:  # the table is of the reader's last refresh
            trials = self._refresh()
        if self._results is None or self._results.version != trials.version:
            table = self._reader.table()
            problems, notices = tuple(self._reader.problems()), tuple(self._reader.notices())
            self._results = Results(trials.version, table, trials.records, problems, notices)
            self._refreshed_at = time.monotonic()  # a caller who waited for the table need not refresh at once
        return self._results

    def _read_file(self, name: str) -> bytes | None:
        version = (self._trials or self._refresh()).version
        if name not in self._files or self._files[name][0] != version:
            self._files[name] = version, self._reader.file(name, _MAX_BYTES[name])
        return self._files[name][1]

    def _refresh_in_background(self) -> None:
        with self._lock:
            try:
                self._refresh()
                for name in self._files:
                    self._read_file(name)
                if self._results is not None:
                    self._read()
            except ResultsError:
                self._trials = self._results = None  # the next caller refreshes in the foreground and gets the error


# --- cached computations, and files of a trial ------------------------------------------------------------------------


def cached(compute: Callable[..., Value]) -> Callable[..., Value]:
    """Cache ``compute(study, *arguments)`` until a file of the study changes.

    Arguments must be hashable and the value picklable. Errors are not cached.
    """
    name = f"{compute.__code__.co_filename}:{compute.__qualname__}"

    def look_up(study: str, *given: Any) -> Value:
        kept: Value = _computed(out(), study, results(study).version, name, given, compute)
        return kept

    return look_up


# The cache key is made of all arguments, used or not, except those that begin with an underscore.
@st.cache_data(max_size="200MB", show_spinner="Computing ...")
def _computed(
    out: str,  # noqa: ARG001
    study: str,
    version: str,  # noqa: ARG001
    name: str,  # noqa: ARG001
    given: tuple[Any, ...],
    _compute: Callable[..., Any],
) -> Any:
    return _compute(study, *given)


def is_abandoned(record: TrialRecord) -> bool:
    """Whether no process trains a trial whose record says that it is running; False where that cannot be known."""
    folder = TrialFolder(Store(out()), record.study, record.trial_id)
    if not folder.is_abandoned(record.host):
        return False
    with suppress(ResultsError):
        now = folder.read_record()  # it may have ended, and let go of its lock, since `record` was read
        return now is None or now.status == "running"
    return True


def is_trained(record: TrialRecord) -> bool:
    """Whether a process trains the trial at this moment, as far as that can be known."""
    return record.status == "running" and not is_abandoned(record)


def embeddings(study: str, trial_id: str) -> Arrays:
    """See `read_embeddings`; raises ResultsError if the trial has stored none. Shared, so the arrays are read-only."""
    return _embeddings(out(), study, trial_id, tag(study, trial_id, "embeddings.npz"))


def tag(study: str, trial_id: str, file: str) -> str:
    """Version of a file of a trial; "" if absent. Raises ResultsError if it is too large."""
    store = Store(out())
    name = f"{study}/trials/{trial_id}"
    version = store.files(name).get(f"{name}/{file}")
    if version is None:
        return ""
    if version.size > _MAX_BYTES_OF_TRIAL:
        raise ResultsError(
            f"{store.path(f'{name}/{file}')}: {version.size:,} bytes are too many to load in the dashboard"
        )
    return version.tag


@st.cache_resource(max_entries=4, show_spinner="Reading ...")
def _embeddings(out: str, study: str, trial_id: str, tag: str) -> Arrays:  # noqa: ARG001  # part of the cache key
    arrays = read_embeddings(out, study, trial_id)
    for array in arrays.values():
        array.flags.writeable = False
    return arrays
