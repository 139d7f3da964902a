"""Optimizer and budget, evaluation, and the resources that a trial occupies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    field_validator,
    model_validator,
)

from smoe_ray.spec.base import Spec


class Budget:
    """How long a trial trains: ``"20 epochs"`` or ``"5000 steps"``. Immutable."""

    __slots__ = ("amount", "unit")
    amount: int
    unit: Literal["epochs", "steps"]

    def __init__(self, amount: int, unit: Literal["epochs", "steps"]) -> None:
        object.__setattr__(self, "amount", amount)
        object.__setattr__(self, "unit", unit)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("Budget is immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        return Budget, (self.amount, self.unit)

    @classmethod
    def parse(cls, value: Any) -> Budget:
        """Read ``"<n> epochs"`` or ``"<n> steps"``. Raises ValueError on anything else."""
        if isinstance(value, Budget):
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,11}) (epoch|step)s?", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("a budget is written '20 epochs' or '5000 steps'")
        return cls(int(match[1]), "epochs" if match[2] == "epoch" else "steps")

    def steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole trial when one pass over the data takes `steps_per_epoch`."""
        return self.amount * steps_per_epoch if self.unit == "epochs" else self.amount

    def epochs(self, steps_per_epoch: int) -> int:
        """Epochs of the whole trial; the last may be cut short."""
        return -(-self.steps(steps_per_epoch) // steps_per_epoch)

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


_BudgetField = Annotated[
    Budget,
    BeforeValidator(Budget.parse),
    PlainSerializer(str, return_type=str),
]


class TrainingSpec(Spec):
    """Optimizer (Adam), budget and numerical options."""

    budget: _BudgetField = Field(
        default=Budget(20, "epochs"), description="'20 epochs' (passes) or '5000 steps' (updates)"
    )
    batch_size: int = Field(default=128, ge=1, description="images an optimizer step (B), over all workers")
    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step size")
    beta: float = Field(default=0.01, ge=0, description="weight of the KL term (nats an image)")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16: autocast of forward and backward")
    compile: bool = Field(default=False, description="train through torch.compile")

    model_config = ConfigDict(arbitrary_types_allowed=True)


class EvaluationSpec(Spec):
    """How `test.*` is measured, on the fixed test set."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"save_embeddings"})

    gating: Literal["hard", "soft"] = Field(
        default="hard", description="what test.reconstruction uses; hard: the argmax expert alone"
    )
    latent: Literal["mean", "sample"] = Field(
        default="mean", description="z = mu, or z drawn from the posterior (authors' code)"
    )
    every: int = Field(
        default=1, ge=1, description="epochs between two evaluations; the last epoch is always evaluated"
    )
    save_embeddings: bool = Field(
        default=True, description="keep embeddings.npz (latent, expert, reconstruction of each test image)"
    )


class WorkerRange(Spec):
    """An elastic number of data-parallel workers: training goes on with what the cluster has."""

    min: int = Field(ge=1, le=1024, description="fewest workers to train with")
    max: int = Field(ge=1, le=1024, description="most workers to train with")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


def _kind_of_workers(value: Any) -> str:
    return "range" if isinstance(value, (Mapping, WorkerRange)) else "number"


Workers = Annotated[
    Annotated[int, Field(ge=1, le=1024), Tag("number")] | Annotated[WorkerRange, Tag("range")],
    Discriminator(_kind_of_workers),
]


class ResourcesSpec(Spec):
    """What one trial occupies."""

    cpus: int = Field(default=1, ge=1, le=1024, description="CPU threads of a worker")
    gpus: float = Field(
        default=0, ge=0, le=64, description="GPUs of a worker: a whole number, or a share of one that trials divide"
    )
    workers: Workers = Field(
        default=1, description="data-parallel workers that share each batch; {min, max}: as many as there is room for"
    )

    @field_validator("gpus")
    @classmethod
    def _whole_or_share(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("more than one GPU must be a whole number")
        return gpus

    @property
    def is_distributed(self) -> bool:
        """Whether more than one worker may train the trial."""
        return self.workers != 1
