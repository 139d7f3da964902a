"""Sample similarity: images that are alike share an expert, images that are not have different ones.

Over the pairs of images x, x' of the global batch, with D the squared distance of the two, as vectors of P values,

    L = mean_xx' [ 1/E sum_e p_e(x) p_e(x') D(x, x') - 1/(E^2 - E) sum_{e != f} p_e(x) p_f(x') D(x, x') ].

0 for a gate that knows nothing, mean D / E where one expert takes all, negative where experts have clusters. It is
computed from means over the images of p_e, p_e |x|^2 and p_e x, so no pair is ever formed, and batches that are divided
among workers have the same loss. The source's mean leaves out the pairs of an image with itself, whose D is 0: it is
B/(B - 1) times this one. Its two weights, beta_s and beta_d, are one here.

Krishnamurthy et al. 2023, arXiv:2302.14703. Shapes: B images, E experts, P values of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smoe_ray.model import SMoEVAE
from smoe_ray.spec.modifiers import SimilaritySpec
from smoe_ray.training.modifiers.base import Modifier, with_term
from smoe_ray.training.objectives import LossInput, Terms
from smoe_ray.training.objectives.base import GlobalMean


class Similarity(Modifier[SimilaritySpec]):
    """Adds the term, as ``train.similarity``."""

    def terms(self, terms: Terms, batch: LossInput, model: SMoEVAE) -> Terms:  # noqa: ARG002
        """With the term of this batch."""
        with torch.autocast(batch.image_BP.device.type, enabled=False):  # differences of large numbers
            gate_BE = torch.softmax(batch.decoded.logit_BE.to(batch.image_BP.dtype), dim=1)
            value = dissimilarity(gate_BE, batch.image_BP, batch.global_mean)
        return with_term(terms, "similarity", value, self.spec.weight)


def dissimilarity(gate_BE: Tensor, image_BP: Tensor, global_mean: GlobalMean) -> Tensor:
    """Mean squared distance within experts less that between experts, each weighted by the gate; see the module."""
    B, E = gate_BE.shape
    mean_E = global_mean(gate_BE.mean(dim=0))
    square_E = global_mean((gate_BE * image_BP.square().sum(dim=1, keepdim=True)).mean(dim=0))
    image_EP = global_mean(gate_BE.t() @ image_BP / B)
    # mean_xx' p_e(x) p_f(x') |x - x'|^2 of each pair of experts
    crossed_EE = square_E[:, None] * mean_E + mean_E[:, None] * square_E - 2 * image_EP @ image_EP.t()
    within, between = crossed_EE.trace(), crossed_EE.sum() - crossed_EE.trace()
    return within / E - between / max(E * E - E, 1)
