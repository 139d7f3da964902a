"""Expert choice: each expert takes the images whose gate favours it most."""

from __future__ import annotations

import torch
from torch import Tensor

from smoe_ray.spec.objectives import ExpertChoice
from smoe_ray.training.objectives.base import GlobalMean, Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import blend, complete

BITS = 31
"""Of the pattern of a positive number in single precision."""


class ExpertChoiceLoss(Loss[ExpertChoice]):
    """r(sum_e a_e p_e x_e) + beta KL, a_e = 1 where the image is among the c B / E of the batch with the highest p_e.

    Zhou et al., arXiv:2202.09368: loads are equal, and an image has a varying number of experts, none
    included. In a transformer such a token passes by the experts; here no image is made of it, so r is the mean over
    the images that some expert takes. The batch is the global one. Test images go to the argmax of the gate.
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        image_EBP = batch.decoded.image_EBP
        assert image_EBP is not None
        gate_BE = torch.softmax(batch.decoded.logit_BE, dim=1)
        share = min(1.0, self.spec.capacity / gate_BE.shape[1])
        is_taken_BE = favourites(batch.decoded.logit_BE, share, batch.global_mean)
        image_BP = blend(gate_BE * is_taken_BE, image_EBP)
        has_expert_B = is_taken_BE.any(dim=1).to(gate_BE.dtype)
        dispatched = batch.global_mean(has_expert_B.mean())
        reconstruction = (has_expert_B * self.error.total(batch.image_BP, image_BP)).mean() / dispatched
        return complete(batch, reconstruction, gate_BE)._replace(own={"dispatched": dispatched})


@torch.no_grad()
def favourites(logit_BE: Tensor, share: float, global_mean: GlobalMean) -> Tensor:
    """Whether an image is among the `share` of the global batch with the highest gate probability of an expert: (B, E).

    The number of these images is rounded up; images that tie with the last of them are among them.
    """
    # Workers know each other's images by means alone. A positive number is ordered like its bit pattern, so the least
    # -ln p that enough images are at or below is found bit by bit, exactly.
    pattern_BE = torch.log_softmax(logit_BE.float(), dim=1).abs().view(torch.int32)
    threshold_E = torch.zeros_like(pattern_BE[0])
    for bit in reversed(range(BITS)):
        below_E = global_mean((pattern_BE < threshold_E + (1 << bit)).double().mean(dim=0))
        threshold_E += (below_E < share - 1e-6).int() << bit  # less by more than a rounding error
    return pattern_BE <= threshold_E
