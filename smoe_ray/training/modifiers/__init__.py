"""Modifiers of training, one module each, named like the modifier in a study; `base` has what they share."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, cast

from torch import Tensor, nn

from smoe_ray.model import SMoEVAE
from smoe_ray.spec import TrialSpec
from smoe_ray.training.modifiers.base import Modifier, Moment
from smoe_ray.training.objectives import LossInput, Terms

__all__ = ["Modifier", "Modifiers", "Moment"]


class Modifiers(nn.ModuleDict):
    """The modifiers of a trial, by name and in the order of the spec; none in most trials."""

    def __init__(self, trial: TrialSpec) -> None:
        super().__init__()
        for name in type(trial.modifiers).model_fields:
            spec = getattr(trial.modifiers, name)
            if spec is not None:
                module = import_module(f"{__name__}.{name}")
                self[name] = getattr(module, type(spec).__name__.removesuffix("Spec"))(spec, trial)

    def logits(self, logit_BE: Tensor, progress: Tensor) -> Tensor:
        """See `Modifier.logits`."""
        for modifier in self._each():
            logit_BE = modifier.logits(logit_BE, progress)
        return logit_BE

    def terms(self, terms: Terms, batch: LossInput, model: SMoEVAE) -> Terms:
        """See `Modifier.terms`."""
        for modifier in self._each():
            terms = modifier.terms(terms, batch, model)
        return terms

    def before_step(self, moment: Moment) -> None:
        """See `Modifier.before_step`."""
        for modifier in self._each():
            modifier.before_step(moment)

    def _each(self) -> Iterable[Modifier[Any]]:
        return cast("Iterable[Modifier[Any]]", self.values())
