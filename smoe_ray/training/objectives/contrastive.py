"""SimCLR's loss on two views of each image, and the balance of noisy top-k gating.

Shapes: B images, V views of them (the first of each image, then the second of each), E experts, D a projection.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from smoe_ray.model.families.contrastive_conv import Gated
from smoe_ray.training.objectives.dispatch import squared_cv


def nt_xent(unit_VD: Tensor, temperature: float) -> Tensor:
    """Mean over views of -ln softmax of the partner among all other views, by cosine / temperature, nats.

    arXiv:2002.05709, equation 1: normalised temperature-scaled cross-entropy. At chance it is ln(V - 1).
    """
    V = len(unit_VD)
    similarity_VV = unit_VD @ unit_VD.t() / temperature
    similarity_VV = similarity_VV.masked_fill(torch.eye(V, dtype=torch.bool, device=unit_VD.device), -torch.inf)
    return F.cross_entropy(similarity_VV, torch.arange(V, device=unit_VD.device).roll(V // 2))


def importance(gated: Gated) -> Tensor:
    """CV^2 of the experts' mean gate probabilities, which is L_balance; without noise, as arXiv:2106.05974 has it."""
    return squared_cv(torch.softmax(gated.logit_BE, dim=1).mean(dim=0))


def load(gated: Gated) -> Tensor:
    """CV^2 of the experts' expected loads.

    A load is the sum over images of the chance that the expert is chosen if its own noise were drawn anew
    (arXiv:1701.06538, appendix A). Where all experts are chosen, it is 0.
    """
    K, E = gated.expert_BK.shape[1], gated.logit_BE.shape[1]
    if K == E:
        return torch.zeros((), device=gated.logit_BE.device)
    assert gated.deviation_BE is not None, "training has noise"
    first_BK1 = gated.noisy_BE.topk(K + 1, dim=1).values
    is_chosen_BE = gated.noisy_BE > first_BK1[:, K:]
    others_best_BE = torch.where(is_chosen_BE, first_BK1[:, K:], first_BK1[:, K - 1 : K])  # K-th of the other experts
    chance_BE: Tensor = torch.special.ndtr((gated.logit_BE - others_best_BE) / gated.deviation_BE)
    return squared_cv(chance_BE.mean(dim=0))
