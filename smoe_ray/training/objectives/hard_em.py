"""Hard expectation-maximisation of the mixture of experts: each image is explained by its likeliest expert."""

from __future__ import annotations

import torch

from smoe_ray.spec.objectives import HardEM
from smoe_ray.training.objectives.base import LossInput, Terms
from smoe_ray.training.objectives.error_scale import ScaledLoss
from smoe_ray.training.objectives.terms import expert_errors


class HardEMLoss(ScaledLoss[HardEM]):
    """min_e (r_e - 2 s^2 ln p_e) + beta KL + lambda_b L_balance / 128.

    The classification EM of Celeux and Govaert (1992), one gradient step at a time, on the mixture of Jacobs et al.
    (1991) that `likelihood` sums over.
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        log_gate_BE = torch.log_softmax(batch.decoded.logit_BE, dim=1)
        assert batch.decoded.image_EBP is not None
        error_BE = expert_errors(batch.image_BP, batch.decoded.image_EBP, self.error)
        scale = self.scale(error_BE.amin(dim=1).mean(), batch.global_mean)
        explained_BE = error_BE - 2 * scale * self.spec.variance * log_gate_BE
        best_B1 = explained_BE.argmin(dim=1, keepdim=True)  # by index: the gradient of amin is shared among ties
        return self.complete(batch, explained_BE.gather(1, best_B1).mean(), log_gate_BE.exp(), scale)
