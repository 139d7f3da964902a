"""Gates: from the latent vector to one logit per expert.

Shapes: B images, E experts, Z latent, D projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from smoe_ray.model.architectures import Part


class MLPGate(nn.Sequential):
    """Multilayer perceptron (ReLU) from the latent vector to one logit per expert: logit_BE."""

    def __init__(self, latent_dim: int, hidden: Sequence[int], num_experts: int) -> None:
        sizes = (latent_dim, *hidden)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Linear(sizes[-1], num_experts))

    def parts_of(self, expert: int) -> list[Part]:
        """Its row of the last layer's weight, and of its bias."""
        return [Part(parameter, expert) for parameter in self[-1].parameters()]


class CosineGate(nn.Module):
    """s_e = scale cos(h(z), v_e): h a multilayer perceptron, v_e and the scale learnt (arXiv:2204.09179, section 3)."""

    def __init__(self, latent_dim: int, hidden: Sequence[int], num_experts: int, projection: int, scale: float) -> None:
        super().__init__()
        self.projection = MLPGate(latent_dim, hidden, projection)
        self.expert_ED = nn.Parameter(torch.randn(num_experts, projection))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def parts_of(self, expert: int) -> list[Part]:
        """Its vector."""
        return [Part(self.expert_ED, expert)]

    def forward(self, z_BZ: Tensor) -> Tensor:
        """logit_BE; within +- scale."""
        h_BD = F.normalize(self.projection(z_BZ), dim=1)
        logit_BE: Tensor = self.log_scale.exp() * h_BD @ F.normalize(self.expert_ED, dim=1).t()
        return logit_BE
