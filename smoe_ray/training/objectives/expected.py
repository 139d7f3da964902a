"""Expected error of an expert drawn by the gate, plus balance."""

from __future__ import annotations

import torch

from smoe_ray.spec import Expected
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import complete, expert_errors


class ExpectedLoss(Loss[Expected]):
    """sum_e p_e r_e + beta KL + lambda_b L_balance / 128."""

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        gate_BE = torch.softmax(batch.decoded.logit_BE, dim=1)
        assert batch.decoded.image_EBP is not None
        error_BE = expert_errors(batch.image_BP, batch.decoded.image_EBP, self.error)
        reconstruction = (gate_BE * error_BE).sum(dim=1).mean()
        return complete(batch, reconstruction, gate_BE, self.spec)
