"""Control: a gate that keeps its random initial weights."""

from __future__ import annotations

import torch

from smoe_ray.spec.objectives import FrozenRouter
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import complete


class FrozenRouterLoss(Loss[FrozenRouter]):
    """r_e + beta KL, e the gate's first choice: no gradient reaches the gate.

    What a learned router must beat (Dikkala et al. 2023, "On the benefits of learning to route in mixture-of-experts
    models", EMNLP).
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        chosen_BP = batch.decoded.chosen_BP
        assert chosen_BP is not None
        gate_BE = torch.softmax(batch.decoded.logit_BE.detach(), dim=1)
        return complete(batch, self.error.total(batch.image_BP, chosen_BP).mean(), gate_BE)
