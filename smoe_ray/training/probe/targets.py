"""What an input may excite: the targets of a probe, as functions of images or of latent vectors.

Shapes: N inputs, E experts, Z latent, P values of an image (C * H * W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smoe_ray.model import SMoEVAE

ImageOf = Callable[[Tensor], Tensor]
"""From every expert's decoding (E, N, P) of each latent vector to the image (N, P) that belongs to it."""


@dataclass(frozen=True)
class Target:
    """A quantity of each expert that inputs are to maximise."""

    name: str
    value: Callable[[SMoEVAE, Tensor, ImageOf], Tensor]
    """(model, z_NZ, the images of these latent vectors) -> (N, E)."""

    def of_images(self, model: SMoEVAE, image_NI: Tensor) -> Tensor:
        """(N, E) of images (N, H, W) or (N, C, H, W) in [0, 1], with z = mu."""
        image_NP = image_NI.flatten(1)
        return self.value(model, model.encoder(image_NI).mu_BZ, lambda _: image_NP)

    def of_latents(self, model: SMoEVAE, z_NZ: Tensor, expert_N: Tensor) -> Tensor:
        """(N,), of the given expert of each latent vector, whose image is the one that this expert makes of it."""
        every_N = torch.arange(len(z_NZ))
        return self.value(model, z_NZ, lambda decoded_ENP: decoded_ENP[expert_N, every_N])[every_N, expert_N]


def log_odds(logit_NE: Tensor) -> Tensor:
    """ln p_e / (1 - p_e) of the gate probabilities p = softmax(logit): (N, E). Exact where p_e rounds to 0 or 1.

    Not the gate's raw output: adding one function of z to all of these changes nothing that the model does.
    """
    every = range(logit_NE.shape[1])
    others = [logit_NE[:, [other for other in every if other != expert]].logsumexp(dim=1) for expert in every]
    return logit_NE - torch.stack(others, dim=1)


def lead(error_NE: Tensor) -> Tensor:
    """Advantage A_e = min_{j != e} r_j - r_e: how far an expert's error is below the least of the others': (N, E)."""
    (least_N, second_N), (best_N, _) = (part.unbind(1) for part in error_NE.topk(2, dim=1, largest=False))
    is_best_NE = torch.arange(error_NE.shape[1], device=error_NE.device) == best_N[:, None]
    return torch.where(is_best_NE, second_N[:, None], least_N[:, None]) - error_NE


def errors(image_NP: Tensor, decoded_ENP: Tensor) -> Tensor:
    """r_e, the squared error of each expert alone, summed over an image's values: (N, E).

    Unlike `terms.expert_errors`, it may be differentiated by the image too.
    """
    return (decoded_ENP - image_NP).square().sum(dim=2).t()


def _gate_logit(model: SMoEVAE, z_NZ: Tensor, _image_of: ImageOf) -> Tensor:
    return log_odds(model.logits(z_NZ))


def _advantage(model: SMoEVAE, z_NZ: Tensor, image_of: ImageOf) -> Tensor:
    decoded_ENP = model.experts(z_NZ)
    return lead(errors(image_of(decoded_ENP), decoded_ENP))


GATE_LOGIT, ADVANTAGE = Target("gate_logit", _gate_logit), Target("advantage", _advantage)
TARGETS = (GATE_LOGIT, ADVANTAGE)
