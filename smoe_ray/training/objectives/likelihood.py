"""Negative log likelihood of a mixture of experts (Jacobs et al. 1991), plus balance."""

from __future__ import annotations

import torch

from smoe_ray.spec import Likelihood
from smoe_ray.training.objectives.base import LossInput, Terms
from smoe_ray.training.objectives.error_scale import ScaledLoss
from smoe_ray.training.objectives.terms import annealed, expert_errors


class LikelihoodLoss(ScaledLoss[Likelihood]):
    """-2 s^2 ln sum_e p_e exp(-r_e / 2 s^2) + beta KL + lambda_b L_balance / 128, with s^2 annealed."""

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        gate_BE = torch.softmax(batch.decoded.logit_BE, dim=1)
        log_gate_BE = torch.log_softmax(batch.decoded.logit_BE, dim=1)
        assert batch.decoded.image_EBP is not None
        error_BE = expert_errors(batch.image_BP, batch.decoded.image_EBP, self.error)
        scale = self.scale((gate_BE * error_BE).sum(dim=1).mean(), batch.global_mean)
        variance = scale * annealed(self.spec.variance_start, self.spec.variance_end, batch.progress)
        log_mixture_B = torch.logsumexp(log_gate_BE - error_BE / (2 * variance), dim=1)
        reconstruction = -2 * variance * log_mixture_B.mean()
        return self.complete(batch, reconstruction, gate_BE, scale)
