"""Gates: from the latent vector to one logit per expert.

Shapes: B images, E experts, G groups of L = E / G experts, Z latent, D projection, M values of an expert's hidden
layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from smoe_ray.model.architectures import Part


class MLPGate(nn.Sequential):
    """Multilayer perceptron (ReLU) from the latent vector to one logit per expert: logit_BE."""

    def __init__(self, latent_dim: int, hidden: Sequence[int], num_experts: int, bias: bool = True) -> None:
        sizes = (latent_dim, *hidden)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Linear(sizes[-1], num_experts, bias=bias))

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


class BatchNormGate(nn.Module):
    """s_e = scale (h_e(z) - m_e) / sqrt(v_e + eps): outputs of a multilayer perceptron, each with mean 0 and variance 1
    over the batch (muMoE, arXiv:2402.12550; Ioffe and Szegedy, arXiv:1502.03167).

    m and v are mean and variance over the batch in training, elsewhere their running means, which are buffers: part of
    the weights. A batch of one image has no variance: it is normalised by the running means, in training too.
    """

    mean_E: Tensor
    variance_E: Tensor

    def __init__(self, latent_dim: int, hidden: Sequence[int], num_experts: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.logits = MLPGate(latent_dim, hidden, num_experts, bias=False)  # the mean would take a bias away
        self.register_buffer("mean_E", torch.zeros(num_experts))
        self.register_buffer("variance_E", torch.ones(num_experts))

    def parts_of(self, expert: int) -> list[Part]:
        """Its row of the last layer, and its running mean and variance."""
        return [*self.logits.parts_of(expert), Part(self.mean_E, expert), Part(self.variance_E, expert)]

    def forward(self, z_BZ: Tensor) -> Tensor:
        """logit_BE."""
        over_batch = self.training and len(z_BZ) > 1
        return self.scale * F.batch_norm(self.logits(z_BZ), self.mean_E, self.variance_E, training=over_batch)


class AttentiveGate(nn.Module):
    """s_e = q . k_e / sqrt(D): the query q from the latent vector by a multilayer perceptron, the key k_e = W h_e from
    what expert e makes of it in its hidden layer, h_e (Krishnamurthy et al., arXiv:2302.14703, attentive gating).

    W is the same for all experts, so one is told from another by its hidden layer alone. A bias of the keys would add
    the same to all logits.
    """

    def __init__(self, latent_dim: int, hidden: Sequence[int], hidden_size: int, projection: int) -> None:
        super().__init__()
        self.query = MLPGate(latent_dim, hidden, projection)
        self.key = nn.Linear(hidden_size, projection, bias=False)

    def parts_of(self, expert: int) -> list[Part]:  # noqa: ARG002 - as every gate
        """Nothing: what tells one expert from another is their hidden layers."""
        return []

    def forward(self, z_BZ: Tensor, hidden_EBM: Tensor) -> Tensor:
        """logit_BE, given `ExpertsWithHidden.hidden` of the same latent vectors."""
        q_BD, k_EBD = self.query(z_BZ), self.key(hidden_EBM)
        return torch.einsum("bd,ebd->be", q_BD, k_EBD) / math.sqrt(q_BD.shape[1])


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

    def parts_of(self, expert: int) -> list[Part]:
        """Its row of the layer that divides the groups."""
        return self.both.parts_of(self.sizes[0] + expert)

    def forward(self, z_BZ: Tensor) -> Tensor:
        """logit_BE: logarithms of probabilities, so that their softmax is these."""
        group_BG, expert_BE = self.both(z_BZ).split(self.sizes, dim=1)
        within_BGL = F.log_softmax(expert_BE.unflatten(1, (self.sizes[0], -1)), dim=2)
        logit_BE: Tensor = (F.log_softmax(group_BG, dim=1)[:, :, None] + within_BGL).flatten(1)
        return logit_BE
