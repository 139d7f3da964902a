"""Control: a router that knows the style of each image, while training."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom

from smoe_ray.spec.objectives import StyleOracle
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import complete, expert_errors


class StyleOracleLoss(Loss[StyleOracle]):
    """r_e + beta KL + w * cross-entropy of the gate against e, the number of the image's style.

    The gate that was told the styles: what agreement of experts with styles, and what loss, a gate of this size reaches
    that routes by them.
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        logit_BE = batch.decoded.logit_BE
        assert batch.decoded.image_EBP is not None
        error_BE = expert_errors(batch.image_BP, batch.decoded.image_EBP, self.error)
        reconstruction = error_BE.gather(1, batch.label_B[:, None]).mean()
        terms = complete(batch, reconstruction, torch.softmax(logit_BE, dim=1))
        cross_entropy = F.cross_entropy(logit_BE, batch.label_B)
        loss = terms.loss + self.spec.gate_weight * cross_entropy
        return terms._replace(loss=loss, cross_entropy=cross_entropy)
