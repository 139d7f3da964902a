"""Control: experts drawn uniformly, anew at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from smoe_ray.spec.objectives import UniformRouter
from smoe_ray.training.objectives.base import GlobalMean, Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import complete


class UniformRouterLoss(Loss[UniformRouter]):
    """r_e + beta KL, e drawn uniformly: the experts learn the same, and the gate nothing."""

    def choose(self, logit_BE: Tensor, global_mean: GlobalMean, uniform_BE: Tensor | None) -> Tensor:  # noqa: ARG002
        """The expert of the largest random number."""
        assert uniform_BE is not None
        return uniform_BE.argmax(dim=1, keepdim=True)

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        chosen_BP = batch.decoded.chosen_BP
        assert chosen_BP is not None
        gate_BE = torch.softmax(batch.decoded.logit_BE.detach(), dim=1)
        return complete(batch, self.error.total(batch.image_BP, chosen_BP).mean(), gate_BE)
