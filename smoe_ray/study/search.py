"""A search under way: what to train next, when to stop a trial, when enough are done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smoe_ray.errors import StudyError
from smoe_ray.results import Row, Store, TrialFolder, TrialRecord
from smoe_ray.spec import SearchStudy
from smoe_ray.study.events import StudyStarted
from smoe_ray.study.journal import Journal
from smoe_ray.study.plan import (
    final_values,
    make_pruner,
    make_sampler,
    parameters_of,
    reports,
    suggest,
)
from smoe_ray.study.run import StudyRun, TrialTask, is_settled, started_trials


class Search:
    """Ask and tell between Optuna and an executor; the history that Optuna learns from is what OUT holds.

    A search counts trials that finished or were pruned, in this process or in any other that runs the same search on
    the same OUT. Trials that were killed are proposed again first, and go on at their checkpoint.

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
        self._spent: set[str] = set()
        """Trials that count."""
        self._running: dict[str, Any] = {}
        """trial_id -> (Optuna's trial, last epoch reported to it)"""
        self._wasted = 0

        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._journal = Journal(self.study, self._store)
        history = self._past()
        self._optuna = optuna.create_study(
            directions=[objective.direction for objective in self.study.objectives],
            sampler=make_sampler(self.study, trials_before=len(history)),
            pruner=make_pruner(self.study),
        )
        self._remember(history)
        self._journal.write()
        for record in history:
            values = parameters_of(self.study, record.spec)
            if values is not None and not is_settled(record, self.run.retry_failed):
                self._seen.discard(record.trial_id)
                self._optuna.enqueue_trial(values)
        run.emit(StudyStarted(self.study.name, self.study.num_trials, len(self._spent)))

    def next(self) -> TrialTask | None:
        """The next trial to train; None while those that run may be enough, and when all is done.

        Raises:
            StudyError: proposals repeat or trials fail again and again.
        """
        while True:
            self._remember(self._past())
            if len(self._spent) + len(self._running) >= self.study.num_trials:
                return None
            if self._wasted > self.study.num_trials:
                if self._running:
                    return None
                raise StudyError(
                    f"study {self.study.name}: {len(self._spent)} of {self.study.num_trials} trials are done, but "
                    f"{self._wasted} proposals failed or were repeated; mend the failures, widen 'space' or lower "
                    "'num_trials'"
                )
            proposal = self._optuna.ask()
            task = self.run.task(suggest(proposal, self.study))
            if task.trial_id in self._seen:
                self._give_up(proposal)
                continue
            self._seen.add(task.trial_id)
            self._running[task.trial_id] = (proposal, 0)
            return task

    def judge(self, trial_id: str, rows: Sequence[Row]) -> str | None:
        """Report a trial's epochs to the pruner; a reason: stop it."""
        proposal, reported = self._running[trial_id]
        values = {epoch: value for epoch, value in reports(self.study, rows).items() if epoch > reported}
        for epoch, value in values.items():
            proposal.report(value, epoch)
        self._running[trial_id] = (proposal, max(values, default=reported))
        if values and proposal.should_prune():
            return f"worse than the others at epoch {max(values)} ({self.study.pruner.name} pruner)"
        return None

    def ended(self, record: TrialRecord) -> None:
        """Tell the sampler how a trial ended. May be called again when OUT did not answer.

        Raises:
            ResultsError: OUT cannot be read or written.
        """
        rows = self._rows(record)
        if record.trial_id in self._running:
            self._tell(record, rows)
        self._journal.add(record, rows)
        if len(self._spent) >= self.study.num_trials:
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
            self._give_up(proposal)
            return
        self._spent.add(record.trial_id)

    def _give_up(self, proposal: Any) -> None:
        import optuna

        self._optuna.tell(proposal, state=optuna.trial.TrialState.FAIL)
        self._wasted += 1

    def _past(self) -> list[TrialRecord]:
        """Records of OUT that this process has not seen yet and does not train."""
        ids = set(self._store.folders(f"{self.study.name}/trials")) - self._seen
        return started_trials(self.run.out, self.study.name, only=ids) if ids else []

    def _remember(self, records: Sequence[TrialRecord]) -> None:
        from optuna.trial import TrialState

        for record in records:
            if record.status == "running":  # by another process, or killed: looked at again
                continue
            self._seen.add(record.trial_id)
            past = self._journal.add(record, self._rows(record))
            if past is not None and past.state != TrialState.FAIL:
                self._optuna.add_trial(past)
                self._spent.add(record.trial_id)
                self.run.settled[record.trial_id] = record

    def _rows(self, record: TrialRecord) -> list[Row]:
        return TrialFolder(self._store, self.study.name, record.trial_id).read_rows()
