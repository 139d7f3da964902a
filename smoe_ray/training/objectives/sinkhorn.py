"""S-BASE's routing: in training each expert gets an equal share of the batch, by Sinkhorn's algorithm."""

from __future__ import annotations

import torch
from torch import Tensor

from smoe_ray.spec.objectives import Sinkhorn
from smoe_ray.training.objectives.base import GlobalMean, Loss, LossInput, Terms
from smoe_ray.training.objectives.dispatch import dispatched
from smoe_ray.training.objectives.terms import complete


class SinkhornLoss(Loss[Sinkhorn]):
    """r(p_e x_e) + beta KL, e the expert of the highest entry of a balanced assignment of the batch.

    Clark et al., arXiv:2202.01169 (S-BASE, after BASE, arXiv:2103.16716): no balance term is needed.
    Test images go to the argmax of the gate.
    """

    def choose(self, logit_BE: Tensor, global_mean: GlobalMean, uniform_BE: Tensor | None) -> Tensor:  # noqa: ARG002
        """The argmax of each image's row of the balanced assignment."""
        log_plan_BE = balanced_assignment(
            logit_BE.detach().float() / self.spec.temperature, self.spec.iterations, global_mean
        )
        return log_plan_BE.argmax(dim=1, keepdim=True)

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        gate_BE, image_BP = dispatched(batch, normalised=False)
        return complete(batch, self.error.total(batch.image_BP, image_BP).mean(), gate_BE)


def balanced_assignment(score_BE: Tensor, iterations: int, global_mean: GlobalMean) -> Tensor:
    """Logarithm of the matrix nearest to exp(score) with rows that sum to 1 and, over the global batch, columns of mean
    1 / E: (B, E). After the last iteration the columns are exact."""
    E = score_BE.shape[1]
    log_plan_BE = score_BE
    for _ in range(iterations):
        log_plan_BE = torch.log_softmax(log_plan_BE, dim=1)
        mean_E = global_mean(log_plan_BE.exp().mean(dim=0)).clamp_min(torch.finfo(score_BE.dtype).tiny)
        log_plan_BE = log_plan_BE - torch.log(E * mean_E)
    return log_plan_BE
