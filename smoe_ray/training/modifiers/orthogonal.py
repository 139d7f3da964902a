"""Orthogonal routing: mean over pairs of experts of the squared cosine of their vectors in the gate.

    L = mean_ef ((w_e . w_f) - [e = f])^2, with w_e the L2-normalised row of the gate's last layer for expert e,

0 where all are orthogonal, (E - 1) / E where all are the same. The vectors [1, 0, 0, 0] and [1, 1, 0, 0] give 0.25.
Source: the orthogonal router loss of ERNIE 4.5 (Baidu 2025, technical report).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from smoe_ray.model import SMoEVAE
from smoe_ray.spec.modifiers import OrthogonalSpec
from smoe_ray.training.modifiers.base import Modifier, gate_vectors, with_term
from smoe_ray.training.objectives import LossInput, Terms


class Orthogonal(Modifier[OrthogonalSpec]):
    """Adds the term, as ``train.orthogonal``."""

    def terms(self, terms: Terms, batch: LossInput, model: SMoEVAE) -> Terms:  # noqa: ARG002
        """With the term of the gate as it is; the same on every worker."""
        return with_term(terms, "orthogonal", overlap(gate_vectors(model)), self.spec.weight)


def overlap(vector_ED: Tensor) -> Tensor:
    """Mean squared difference of the cosines from the identity: 0 to 1."""
    unit_ED = F.normalize(vector_ED, dim=1)
    cosine_EE = unit_ED @ unit_ED.t()
    return (cosine_EE - torch.eye(len(cosine_EE), device=cosine_EE.device)).square().mean()
