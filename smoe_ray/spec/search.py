"""Searches: a space of parameters, a sampler that proposes, objectives to optimise."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from smoe_ray.columns import EPOCHS
from smoe_ray.spec.base import Spec
from smoe_ray.spec.messages import nearest
from smoe_ray.spec.study import StudyBase
from smoe_ray.spec.trial import check_trial_path, plugin_paths

SCALAR_METRICS: tuple[str, ...] = tuple(column.name for column in EPOCHS if column.objective)
"""Result columns that a search may optimise."""

Metric = Annotated[str, Field(json_schema_extra={"enum": list(SCALAR_METRICS)})]
Scalar = bool | int | float | str | None


class FloatRange(Spec):
    """A continuous parameter."""

    type: Literal["float"]
    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(default=False, description="sample on a logarithmic scale")
    step: float | None = Field(default=None, gt=0, description="spacing of the values; not together with log")
    when: dict[str, Scalar | tuple[Scalar, ...]] | None = Field(default=None, description="only where these hold")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _check_range(self.low, self.high, self.log)
        if self.log and self.step is not None:
            raise ValueError("'step' and 'log' exclude one another")
        return self


class IntRange(Spec):
    """A whole-number parameter."""

    type: Literal["int"]
    low: int = Field(description="smallest value")
    high: int = Field(description="largest value")
    log: bool = Field(default=False, description="sample on a logarithmic scale")
    step: int = Field(default=1, ge=1, description="spacing of the values")
    when: dict[str, Scalar | tuple[Scalar, ...]] | None = Field(default=None, description="only where these hold")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _check_range(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ValueError("'step' and 'log' exclude one another")
        return self


class Choices(Spec):
    """A categorical parameter."""

    type: Literal["categorical"]
    choices: tuple[Scalar, ...] = Field(min_length=1, description="the values")
    when: dict[str, Scalar | tuple[Scalar, ...]] | None = Field(default=None, description="only where these hold")


Distribution = Annotated[FloatRange | IntRange | Choices, Field(discriminator="type")]


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


class SearchStudy(StudyBase):
    """Trials proposed one after another by a sampler that learns from the finished ones."""

    kind: Literal["search"]
    space: dict[str, Distribution] = Field(min_length=1, description="dotted path in a trial: what to sample")
    objectives: tuple[SearchObjective, ...] = Field(min_length=1, description="one: best trial; several: Pareto set")
    num_trials: int = Field(ge=1, description="finished trials to reach")
    sampler: SamplerSpec = Field(default=SamplerSpec(), description="who proposes")
    pruner: PrunerSpec = Field(default=PrunerSpec(), description="who stops early; none with several objectives")

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
        if len(self.objectives) > 1 and self.pruner.name != "none":
            raise ValueError("pruner: early stopping works with one objective only")
        conditional = any(distribution.when for distribution in self.space.values())
        categorical = any(isinstance(distribution, Choices) for distribution in self.space.values())
        if self.sampler.name == "cmaes" and (conditional or categorical or len(self.objectives) > 1):
            raise ValueError("sampler: cmaes takes numeric, unconditional parameters and one objective; use tpe")
        return self
