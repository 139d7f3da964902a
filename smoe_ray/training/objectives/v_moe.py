"""V-MoE's routing: each image to the first experts by noisy gate logits."""

from __future__ import annotations

import torch
from torch import Tensor

from smoe_ray.spec.objectives import VMoE
from smoe_ray.training.objectives.base import GlobalMean, Loss, LossInput, Terms
from smoe_ray.training.objectives.dispatch import dispatched, squared_cv
from smoe_ray.training.objectives.terms import complete


class VMoELoss(Loss[VMoE]):
    """r(sum_k p_k x_k) + beta KL + a (CV(importance)^2 + CV(load)^2) / 2.

    Riquelme et al., arXiv:2106.05974: the first K experts by s + noise of standard deviation
    1 / E, weighted by p = softmax(s + noise), which is not scaled to sum to 1 over the K. Importance is the sum of
    softmax(s); load the sum of the probabilities of being chosen if the noise of one expert were drawn anew. Both are
    of the global batch. There is no capacity, and so no priority. Test images go to the argmax of s, without noise.
    """

    def choose(self, logit_BE: Tensor, global_mean: GlobalMean, uniform_BE: Tensor | None) -> Tensor:  # noqa: ARG002
        """The experts with the highest noisy logits."""
        assert uniform_BE is not None
        return _noisy(logit_BE, uniform_BE).topk(self.spec.top_k, dim=1).indices

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        logit_BE = batch.decoded.logit_BE
        assert batch.uniform_BE is not None
        noisy_BE = _noisy(logit_BE, batch.uniform_BE)
        _, image_BP = dispatched(batch, normalised=False, logit_BE=noisy_BE)
        gate_BE = torch.softmax(logit_BE, dim=1)
        importance_E = batch.global_mean(gate_BE.mean(dim=0))
        load_E = batch.global_mean(self._chance_of_being_chosen(logit_BE, noisy_BE).mean(dim=0))
        load = (squared_cv(importance_E) + squared_cv(load_E)) / 2
        terms = complete(batch, self.error.total(batch.image_BP, image_BP).mean(), gate_BE)
        return terms._replace(loss=terms.loss + self.spec.load_weight * load, own={"load": load})

    def _chance_of_being_chosen(self, logit_BE: Tensor, noisy_BE: Tensor) -> Tensor:
        threshold_B1 = noisy_BE.topk(self.spec.top_k, dim=1).values[:, -1:]
        deviation = 1 / logit_BE.shape[1]
        chance_BE: Tensor = torch.special.ndtr((logit_BE - threshold_B1) / deviation)
        return chance_BE


def _noisy(logit_BE: Tensor, uniform_BE: Tensor) -> Tensor:
    noisy_BE: Tensor = logit_BE + torch.special.ndtri(uniform_BE) / logit_BE.shape[1]
    return noisy_BE
