"""Searches: a space of parameters, a sampler that proposes, objectives to optimise."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from smoe_ray.columns import COLUMNS, EPOCHS, LOSS_COLUMNS
from smoe_ray.spec.base import Spec
from smoe_ray.spec.messages import nearest
from smoe_ray.spec.study import GridStudy, StudyBase
from smoe_ray.spec.trial import TrialSpec, check_trial_path, plugin_paths

SCALAR_METRICS: tuple[str, ...] = tuple(column.name for column in EPOCHS if column.objective)
"""Result columns that a search may optimise."""

Metric = Annotated[str, Field(json_schema_extra={"enum": list(SCALAR_METRICS)})]
When = dict[str, Any]
"""Path of another parameter: the value, or the list of values, at which this one is sampled."""


class FloatRange(Spec):
    """A continuous parameter."""

    type: Literal["float"]
    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(default=False, description="sample on a logarithmic scale")
    step: float | None = Field(default=None, gt=0, description="spacing of the values; not together with log")
    when: When | None = Field(default=None, description="only where these hold")

    _plain_when = field_validator("when")(lambda when: _plain(when))

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _check_range(self.low, self.high, self.log)
        if self.log and self.step is not None:
            raise ValueError("'step' and 'log' exclude one another")
        return self

    @property
    def top(self) -> float:
        """The highest value: `high`, or the last one that whole steps from `low` reach."""
        if self.step is None:
            return self.high
        low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
        return float(low + (high - low) // step * step)

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values; None where there are too many to list."""
        if self.step is None:
            return (self.low,) if self.low == self.high else None
        number = round((self.top - self.low) / self.step) + 1
        if number > _MOST_VALUES:
            return None
        return tuple(min(self.low + position * self.step, self.top) for position in range(number))

    def contains(self, value: Any) -> bool:
        """Whether the parameter may have this value."""
        return _is_number(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


class IntRange(Spec):
    """A whole-number parameter."""

    type: Literal["int"]
    low: int = Field(description="smallest value")
    high: int = Field(description="largest value")
    log: bool = Field(default=False, description="sample on a logarithmic scale")
    step: int = Field(default=1, ge=1, description="spacing of the values")
    when: When | None = Field(default=None, description="only where these hold")

    _plain_when = field_validator("when")(lambda when: _plain(when))

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _check_range(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ValueError("'step' and 'log' exclude one another")
        return self

    @property
    def top(self) -> int:
        """The highest value: the last one that whole steps from `low` reach."""
        return range(self.low, self.high + 1, self.step)[-1]

    @property
    def values(self) -> Sequence[Any]:
        """All values."""
        return range(self.low, self.high + 1, self.step)

    def contains(self, value: Any) -> bool:
        """Whether the parameter may have this value."""
        return _is_number(value) and value in self.values

    def __str__(self) -> str:
        if len(self.values) <= _MOST_LISTED:
            return ", ".join(map(str, self.values))
        return f"{self.low} to {self.top}" + (f" in steps of {self.step}" if self.step != 1 else "")


class Choices(Spec):
    """A categorical parameter."""

    type: Literal["categorical"]
    choices: tuple[Any, ...] = Field(
        min_length=1, description="the values: numbers, words, true, false, null, lists or mappings"
    )
    when: When | None = Field(default=None, description="only where these hold")

    @field_validator("choices")
    @classmethod
    def _plain(cls, choices: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(map(_plain, choices))

    @property
    def values(self) -> tuple[Any, ...]:
        """All values."""
        return self.choices

    def contains(self, value: Any) -> bool:
        """Whether the parameter may have this value."""
        return any(_is_same(value, choice) for choice in self.choices)

    def __str__(self) -> str:
        return ", ".join(word if isinstance(word, str) else json.dumps(word) for word in self.choices)


Distribution = Annotated[FloatRange | IntRange | Choices, Field(discriminator="type")]


_MOST_LISTED = 20
"""A parameter of no more values is shown by listing them."""

_MOST_VALUES = 100_000
"""A float in more steps counts as continuous."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values of YAML are the same: true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _plain(value: Any) -> Any:
    """A value of YAML as it stays in a spec. Raises ValueError for a date, and for what is no finite number."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    if isinstance(value, dict):
        return {str(key): _plain(below) for key, below in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{value} is no number, word, list or mapping; write text in quotes: '{value}'")


def _check_range(low: float, high: float, log: bool) -> None:
    if low > high:
        raise ValueError(f"low {low} is above high {high}")
    if log and low <= 0:
        raise ValueError("a logarithmic range needs low > 0")


class SearchObjective(Spec):
    """One result column to optimise, as it stands at the end of a trial."""

    metric: Metric = Field(description="result column")
    direction: Literal["minimize", "maximize"] = Field(default="minimize", description="which way is better")

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in SCALAR_METRICS:
            raise ValueError(f"not a result column that can be optimised{nearest(metric, SCALAR_METRICS)}")
        return metric


class SamplerSpec(Spec):
    """Optuna sampler that proposes trials."""

    name: Literal["tpe", "random", "nsga2", "gp", "cmaes"] = Field(default="tpe", description="Optuna's sampler")
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of the proposals")


class PrunerSpec(Spec):
    """Early stopping of hopeless trials, judged on the first objective."""

    name: Literal["none", "median", "asha"] = Field(default="none", description="Optuna's pruner")
    grace_epochs: int = Field(default=3, ge=1, description="epochs before a trial may be pruned")
    reduction_factor: int = Field(default=3, ge=2, description="asha: one in this many goes on at each rung")


_UNIT_PATHS = frozenset(
    {"objective.likelihood"}
    | {
        f"data.{field}"
        for field in ("image", "image.size", "image.channels", "source", "root", "name", "size", "parts")
    }
)
"""Paths of a trial that may decide the unit of its losses: the likelihood, and what images are read, in what format."""


class SearchStudy(StudyBase):
    """Trials proposed one after another by a sampler that learns from the finished ones."""

    kind: Literal["search"]
    space: dict[str, Distribution] = Field(min_length=1, description="dotted path in a trial: what to sample")
    objectives: tuple[SearchObjective, ...] = Field(min_length=1, description="one: best trial; several: Pareto set")
    num_trials: int = Field(ge=1, description="finished trials to reach")
    sampler: SamplerSpec = Field(default=SamplerSpec(), description="who proposes")
    pruner: PrunerSpec = Field(default=PrunerSpec(), description="who stops early; none with several objectives")

    def _facts(self) -> dict[str, Any]:
        objectives = ", ".join(f"{one.direction} {one.metric}" for one in self.objectives)
        space = {path: str(one) for path, one in self.space.items()}
        return {"trials": f"{self.num_trials:,} by {self.sampler.name}", **space, "objectives": objectives}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        choices = {path: one.choices for path, one in self.space.items() if isinstance(one, Choices)}
        below_plugins = plugin_paths(self.base, choices)
        for path, distribution in self.space.items():
            check_trial_path(path, "space", below_plugins)
            for condition in distribution.when or {}:
                if condition not in self.space:
                    raise ValueError(
                        f"space.{path}.when: '{condition}' is not in space{nearest(condition, self.space)}"
                    )
                if self.space[condition].when:
                    raise ValueError(f"space.{path}.when: '{condition}' is itself conditional; conditions are one deep")
                self._check_condition(path, condition)
        self._check_units()
        for family in sorted(_families(self.base, choices)):
            for objective in self.objectives:
                if COLUMNS[objective.metric].family not in (None, family):
                    raise ValueError(
                        f"objectives: models of the family {family} have no {objective.metric} (docs/metrics.md says "
                        "which columns they have)"
                    )
        if len(self.objectives) > 1 and self.pruner.name != "none":
            raise ValueError("pruner: early stopping works with one objective only")
        conditional = any(distribution.when for distribution in self.space.values())
        categorical = any(isinstance(distribution, Choices) for distribution in self.space.values())
        if self.sampler.name == "cmaes" and (conditional or categorical or len(self.objectives) > 1):
            raise ValueError("sampler: cmaes takes numeric, unconditional parameters and one objective; use tpe")
        return self

    def _check_units(self) -> None:
        """Raise ValueError for a loss to optimise whose unit differs from trial to trial."""
        choices = {path: one.choices if isinstance(one, Choices) else () for path, one in self.space.items()}
        sets_unit = next((path for path, values in choices.items() if _may_set_unit(path, values)), None)
        losses = [objective.metric for objective in self.objectives if objective.metric in LOSS_COLUMNS]
        if sets_unit and losses:
            raise ValueError(
                f"objectives: {losses[0]} has another unit with every {sets_unit}, so its values do not compare; "
                "optimise test.psnr (direction: maximize)"
            )

    def _check_condition(self, path: str, condition: str) -> None:
        """Raise ValueError for a value in the `when` of `path` that the parameter `condition` never has."""
        other = self.space[condition]
        wanted = wanted_values(self.space[path], condition)
        if not wanted:
            raise ValueError(f"space.{path}.when: {condition}: no value is listed; give one, or leave 'when' out")
        for value in wanted:
            if not other.contains(value):
                choices = other.choices if isinstance(other, Choices) else ()
                hint = nearest(str(value), [choice for choice in choices if isinstance(choice, str)])
                shown = f"'{value}'" if isinstance(value, str) else json.dumps(value)
                raise ValueError(
                    f"space.{path}.when: {shown} is none of {other}{hint or f', the values of {condition}'}"
                )


def first_objective(study: GridStudy | SearchStudy) -> SearchObjective | None:
    """The objective by which the best trial of a study is chosen; None on several datasets, whose losses have no common
    scale, and with several families of models, which have no measure in common.

    That of a grid is the test loss, or the PSNR where an axis may give the losses different units; of models that
    reconstruct nothing, the linear read-out.
    """
    if isinstance(study, SearchStudy):
        return study.objectives[0]
    if len(study.datasets) > 1:
        return None
    if len(_families(study.base, study.axes)) > 1:
        return None
    if not study.base.model.reconstructs:
        return SearchObjective(metric="test.linear_accuracy", direction="maximize")
    if any(_may_set_unit(path, values) for path, values in study.axes.items()):
        return SearchObjective(metric="test.psnr", direction="maximize")
    return SearchObjective(metric="test.reconstruction")


def _families(base: TrialSpec, values: Mapping[str, Iterable[Any]]) -> set[str]:
    """The families of models of a trial and its variations: `values` by dotted path."""
    named = {one for one in values.get("model.family", ()) if isinstance(one, str)}
    models = (one for one in values.get("model", ()) if isinstance(one, Mapping))
    return {base.model.family, *named, *(str(one.get("family", base.model.family)) for one in models)}


def _may_set_unit(path: str, values: Sequence[Any]) -> bool:
    """Whether these values of an axis or a parameter may change the unit of the losses."""
    below = (f"{path}.{key}" for value in values if isinstance(value, Mapping) for key in value)
    return not _UNIT_PATHS.isdisjoint((path, *below)) or path.startswith("data.parts.")


def wanted_values(parameter: Distribution, condition: str) -> tuple[Any, ...]:
    """The values of parameter `condition` at which `parameter` is sampled: a list in its `when` holds several."""
    wanted = (parameter.when or {})[condition]
    return tuple(wanted) if isinstance(wanted, (list, tuple)) else (wanted,)
