"""What objectives that dispatch each image to a few experts share.

Shapes: B images, E experts, K of them for each image, P values of an image (C * H * W pixels).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from smoe_ray.spec.objectives import LoadBalancedSpec
from smoe_ray.training.objectives.base import LossInput, Terms
from smoe_ray.training.objectives.errors import PixelError
from smoe_ray.training.objectives.terms import complete


def dispatched(batch: LossInput, normalised: bool, logit_BE: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Reconstructions by the chosen experts, each weighted by its gate probability.

    Args:
        batch: what the objective was given.
        normalised: whether the weights are scaled to sum to 1 over the K experts of an image.
        logit_BE: whose softmax is the gate; by default the model's gate logits.

    Returns:
        gate_BE, and the weighted sum of the images (B, P).
    """
    chosen_KBP, expert_BK = batch.decoded.chosen_KBP, batch.decoded.expert_BK
    assert chosen_KBP is not None
    assert expert_BK is not None
    gate_BE = torch.softmax(batch.decoded.logit_BE if logit_BE is None else logit_BE, dim=1)
    weight_BK = gate_BE.gather(1, expert_BK)
    if normalised:
        weight_BK = weight_BK / weight_BK.sum(dim=1, keepdim=True)
    return gate_BE, (weight_BK.t()[:, :, None] * chosen_KBP).sum(dim=0)


def without_gate(batch: LossInput, error: PixelError) -> Terms:
    """Terms of a control: the error of the chosen expert, with no gradient for the gate."""
    chosen_BP = batch.decoded.chosen_BP
    assert chosen_BP is not None
    gate_BE = torch.softmax(batch.decoded.logit_BE.detach(), dim=1)
    return complete(batch, error.total(batch.image_BP, chosen_BP).mean(), gate_BE)


def load_balanced(batch: LossInput, reconstruction: Tensor, gate_BE: Tensor, spec: LoadBalancedSpec) -> Terms:
    """Terms of an objective with a load term E sum_e f_e P_e, which is 1 at equal loads, and a term on large logits."""
    expert_BK = batch.decoded.expert_BK
    assert expert_BK is not None
    terms = complete(batch, reconstruction, gate_BE)
    load = load_loss(
        batch.global_mean(F.one_hot(expert_BK[:, 0], gate_BE.shape[1]).to(gate_BE.dtype).mean(dim=0)).detach(),
        batch.global_mean(gate_BE.mean(dim=0)),
    )
    z = torch.logsumexp(batch.decoded.logit_BE, dim=1).square().mean()
    loss = terms.loss + spec.load_weight * load + spec.z_weight * z
    return terms._replace(loss=loss, own={"load": load, "z": z})


def load_loss(dispatched_E: Tensor, mean_gate_E: Tensor) -> Tensor:
    """E sum_e f_e P_e (arXiv:2101.03961, equation 4, without its factor): 1 where all are 1 / E, at most E."""
    return len(mean_gate_E) * (dispatched_E * mean_gate_E).sum()


def squared_cv(load_E: Tensor) -> Tensor:
    """Squared coefficient of variation: variance / mean^2 over the experts (arXiv:2106.05974)."""
    return load_E.var(correction=0) / load_E.mean().square()


def sign_of_difference(first: Tensor, second: Tensor) -> Tensor:
    """Sign of first - second, two means over the global batch; 0 where they differ by a rounding error.

    Each worker rounds the same mean in its own way: on a tie, their signs would not agree.
    """
    return torch.sign((first - second).round(decimals=6))
