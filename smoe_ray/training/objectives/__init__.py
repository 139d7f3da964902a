"""Objectives of training, one module each, named like the objective in a study; `terms` has what they share."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from smoe_ray import plugins
from smoe_ray.errors import PluginError
from smoe_ray.spec import ObjectiveSpec, PluginObjective
from smoe_ray.training.objectives.base import Loss, LossInput, Terms

__all__ = ["Loss", "LossInput", "Terms", "loss_for"]


def loss_for(spec: ObjectiveSpec | PluginObjective) -> Loss[Any]:
    """The loss that `spec` describes: class `<Name>Loss` of the module named by ``objective.name``, or of a plug-in.

    Raises:
        PluginError, StudyError: a plug-in cannot be imported, fails, or refuses its parameters.
    """
    if isinstance(spec, PluginObjective):
        return _loss_of_plugin(spec)
    module = import_module(f"{__name__}.{spec.name}")
    loss: Loss[Any] = getattr(module, f"{type(spec).__name__}Loss")(spec)
    return loss


def _loss_of_plugin(reference: PluginObjective) -> Loss[Any]:
    plugin, spec = reference.resolve()
    with plugins.blaming():
        loss = plugin.target(spec)
    if not isinstance(loss, Loss):
        raise PluginError(f"plug-in {plugin.name}: {type(loss).__name__} is no smoe_ray.training.objectives.Loss")
    return loss
