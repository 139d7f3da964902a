"""What a study will take, told from its spec alone: nothing is read, drawn or started."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from smoe_ray.data import Need, describe
from smoe_ray.data.splits import planned_train_images
from smoe_ray.model.cost import model_cost
from smoe_ray.spec import DataSpec, GridStudy, SearchStudy, TrialSpec, check_experts_per_class
from smoe_ray.study.plan import corners, plan_grid

_Number = TypeVar("_Number", int, float)


class Preview(NamedTuple):
    """What a study will take."""

    trials: int
    cells: int
    """Distinct configurations; each is run with every seed. For a search: 1, the base."""
    params_total: tuple[int, int]
    """Smallest and largest model of the study, in parameters; for a search, at the corners of its space."""
    params_active: tuple[int, int]
    """The same for the parameters that one image meets."""
    train_images: tuple[int, int] | None
    """Fewest and most training images of a trial, likewise; None where only the files can tell."""
    flops: float | None
    """Training FLOPs of all trials together; for a search, as if every trial were the base. None as above."""
    needs: tuple[Need, ...]
    """Files and drawings; for a search, those of its base and of the corners."""

    @property
    def absent(self) -> tuple[Need, ...]:
        """What must be there before the study can run."""
        return tuple(need for need in self.needs if need.state == "absent")


def preview(study: GridStudy | SearchStudy) -> Preview:
    """Plan a study without starting anything.

    Raises:
        StudyError, DataError: a trial of the study cannot be.
    """
    if isinstance(study, GridStudy):
        trials = typical = plan_grid(study)
        count, cells = len(trials), len({_without_seed(trial) for trial in trials})
    else:
        trials, typical, count, cells = corners(study), [study.base], study.num_trials, 1
    for trial in trials:
        if trial.data.classes is not None:
            check_experts_per_class(trial, len(trial.data.classes))
    costs = [model_cost(trial.model) for trial in trials]
    images = _all_known(planned_train_images(trial.data) for trial in trials)
    flops = _all_known(map(_training_flops, typical))
    return Preview(
        trials=count,
        cells=cells,
        params_total=_range(cost.params_total for cost in costs),
        params_active=_range(cost.params_active for cost in costs),
        train_images=_range(images) if images else None,
        flops=sum(flops) * count / len(flops) if flops else None,
        needs=_needs(trial.data for trial in [*typical, *trials]),
    )


def _without_seed(trial: TrialSpec) -> str:
    return trial.model_copy(update={"seed": 0}).model_dump_json()


def _training_flops(trial: TrialSpec) -> float | None:
    train_images = planned_train_images(trial.data)
    if train_images is None:
        return None
    budget, cost = trial.training.budget, model_cost(trial.model)
    per_image = cost.flops_train if trial.objective else cost.flops_train_hard
    steps_per_epoch = math.ceil(train_images / trial.training.batch_size)
    return budget.steps(steps_per_epoch) / steps_per_epoch * train_images * per_image


def _all_known(values: Iterable[_Number | None]) -> list[_Number] | None:
    values = list(values)
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _range(values: Iterable[int]) -> tuple[int, int]:
    values = list(values)
    return min(values), max(values)


def _needs(specs: Iterable[DataSpec]) -> tuple[Need, ...]:
    """Each file once, whatever number of trials reads it."""
    distinct = {spec.model_dump_json(exclude={"fraction", "imbalance"}): spec for spec in specs}
    return tuple(dict.fromkeys(need for spec in distinct.values() for need in describe(spec)))
