"""The paper's objective: error of the gate-weighted blend of all decoders, entropy and balance terms."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom

from smoe_ray.spec import Blend
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import blend, complete


class BlendLoss(Loss[Blend]):
    """r(sum_e p_e x_e) + beta KL + (lambda_b L_balance + lambda_e L_entropy) / 128, r the error (arXiv:2509.10025)."""

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        gate_BE = weight_BE = torch.softmax(batch.decoded.logit_BE, dim=1)
        if self.spec.gating == "hard":  # straight through: one-hot forward, the softmax's gradient backward
            one_hot_BE = F.one_hot(gate_BE.argmax(dim=1), gate_BE.shape[1]).to(gate_BE.dtype)
            weight_BE = one_hot_BE + gate_BE - gate_BE.detach()
        assert batch.decoded.image_EBP is not None
        reconstruction = self.error.total(batch.image_BP, blend(weight_BE, batch.decoded.image_EBP)).mean()
        return complete(batch, reconstruction, gate_BE, self.spec, lambda_entropy=self.spec.lambda_entropy)
