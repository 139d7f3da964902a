"""What every modifier can do: three hooks into a training step, each of which changes nothing by default.

Shapes: B images, E experts.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from smoe_ray.model import SMoEVAE
from smoe_ray.spec import TrialSpec
from smoe_ray.spec.base import Spec
from smoe_ray.training.collectives import Workers
from smoe_ray.training.images import DeviceImages
from smoe_ray.training.objectives import LossInput, Terms

ModifierSpec = TypeVar("ModifierSpec", bound=Spec)


class Moment(NamedTuple):
    """A pause before an optimizer step, in which the model may be changed."""

    step: int
    """Number of the step that comes next, from 0."""
    steps_total: int
    """Steps of the whole trial."""
    seed: int
    """Of the trial: for random numbers (`random_stream`)."""
    model: SMoEVAE
    optimizer: torch.optim.Optimizer
    images: DeviceImages
    """All training images, on every worker."""
    workers: Workers


class Modifier(nn.Module, Generic[ModifierSpec]):
    """A change to how any objective is trained.

    State that training changes is kept in buffers: they are part of the checkpoint, so that a resumed trial ends in the
    same bits. On data-parallel workers each has its own copy; what depends on a batch is computed from
    `LossInput.global_mean`, and what changes the model is decided by the leader (`Workers.of_leader`), so that rounding
    never parts the copies.
    """

    def __init__(self, spec: ModifierSpec, trial: TrialSpec) -> None:  # noqa: ARG002 - some look at the trial
        super().__init__()
        self.spec = spec

    def logits(self, logit_BE: Tensor, progress: Tensor) -> Tensor:  # noqa: ARG002
        """The gate logits that the objective sees in training; `progress` is the share of the budget that is done."""
        return logit_BE

    def terms(self, terms: Terms, batch: LossInput, model: SMoEVAE) -> Terms:  # noqa: ARG002
        """The terms of the loss of a batch, given those of the objective."""
        return terms

    def before_step(self, moment: Moment) -> None:
        """Called before every optimizer step; may change model and optimizer, alike on every worker."""


def risen(progress: float | Tensor, share: float) -> Tensor:
    """Rises linearly from 0 to 1 over the first `share` of the budget, then stays there."""
    return (torch.as_tensor(progress) / share).clamp(max=1)


def gate_vectors(model: SMoEVAE) -> Tensor:
    """The vector of each expert in the gate's last layer, one row each; see `Gate.parts_of`."""
    vectors = [model.gate.parts_of(expert)[0] for expert in range(model.experts.num_experts)]
    return vectors[0].tensor[[vector.row for vector in vectors]]


def with_term(terms: Terms, name: str, value: Tensor, weight: float = 0.0) -> Terms:
    """`terms` with `weight` * `value` added to the loss, and `value` reported as ``train.<name>``."""
    loss = terms.loss + weight * value if weight else terms.loss
    return terms._replace(loss=loss, own={**(terms.own or {}), name: value})
