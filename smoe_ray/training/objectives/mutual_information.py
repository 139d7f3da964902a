"""Expected error of an expert drawn by the gate, less the mutual information of image and expert."""

from __future__ import annotations

import torch

from smoe_ray.spec.objectives import MutualInformation
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import PAPER_BATCH_SIZE, complete, entropy_term, expert_errors


class MutualInformationLoss(Loss[MutualInformation]):
    """sum_e p_e r_e + beta KL - lambda (h_b H(mean p) - mean H(p)) / 128.

    With h_b = 1 the bracket is the mutual information I(expert; image) in nats (Bridle et al. 1992); the average is
    over the global batch. Reported as ``train.information`` with h_b = 1.
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        gate_BE = torch.softmax(batch.decoded.logit_BE, dim=1)
        assert batch.decoded.image_EBP is not None
        error_BE = expert_errors(batch.image_BP, batch.decoded.image_EBP, self.error)
        terms = complete(batch, (gate_BE * error_BE).sum(dim=1).mean(), gate_BE)
        usage_entropy = entropy_term(batch.global_mean(gate_BE.mean(dim=0))[None])
        gain = self.spec.usage_weight * usage_entropy - terms.entropy
        loss = terms.loss - self.spec.lambda_information / PAPER_BATCH_SIZE * gain
        return terms._replace(loss=loss, own={"information": usage_entropy - terms.entropy})
