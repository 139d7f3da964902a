"""Expert-router coupling: an expert answers to its own vector in the gate more strongly than to other experts'.

With M_ij the norm of what the linear layer of expert j makes of w_i, the gate's vector of expert i,

    L = 1/E^2 sum_{i != j} [ max(M_ij - a M_ii, 0) + max(M_ji - a M_ii, 0) ],

0 where each vector excites its own expert most, and each expert its own vector most, by the factor 1/a. A gate without
hidden layers has vectors in the space of latent vectors, which is what experts read. w_i is perturbed at each step, by
factors drawn uniformly from 1 - b_i to 1 + b_i with b_i = min_j |w_i - w_j| / (2 |w_i|), so that it stays on its own
side of the nearest other one: b_i has no gradient.

Lv et al. 2025, arXiv:2512.23447: there experts have no bias, here what their bias adds is in M. Shapes: E experts, Z
latent.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from smoe_ray.model import SMoEVAE
from smoe_ray.model.architectures import ExpertsWithHidden
from smoe_ray.spec import TrialSpec
from smoe_ray.spec.modifiers import CouplingSpec
from smoe_ray.training.modifiers.base import Modifier, Moment, gate_vectors, with_term
from smoe_ray.training.objectives import LossInput, Terms
from smoe_ray.training.rng import Stream, random_stream


class Coupling(Modifier[CouplingSpec]):
    """Adds the term, as ``train.coupling``."""

    draw_EZ: Tensor
    """Of this step, uniform in [-1, 1]; the same on every worker."""

    def __init__(self, spec: CouplingSpec, trial: TrialSpec) -> None:
        super().__init__(spec, trial)
        size = trial.model.num_experts, trial.model.representation_dim
        # Drawn again before every step, so no part of a checkpoint.
        self.register_buffer("draw_EZ", torch.zeros(size), persistent=False)

    def terms(self, terms: Terms, batch: LossInput, model: SMoEVAE) -> Terms:  # noqa: ARG002
        """With the term of gate and experts as they are; the same on every worker."""
        experts = cast(ExpertsWithHidden, model.experts)  # the spec refuses those without hidden layers
        norm_EE = experts.hidden(perturbed(gate_vectors(model), self.draw_EZ)).norm(dim=2).t()
        return with_term(terms, "coupling", mismatch(norm_EE, self.spec.margin), self.spec.weight)

    @torch.no_grad()
    def before_step(self, moment: Moment) -> None:
        """Draws this step's perturbation."""
        generator = random_stream(self.draw_EZ.device, moment.seed, Stream.COUPLING, moment.step)
        self.draw_EZ.uniform_(-1, 1, generator=generator)


def perturbed(vector_EZ: Tensor, draw_EZ: Tensor) -> Tensor:
    """w_i (1 + b_i u) for draws u in [-1, 1]: see the module. One vector alone stays as it is."""
    if len(vector_EZ) < 2:
        return vector_EZ
    with torch.no_grad():
        apart_EE = torch.cdist(vector_EZ, vector_EZ).fill_diagonal_(torch.inf)
        most_E = apart_EE.amin(dim=1) / (2 * vector_EZ.norm(dim=1)).clamp_min(1e-12)
    factor_EZ: Tensor = 1 + most_E[:, None] * draw_EZ
    return vector_EZ * factor_EZ


def mismatch(norm_EE: Tensor, margin: float) -> Tensor:
    """L of the matrix M, row: whose vector, column: whose answer; a = `margin`."""
    own_E1 = margin * norm_EE.diagonal()[:, None]
    over_EE = (norm_EE - own_E1).clamp_min(0) + (norm_EE.t() - own_E1).clamp_min(0)
    others_EE = ~torch.eye(len(norm_EE), dtype=torch.bool, device=norm_EE.device)
    mean: Tensor = torch.where(others_EE, over_EE, 0).mean()
    return mean
