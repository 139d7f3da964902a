"""GShard's routing: each image to the two experts of the highest gate probabilities."""

from __future__ import annotations

from torch import Tensor

from smoe_ray.spec.objectives import GShard
from smoe_ray.training.objectives.base import GlobalMean, Loss, LossInput, Terms
from smoe_ray.training.objectives.dispatch import dispatched, load_balanced


class GShardLoss(Loss[GShard]):
    """r(w_1 x_1 + w_2 x_2) + beta KL + a E sum_e f_e P_e + z mean(logsumexp(s)^2), w = p of the two over their sum.

    Lepikhin et al., arXiv:2006.16668, algorithm 1, without capacity and without its random drop of the second expert; f
    counts first choices, as there. Test images go to the first expert alone.
    """

    def choose(self, logit_BE: Tensor, global_mean: GlobalMean, uniform_BE: Tensor | None) -> Tensor:  # noqa: ARG002
        """The two experts with the highest gate logits."""
        return logit_BE.topk(self.spec.experts_per_image, dim=1).indices

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        gate_BE, image_BP = dispatched(batch, normalised=True)
        reconstruction = self.error.total(batch.image_BP, image_BP).mean()
        return load_balanced(batch, reconstruction, gate_BE, self.spec)
