"""Control: a gate that keeps its random initial weights."""

from __future__ import annotations

from smoe_ray.spec.objectives import FrozenRouter
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.dispatch import without_gate


class FrozenRouterLoss(Loss[FrozenRouter]):
    """r_e + beta KL, e the gate's first choice: no gradient reaches the gate.

    What a learned router must beat (Dikkala et al. 2023, "On the benefits of learning to route in mixture-of-experts
    models", EMNLP).
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        return without_gate(batch, self.error)
