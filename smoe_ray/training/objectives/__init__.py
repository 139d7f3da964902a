"""Objectives of training, one module each, named like the objective in a study; `terms` has what they share."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from smoe_ray.spec import ObjectiveSpec
from smoe_ray.training.objectives.base import Loss, LossInput, Terms

__all__ = ["Loss", "LossInput", "Terms", "loss_for"]


def loss_for(spec: ObjectiveSpec) -> Loss[Any]:
    """The loss that `spec` describes: class `<Name>Loss` of the module named by ``objective.name``."""
    module = import_module(f"{__name__}.{spec.name}")
    loss: Loss[Any] = getattr(module, f"{type(spec).__name__}Loss")(spec)
    return loss
