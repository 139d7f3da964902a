"""The gate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class MLPGate(nn.Sequential):
    """Multilayer perceptron (ReLU) from the latent vector to one logit per expert: logit_BE."""

    def __init__(self, latent_dim: int, hidden: Sequence[int], num_experts: int) -> None:
        sizes = (latent_dim, *hidden)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Linear(sizes[-1], num_experts))
