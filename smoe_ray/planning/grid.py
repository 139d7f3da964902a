"""The trials of a grid study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from smoe_ray.errors import StudyError
from smoe_ray.planning.size import refuse_too_many
from smoe_ray.spec import GridStudy, TrialSpec, roots


def plan_grid(study: GridStudy) -> list[TrialSpec]:
    """All combinations of the axes' values on every dataset, the first axis varying slowest, each with every seed; no
    trial twice.

    Raises:
        StudyError: a combination is not a valid trial, two of them differ only in where their data lie, or there are
            more than `MAX_TRIALS`.
    """
    return list(trials_by_identity(study).values())


def trials_by_identity(study: GridStudy) -> dict[str, TrialSpec]:
    """The trials of `plan_grid`, in its order, keyed by `identity_of` each trial. Raises StudyError as that does."""
    refuse_too_many(study)
    trials: dict[str, TrialSpec] = {}
    for values in study.combinations():
        configuration = study.trial_with(values)
        identity = _identity(configuration)
        for seed in study.seeds:
            trial = configuration.model_copy(update={"seed": seed})
            planned = trials.setdefault(_canonical(identity | {"seed": seed}), trial)
            if (
                planned is not trial and planned.data != trial.data and roots(planned.data) != roots(trial.data)
            ):  # only what is in the files could tell them apart
                raise StudyError(
                    "axes: two combinations differ only in where their data lie (data.root); give each a name under "
                    "'datasets'"
                )
    return trials


def identity_of(trial: TrialSpec) -> str:
    """Canonical JSON of all that determines a trial's numbers except its data, of which it has the name, if there is
    one; equal only for equal trials of a study.
    """
    return _canonical(_identity(trial))


def _identity(trial: TrialSpec) -> dict[str, Any]:
    # Two datasets may be read alike from two folders: then only their names tell them apart.
    return trial.identity() | ({"dataset": trial.dataset} if trial.dataset is not None else {})


def _canonical(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)
