"""A search under way: which trial to train next, when to stop one, and when the search is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smoe_ray.columns import count
from smoe_ray.errors import StudyError
from smoe_ray.inspect.journal import Journal
from smoe_ray.inspect.past_trials import final_values, reports
from smoe_ray.planning import parameters_of, suggest, trial_of
from smoe_ray.results import Row, Store, TrialFolder, TrialRecord
from smoe_ray.results.trial import trial_names
from smoe_ray.spec import SearchStudy
from smoe_ray.study.driver import StudyRun, started_trials
from smoe_ray.study.events import Notice, StudyStarted
from smoe_ray.study.sampler import make_pruner, make_sampler
from smoe_ray.study.trial_run import TrialTask, is_settled


class SearchSource:
    """Optuna's ask-and-tell loop as a `TrialSource`. Optuna learns from the trials in OUT, whoever trained them.

    The search counts trials that finished or were pruned, in this process or in any other that runs the same search on
    the same OUT. Trials that were killed are proposed again first, and resume from their checkpoint.

    Raises:
        StudyError: the sampler cannot be made.
    """

    def __init__(self, run: StudyRun) -> None:
        assert isinstance(run.study, SearchStudy)
        self.run = run
        self.study: SearchStudy = run.study
        self._store = Store(run.out)
        self._seen: set[str] = set()
        """Trials that will not be proposed (again)."""
        self._counted: set[str] = set()
        """Trials that count towards `num_trials`."""
        self._running: dict[str, Any] = {}
        """trial_id -> (Optuna's trial, last epoch reported to it)"""
        self._wasted_proposals = 0
        self._num_trials = run.plan.total
        self._is_space_told = False

        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._journal = Journal(self.study, self._store)
        history = self._new_records()
        self._optuna = optuna.create_study(
            directions=[objective.direction for objective in self.study.objectives],
            sampler=make_sampler(self.study, trials_before=len(history)),
            pruner=make_pruner(self.study),
        )
        self._learn(history)
        self._journal.write()
        for record in history:
            values = parameters_of(self.study, record.spec)
            if values is not None and not is_settled(record, self.run.retry_failed):
                self._seen.discard(record.trial_id)
                self._optuna.enqueue_trial(values)
        run.emit(StudyStarted(self.study.name, self._num_trials, len(self._counted)))

    def next(self) -> TrialTask | None:
        """The next trial to train; None while the running ones may be enough, and when the search is done.

        A search whose space has no more trials than `num_trials` trains each of them once.

        Raises:
            StudyError: more proposals than `num_trials` were repeats or failed.
        """
        while True:
            self._learn(self._new_records())
            if len(self._counted) + len(self._running) >= self._num_trials:
                if not self._running:
                    self._tell_small_space()
                return None
            if self._wasted_proposals > self.study.num_trials and self.run.plan.points is None:
                if self._running:
                    return None
                raise StudyError(
                    f"study {self.study.name}: {len(self._counted)} of {self.study.num_trials} trials are done, but "
                    f"{self._wasted_proposals} proposals failed or were repeated; fix the failures, widen 'space' or "
                    "lower 'num_trials'"
                )
            proposal = self._optuna.ask()
            task = self.run.task(suggest(proposal, self.study))
            if task.trial_id in self._seen:
                self._discard(proposal)
                if self.run.plan.points is not None and not self._enqueue_unseen(self.run.plan.points):
                    if not self._running:
                        self._tell_small_space()
                    return None
                continue
            self._seen.add(task.trial_id)
            self._running[task.trial_id] = (proposal, 0)
            return task

    def _enqueue_unseen(self, points: Sequence[dict[str, Any]]) -> bool:
        """Make the next proposal one that was not seen yet; False if all were."""
        for values in points:
            if self.run.task(trial_of(self.study, values)).trial_id not in self._seen:
                self._optuna.enqueue_trial(values)
                return True
        return False

    def _tell_small_space(self) -> None:
        """Emit a notice if the space, not `num_trials`, ended the search."""
        if self._num_trials < self.study.num_trials and not self._is_space_told:
            self._is_space_told = True
            done, space = len(self._counted), count(self._num_trials, "trial")
            said = "all done" if done >= self._num_trials else f"all tried, {done} of them done"
            self.run.emit(Notice(f"the space has {space}, {said} (num_trials is {self.study.num_trials})"))

    def on_epoch(self, trial_id: str, rows: Sequence[Row], /) -> str | None:
        """Report a trial's new epochs to the pruner; a reason stops the trial."""
        proposal, reported = self._running[trial_id]
        values = {epoch: value for epoch, value in reports(self.study, rows).items() if epoch > reported}
        for epoch, value in values.items():
            proposal.report(value, epoch)
        self._running[trial_id] = (proposal, max(values, default=reported))
        if values and proposal.should_prune():
            return f"worse than the others at epoch {max(values)} ({self.study.pruner.name} pruner)"
        return None

    def ended(self, record: TrialRecord) -> None:
        """Tell Optuna how a trial ended. May be called again after a StorageError.

        Raises:
            ResultsError: OUT cannot be read or written.
        """
        rows = self._rows(record)
        if record.trial_id in self._running:
            self._tell(record, rows)
        self._journal.add(record, rows)
        if len(self._counted) >= self._num_trials:
            self._journal.write()

    def _tell(self, record: TrialRecord, rows: Sequence[Row]) -> None:
        from optuna.trial import TrialState

        proposal, _ = self._running.pop(record.trial_id)
        values = final_values(self.study, rows) if record.status == "finished" else None
        if values is not None:
            self._optuna.tell(proposal, values)
        elif record.status == "pruned":
            self._optuna.tell(proposal, state=TrialState.PRUNED)
        else:
            self._discard(proposal)
            return
        self._counted.add(record.trial_id)

    def _discard(self, proposal: Any) -> None:
        import optuna

        self._optuna.tell(proposal, state=optuna.trial.TrialState.FAIL)
        self._wasted_proposals += 1

    def _new_records(self) -> list[TrialRecord]:
        """Records in OUT that this process has neither seen yet nor trains itself."""
        ids = set(trial_names(self._store, self.study.name)) - self._seen
        return started_trials(self.run, only=ids) if ids else []

    def _learn(self, records: Sequence[TrialRecord]) -> None:
        from optuna.trial import TrialState

        for record in records:
            if record.status == "running":  # in another process, or killed: checked again later
                continue
            self._seen.add(record.trial_id)
            past = self._journal.add(record, self._rows(record))
            if past is not None and past.state != TrialState.FAIL:
                self._optuna.add_trial(past)
                self._counted.add(record.trial_id)
                self.run.settled[record.trial_id] = record

    def _rows(self, record: TrialRecord) -> list[Row]:
        return TrialFolder(self._store, self.study.name, record.trial_id).read_rows()
