"""A gate that is undecided at first and grows sure.

In training, the objective sees the logits s / T(t) at the share t of the budget,

    T(t) = start (end / start)^min(t / share, 1).

Above 1, T flattens p = softmax(s / T), so that every expert is trained before the gate commits itself. Test images go
to the argmax of s, which T does not change.

Annealing of a softmax by its temperature: Rose et al. 1990, "A deterministic annealing approach to clustering"; of a
gate: Nie et al. 2021, "Dense-to-sparse gate for mixture-of-experts", arXiv:2112.14397.
"""

from __future__ import annotations

from torch import Tensor

from smoe_ray.spec.modifiers import GateTemperatureSpec
from smoe_ray.training.modifiers.base import Modifier, risen
from smoe_ray.training.objectives.terms import annealed


class GateTemperature(Modifier[GateTemperatureSpec]):
    """Divides the logits by an annealed temperature."""

    def logits(self, logit_BE: Tensor, progress: Tensor) -> Tensor:
        """s / T."""
        return logit_BE / annealed(self.spec.start, self.spec.end, risen(progress, self.spec.share))
