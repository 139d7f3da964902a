"""Negative log likelihood of a mixture of experts (Jacobs et al. 1991), plus balance."""

from __future__ import annotations

import torch
from torch import Tensor

from smoe_ray.spec import Likelihood
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import complete, expert_errors


class LikelihoodLoss(Loss[Likelihood]):
    """-2 s^2 ln sum_e p_e exp(-r_e / 2 s^2) + beta KL + lambda_b L_balance / 128, with s^2 annealed."""

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        gate_BE = torch.softmax(batch.decoded.logit_BE, dim=1)
        variance = annealed_variance(self.spec, batch.progress)
        log_gate_BE = torch.log_softmax(batch.decoded.logit_BE, dim=1)
        assert batch.decoded.image_EBP is not None
        error_BE = expert_errors(batch.image_BP, batch.decoded.image_EBP, self.error)
        log_mixture_B = torch.logsumexp(log_gate_BE - error_BE / (2 * variance), dim=1)
        reconstruction = -2 * variance * log_mixture_B.mean()
        return complete(batch, reconstruction, gate_BE, self.spec)


def annealed_variance(spec: Likelihood, progress: float | Tensor) -> float | Tensor:
    """s^2 between `variance_start` and `variance_end`, geometrically over the budget."""
    return spec.variance_start * (spec.variance_end / spec.variance_start) ** progress
