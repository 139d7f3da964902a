"""ReMoE's routing: experts weighted by ReLU of the gate logits, kept sparse by an adaptive L1 term."""

from __future__ import annotations

import torch
from torch import Tensor

from smoe_ray.model import SMoEVAE
from smoe_ray.spec.objectives import ReLURouter
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.dispatch import sign_of_difference
from smoe_ray.training.objectives.terms import blend, complete


class ReLURouterLoss(Loss[ReLURouter]):
    """r(sum_e w_e x_e) + beta KL + l sum_e f_e mean(w_e), w = ReLU(s), f_e = E / k * share of the images with w_e > 0.

    Wang et al., arXiv:2412.14711: after each step l is multiplied by a where fewer than the share
    1 - k / E of the weights are zero, and divided by a where more are; f and both shares are of the global batch. An
    image without a positive logit is black, and teaches the gate nothing. All decoders run in training: that is what
    keeps the routing differentiable. Test images go to the expert of the highest s alone, unscaled.
    """

    l1_weight: Tensor

    def __init__(self, spec: ReLURouter) -> None:
        super().__init__(spec)
        self.register_buffer("l1_weight", torch.tensor(spec.l1_start, dtype=torch.float64))
        self.active: Tensor | None = None

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        logit_BE, image_EBP = batch.decoded.logit_BE, batch.decoded.image_EBP
        assert image_EBP is not None
        weight_BE = torch.relu(logit_BE)
        active_E = batch.global_mean((weight_BE > 0).double().mean(dim=0))
        self.active = active = active_E.sum()
        frequency_E = (len(active_E) / self.spec.top_k * active_E).to(weight_BE.dtype)
        l1 = (frequency_E * batch.global_mean(weight_BE.mean(dim=0))).sum()
        l1_weight = self.l1_weight.to(l1.dtype)
        reconstruction = self.error.total(batch.image_BP, blend(weight_BE, image_EBP)).mean()
        terms = complete(batch, reconstruction, torch.softmax(logit_BE, dim=1))
        own = {"l1": l1, "l1_weight": l1_weight, "active_experts": active.to(l1.dtype)}
        return terms._replace(loss=terms.loss + l1_weight * l1, own=own)

    def after_step(self, model: SMoEVAE) -> None:  # noqa: ARG002
        """Move the weight of the L1 term towards the sparsity that is aimed at."""
        assert self.active is not None
        aim = torch.full_like(self.active, self.spec.top_k)
        self.l1_weight.mul_(self.spec.l1_factor ** sign_of_difference(self.active, aim))
