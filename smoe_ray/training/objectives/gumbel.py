"""The blend of all decoders by a Gumbel-softmax sample of the gate."""

from __future__ import annotations

import torch
from torch import Tensor

from smoe_ray.spec.objectives import Gumbel
from smoe_ray.training.objectives.base import LossInput, Terms
from smoe_ray.training.objectives.error_scale import ScaledLoss
from smoe_ray.training.objectives.terms import annealed, blend


class GumbelLoss(ScaledLoss[Gumbel]):
    """r(sum_e w_e x_e) + beta KL + lambda_b L_balance / 128 with w = softmax((s + g) / t), g Gumbel noise.

    Jang et al., arXiv:1611.01144, equation 2; the temperature t falls geometrically, and test images go to the expert
    of the highest s.
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        logit_BE = batch.decoded.logit_BE
        assert batch.uniform_BE is not None
        temperature = annealed(self.spec.temperature_start, self.spec.temperature_end, batch.progress)
        weight_BE = torch.softmax((logit_BE + gumbel(batch.uniform_BE)) / temperature, dim=1)
        assert batch.decoded.image_EBP is not None
        reconstruction = self.error.total(batch.image_BP, blend(weight_BE, batch.decoded.image_EBP)).mean()
        scale = self.scale(reconstruction, batch.global_mean)
        return self.complete(batch, reconstruction, torch.softmax(logit_BE, dim=1), scale)


def gumbel(uniform_BE: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform random numbers in (0, 1)."""
    return -torch.log(-torch.log(uniform_BE))
