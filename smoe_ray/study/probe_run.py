"""Probing the finished trials of a study: which are left to be probed, and one of them from its files to its probe."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from smoe_ray import plugins
from smoe_ray.errors import ResultsError, SmoeRayError
from smoe_ray.results import Store, TrialFolder, TrialRecord, read_trials
from smoe_ray.results.probe import StimulusParameter, is_current, weights_sha256, write_probe
from smoe_ray.results.trial import trial_names
from smoe_ray.spec.messages import nearest

Map: TypeAlias = Callable[[Callable[["ProbeTask"], "ProbeOutcome"], Sequence["ProbeTask"]], "Iterator[ProbeOutcome]"]
"""As the built-in `map`: ``LocalExecutor(...).map``, or ``RayExecutor(...).map`` for one Ray task per trial."""


@dataclass(frozen=True)
class ProbeTask:
    """All that a process needs to probe one trial; small and picklable."""

    out: str
    study: str
    trial_id: str


class ProbeOutcome(NamedTuple):
    """How the probe of a trial ended."""

    trial_id: str
    seconds: float
    error: str | None = None
    """Why it could not be measured, in one line."""
    note: str | None = None
    """What it lacks, in one line."""


@dataclass
class ProbePlan:
    """The trials of a study, as far as a probe goes."""

    tasks: list[ProbeTask] = field(default_factory=list)
    """Those to be measured."""
    current: list[str] = field(default_factory=list)
    """Ids of those whose probe is there, and of their weights."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Ids of those that cannot be probed, and why."""


def plan_probes(out: str, study: str, trial_id: str | None = None, *, force: bool = False) -> ProbePlan:
    """Find the trials of a study that are to be probed: those that finished, and have no current probe.

    Args:
        out: folder or URI of the results.
        study: its name.
        trial_id: this trial alone.
        force: also those whose probe is current.

    Raises:
        ResultsError: no such study or trial, the trial cannot be probed, or no trial of the study can.
    """
    store = Store(out)
    records: dict[str, TrialRecord | None] = dict.fromkeys(trial_names(store, study))
    records |= {record.trial_id: record for record in read_trials(out, study, skip_broken=True)}
    if trial_id is not None:
        if trial_id not in records:
            raise ResultsError(f"{store.path(study)}: no trial {trial_id!r}{nearest(trial_id, list(records))}")
        records = {trial_id: records[trial_id]}
    plan = ProbePlan()
    for name, record in records.items():
        if record is None:
            plan.left_out[name] = "has no trial.json that can be read: 'smoe-ray verify' says why"
            continue
        task = ProbeTask(store.out, study, record.trial_id)
        if (problem := _unfit(record)) is not None:
            plan.left_out[record.trial_id] = problem
        elif not force and is_current(TrialFolder(store, study, record.trial_id), record):
            plan.current.append(record.trial_id)
        else:
            plan.tasks.append(task)
    if not plan.tasks and not plan.current:
        [name, problem] = next(iter(plan.left_out.items()), (study, "has no trials"))
        which = "" if trial_id is not None else f"none of {len(records)} trials can be probed, the first "
        raise ResultsError(f"{store.path(study)}: {which}{name} {problem}")
    return plan


def _unfit(record: TrialRecord) -> str | None:
    """Why a trial cannot be probed; None if it can."""
    if record.status != "finished":
        return f"has not finished (it is {record.status}): only a finished trial has its weights"
    if not record.spec.evaluation.save_embeddings:
        return "stored no test images: evaluation.save_embeddings is false; run the study again with true"
    if not record.spec.model.reconstructs:
        return f"is of the model family {record.spec.model.family}: only trials of smoe_vae can be probed"
    if record.spec.model.num_experts < 2:
        return "has a single expert, of which there is nothing to tell apart"
    return None


def probe_trial(task: ProbeTask) -> ProbeOutcome:
    """Measure one trial and write its probe; an error of this package is the outcome, not raised.

    It runs on the CPU, with as many threads as the trial was trained with: their number changes last digits.
    """
    started = time.monotonic()
    try:
        with plugins.blaming():
            note = _probe(task)
    except SmoeRayError as error:
        return ProbeOutcome(task.trial_id, time.monotonic() - started, error=" ".join(str(error).split()))
    return ProbeOutcome(task.trial_id, time.monotonic() - started, note=note)


def _probe(task: ProbeTask) -> str | None:
    import torch

    from smoe_ray.data.controlled_sketches import PARAMETERS
    from smoe_ray.training.inference import load_model
    from smoe_ray.training.probe import probe_model
    from smoe_ray.training.probe.targets import TARGETS

    folder = TrialFolder(Store(task.out), task.study, task.trial_id)
    model = load_model(task.out, task.study, task.trial_id)
    digest = weights_sha256(folder, model.record)
    kept = folder.read_embeddings()
    before = torch.get_num_threads()
    torch.set_num_threads(model.record.spec.resources.cpus)
    try:
        probed = probe_model(model.network, kept["image"], model.ink, model.record.spec.seed)
    finally:
        torch.set_num_threads(before)
    facts = {
        "smoe_ray": importlib.metadata.version("smoe-ray"),
        "weights_sha256": digest,
        "targets": tuple(target.name for target in TARGETS),
        "parameters": tuple(StimulusParameter(name=each.name, unit=each.unit) for each in PARAMETERS),
        "hidden": probed.hidden,
        "ink": probed.ink,
    }
    write_probe(folder, {**probed.arrays, "label": kept["label"]}, facts)
    return None if probed.hidden is not None else "without hidden maps, which its decoders do not show"
