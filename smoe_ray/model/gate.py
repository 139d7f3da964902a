"""Gates: from the latent vector to one logit per expert.

Shapes: B images, E experts, G groups of L = E / G experts, Z latent, D projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn


class MLPGate(nn.Sequential):
    """Multilayer perceptron (ReLU) from the latent vector to one logit per expert: logit_BE."""

    def __init__(self, latent_dim: int, hidden: Sequence[int], num_experts: int) -> None:
        sizes = (latent_dim, *hidden)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Linear(sizes[-1], num_experts))


class CosineGate(nn.Module):
    """s_e = scale cos(h(z), v_e): h a multilayer perceptron, v_e and the scale learnt (arXiv:2204.09179, section 3)."""

    def __init__(self, latent_dim: int, hidden: Sequence[int], num_experts: int, projection: int, scale: float) -> None:
        super().__init__()
        self.projection = MLPGate(latent_dim, hidden, projection)
        self.expert_ED = nn.Parameter(torch.randn(num_experts, projection))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self, z_BZ: Tensor) -> Tensor:
        """logit_BE; within +- scale."""
        h_BD = F.normalize(self.projection(z_BZ), dim=1)
        logit_BE: Tensor = self.log_scale.exp() * h_BD @ F.normalize(self.expert_ED, dim=1).t()
        return logit_BE


class HierarchicalGate(nn.Module):
    """log p(e | z) = log p(g | z) + log p(e | g, z): a gate over G groups, and one over the experts of each.

    Both are linear above the same hidden layers, so the gate has G outputs more than `MLPGate` and no other parameter:
    what the tree changes is not mixed up with the size of the gate. The expert with the highest logit need not be in
    the most probable group: a likely group may share its probability among many experts.
    """

    def __init__(self, latent_dim: int, hidden: Sequence[int], num_experts: int, groups: int) -> None:
        super().__init__()
        self.sizes = groups, num_experts
        self.both = MLPGate(latent_dim, hidden, groups + num_experts)

    def forward(self, z_BZ: Tensor) -> Tensor:
        """logit_BE: logarithms of probabilities, so that their softmax is these."""
        group_BG, expert_BE = self.both(z_BZ).split(self.sizes, dim=1)
        within_BGL = F.log_softmax(expert_BE.unflatten(1, (self.sizes[0], -1)), dim=2)
        logit_BE: Tensor = (F.log_softmax(group_BG, dim=1)[:, :, None] + within_BGL).flatten(1)
        return logit_BE
