"""Control: a router that knows the best expert of each image, while training."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom

from smoe_ray.spec.objectives import OracleRouter
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import complete, expert_errors


class OracleRouterLoss(Loss[OracleRouter]):
    """min_e r_e + beta KL + w * cross-entropy of the gate against the best expert.

    ``test.reconstruction_oracle`` of such a trial is the lower bound of what routing can reach with so many experts;
    ``test.reconstruction`` is what a gate reaches that was told the best expert of each training image.
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        logit_BE = batch.decoded.logit_BE
        assert batch.decoded.image_EBP is not None
        error_BE = expert_errors(batch.image_BP, batch.decoded.image_EBP, self.error)
        best_B = error_BE.detach().argmin(dim=1)
        terms = complete(batch, error_BE.gather(1, best_B[:, None]).mean(), torch.softmax(logit_BE, dim=1))
        gate_loss = F.cross_entropy(logit_BE, best_B)
        return terms._replace(loss=terms.loss + self.spec.gate_weight * gate_loss, own={"gate_loss": gate_loss})
