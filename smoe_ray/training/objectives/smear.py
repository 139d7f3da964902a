"""SMEAR: one decoder per image, with the gate-weighted mean of all experts' parameters."""

from __future__ import annotations

import torch

from smoe_ray.spec.objectives import Smear
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import complete


class SmearLoss(Loss[Smear]):
    """r(x) + beta KL, x = D(z; sum_e p_e theta_e): D the decoder, theta_e the parameters of expert e.

    Muqeeth et al., arXiv:2306.03745, without its dropout of experts. `blend` averages images, this averages
    parameters: it costs one decoder, not E. In the source a test input has an average of its own, too; here test images
    go to the argmax expert alone, as with every objective, which is far off while the gate is not sure.
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        merged_BP = batch.decoded.merged_BP
        assert merged_BP is not None
        gate_BE = torch.softmax(batch.decoded.logit_BE, dim=1)
        return complete(batch, self.error.total(batch.image_BP, merged_BP).mean(), gate_BE)
