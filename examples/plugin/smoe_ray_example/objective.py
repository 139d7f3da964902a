"""Expected error under a gate of another temperature. B images, E experts."""

from typing import ClassVar

import torch
from pydantic import Field

from smoe_ray.spec import BalancedObjectiveSpec
from smoe_ray.training.objectives import Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import complete, expert_errors


class TemperedSpec(BalancedObjectiveSpec):
    """Parameters of the objective; weight and form of the balance term come with the base."""

    temperature: float = Field(default=1.0, gt=0, description="of the gate in the error term; 1: as in `expected`")


class Tempered(Loss[TemperedSpec]):
    """sum_e softmax(logit / T)_e r_e + beta KL + lambda_b L_balance / 128, r_e the squared error of expert e."""

    Spec: ClassVar = TemperedSpec

    def forward(self, batch: LossInput) -> Terms:
        """Terms of the loss of one batch."""
        assert batch.decoded.image_EBP is not None
        error_BE = expert_errors(batch.image_BP, batch.decoded.image_EBP)
        weight_BE = torch.softmax(batch.decoded.logit_BE / self.spec.temperature, dim=1)
        reconstruction = (weight_BE * error_BE).sum(dim=1).mean()
        return complete(batch, reconstruction, torch.softmax(batch.decoded.logit_BE, dim=1), self.spec)
