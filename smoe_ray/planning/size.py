"""How many trials a study asks for, by multiplication: known before any of them is made."""

from __future__ import annotations

import math

from smoe_ray.errors import StudyError
from smoe_ray.spec import Choices, GridStudy, SearchStudy

MAX_TRIALS = 20_000
"""A study with more trials to plan is refused: planning them would take minutes, in silence, and gigabytes."""


def trials_to_plan(study: GridStudy | SearchStudy) -> int:
    """Trials of a grid, those that occur twice included; the corners of a search space, without its conditions."""
    if isinstance(study, GridStudy):
        return study.num_combinations
    ends = {path: len(one.choices) if isinstance(one, Choices) else 2 for path, one in study.space.items()}
    return sum(ends.values()) + math.prod(count for path, count in ends.items() if path.startswith("model."))


def refuse_too_many(study: GridStudy | SearchStudy) -> None:
    """Raise StudyError if a study has more than `MAX_TRIALS` trials to plan or, as a search, to reach."""
    trials = trials_to_plan(study)
    if isinstance(study, GridStudy):
        factors = [f"{len(values):,} values of {path}" for path, values in study.varied.items()]
        what = f"{trials:,} trials ({' x '.join([*factors, f'{len(study.seeds):,} seeds'])})"
    elif study.num_trials > MAX_TRIALS:
        trials, what = study.num_trials, f"num_trials: {study.num_trials:,}"
    else:
        what = f"{trials:,} corners of the space"
    if trials > MAX_TRIALS:
        raise StudyError(f"study {study.name}: {what}; a study may have {MAX_TRIALS:,}: split it into several")
