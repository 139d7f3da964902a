"""Checkpoints that were trained elsewhere, as finished trials: their weights are measured as `run_study` measures its
own, and all that reads results reads them.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from smoe_ray.data.files import Map
from smoe_ray.errors import ResultsError, StudyError, TrialError
from smoe_ray.planning import StudyPlan
from smoe_ray.results import Store, TrialRecord
from smoe_ray.results.record import Imported
from smoe_ray.spec import GridStudy, ModelSpec, SearchStudy, TrialSpec
from smoe_ray.study.driver import StudyRun, prepared_cache, run_study
from smoe_ray.study.events import DataProgress, Event, OnEvent, ignore
from smoe_ray.study.trial_queue import TrialQueue
from smoe_ray.study.trial_run import Fit, train_trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from smoe_ray.data import Splits
    from smoe_ray.results import Arrays
    from smoe_ray.training.loop import Epoch


def import_checkpoint(
    file: str | Path,
    study: GridStudy | SearchStudy,
    out: str | Path,
    *,
    seed: int | None = None,
    device: str = "auto",
    cache: str | Path | None = None,
    data_jobs: int | Map = 1,
    on_event: OnEvent = ignore,
) -> TrialRecord:
    """Import a checkpoint of the code that the authors of arXiv:2509.10025 released (`smoe_ray.model.released`).

    Args:
        file: the checkpoint (.pth).
        study: one configuration: model, data, and the objective and training that are said to have made the weights.
            The data are those on which they are measured.
        out: folder or URI of the results.
        seed: which of the study's seeds this is, to tell several checkpoints of one configuration apart; None: its
            first.
        device: that measures: ``auto``, ``cpu`` or ``cuda``.
        cache: as of `run_study`.
        data_jobs: likewise.
        on_event: likewise.

    Returns:
        The record of the finished trial; that of an earlier import if it was of the same file.

    Raises:
        StudyError: the study has several configurations, or its model is of another family, or none of the released
            code's.
        DataError: its data cannot be read.
        ResultsError: the file is no such checkpoint, its weights are not those of the study's model, or another file
            was imported as this trial. Nothing is written then.
        TrialError: the weights cannot be measured.
    """
    from smoe_ray.model.released import from_released, read_released

    study = study.model_copy(update={"base": study.base.model_copy(update={"weights": "imported"})})
    plan = StudyPlan(study)
    trial = _chosen(plan, seed)
    if not isinstance(trial.model, ModelSpec):
        raise StudyError(f"{study.name}: its model family is {trial.model.family}; checkpoints are of smoe_vae")
    checkpoint = read_released(file)
    store = Store(out)
    run = StudyRun(
        plan, store.out, prepared_cache(store, cache), on_event=partial(_progress, on_event), data_jobs=data_jobs
    )
    weights = from_released(checkpoint, trial.model, run.source(trial.data).train.image_shape)
    imported = Imported(file=checkpoint.name, sha256=checkpoint.sha256)
    executor = _Importer(trial, imported, partial(_measured, weights, device))
    records = run_study(plan, out, executor, cache=cache, data_jobs=data_jobs, on_event=on_event)
    [record] = [record for record in records if record.spec.seed == trial.seed]
    if record.status == "failed":
        raise TrialError(f"{checkpoint.name}: {record.error}")
    if (before := record.imported) is not None and before.sha256 != imported.sha256:
        raise ResultsError(
            f"{store.path(study.name)}: seed {trial.seed} was imported from {before.file} (SHA-256 "
            f"{before.sha256[:12]}); take another --seed of the study, or give the study another name"
        )
    return record


class _Importer:
    """An executor that measures given weights for one trial of a study."""

    def __init__(self, trial: TrialSpec, imported: Imported, fit: Fit) -> None:
        self._trial, self._imported, self._fit = trial, imported, fit

    def run(self, run: StudyRun) -> Generator[TrialRecord, None, None]:
        """See `Executor.run`."""
        queue = TrialQueue(run)
        while task := queue.next():
            if task.trial == self._trial:
                queue.started(task)
                task = replace(task, imported=self._imported, wait=True)
                record = train_trial(task, partial(queue.on_epoch, task), self._fit)
                assert record is not None, "it waits for the trial's lock"
                yield queue.ended(record)


def _chosen(plan: StudyPlan, seed: int | None) -> TrialSpec:
    """The trial that a checkpoint is to be."""
    study = plan.study
    if not isinstance(study, GridStudy):
        raise StudyError("kind: a checkpoint is one trial, and a search proposes its own; write a grid")
    seed = study.seeds[0] if seed is None else seed
    if seed not in study.seeds:
        raise StudyError(f"seeds: {seed} is none of {', '.join(map(str, study.seeds))}; add it to the study")
    trials = [trial for trial in plan.known_trials if trial.seed == seed]
    if len(trials) > 1:
        raise StudyError(f"axes: {len(trials)} configurations, and a checkpoint is one; leave out axes and datasets")
    return trials[0]


def _measured(
    weights: dict[str, Tensor], device: str, trial: TrialSpec, data: Splits, _checkpoint: Arrays | None
) -> Iterator[Epoch]:
    from smoe_ray.training.loop import measure

    return measure(trial, data, weights, device)


def _progress(on_event: OnEvent, event: Event) -> None:
    """Pass on the progress of preparing data; the notes on them come again when the study runs."""
    if isinstance(event, DataProgress):
        on_event(event)
