"""The label-routed baseline: the gate learns the class label, the predicted class's expert the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom

from smoe_ray.spec import Supervised
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import complete


class SupervisedLoss(Loss[Supervised]):
    """Error of the chosen expert + beta KL + weight * cross-entropy of the gate.

    The choice of the expert is hard, so the reconstruction sends no gradient into the gate. The released code of
    arXiv:2509.10025 has weight 200 per image; its text names none.
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        logit_BE, chosen_BP = batch.decoded.logit_BE, batch.decoded.chosen_BP
        assert chosen_BP is not None
        reconstruction = self.error.total(batch.image_BP, chosen_BP).mean()
        cross_entropy = F.cross_entropy(logit_BE, batch.label_B)
        terms = complete(batch, reconstruction, torch.softmax(logit_BE, dim=1))
        loss = terms.loss + self.spec.cross_entropy_weight * cross_entropy
        return terms._replace(loss=loss, cross_entropy=cross_entropy)
