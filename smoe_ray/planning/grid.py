"""The trials of a grid study."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

from smoe_ray.planning.size import refuse_too_many
from smoe_ray.spec import GridStudy, TrialSpec


def plan_grid(study: GridStudy) -> list[TrialSpec]:
    """All combinations of the axes' values, the first axis varying slowest, each with every seed; no trial twice.

    Raises:
        StudyError: a combination is not a valid trial, or there are more than `MAX_TRIALS`.
    """
    return list(trials_by_identity(study).values())


def trials_by_identity(study: GridStudy) -> dict[str, TrialSpec]:
    """The trials of `plan_grid`, in its order, keyed by `identity_of` each trial. Raises StudyError as that does."""
    refuse_too_many(study)
    trials: dict[str, TrialSpec] = {}
    for values in itertools.product(*study.axes.values()):
        configuration = study.trial_with(dict(zip(study.axes, values, strict=True)))
        identity = configuration.identity()
        for seed in study.seeds:
            trials.setdefault(_canonical(identity | {"seed": seed}), configuration.model_copy(update={"seed": seed}))
    return trials


def identity_of(trial: TrialSpec) -> str:
    """Canonical JSON of all that determines a trial's numbers except its data; equal only for equal trials."""
    return _canonical(trial.identity())


def _canonical(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)
