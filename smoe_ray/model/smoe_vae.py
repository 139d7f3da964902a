"""The sparse mixture-of-experts VAE (arXiv:2509.10025, section 3): encoder, gate and a bank of decoders.

Shapes: B images, E experts, Z latent, H W pixels (28 x 28), P = H * W.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smoe_ray.model.bank import ExpertBank
from smoe_ray.spec import IMAGE_SIDE, ModelSpec


class Encoded(NamedTuple):
    """Posterior of the latent vector of each image."""

    mu_BZ: Tensor
    logvar_BZ: Tensor


class Encoder(nn.Module):
    """Image to posterior: 3x3 convolutions, then two linear heads.

    ``medium``: channels 1-32-64-128, strides 1, 2, 2, ReLU. ``lite``: channels 1-16-8, strides 2, 2, ELU.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        medium = spec.encoder == "medium"
        channels = (1, 32, 64, 128) if medium else (1, 16, 8)
        strides = (1, 2, 2) if medium else (2, 2)
        layers: list[nn.Module] = []
        for (c_in, c_out), stride in zip(pairwise(channels), strides, strict=True):
            layers += [nn.Conv2d(c_in, c_out, 3, stride, padding=1), nn.ReLU(True) if medium else nn.ELU(inplace=True)]
        # Channels last: the layout in which convolutions are fastest, on CPUs and on GPUs.
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        features = channels[-1] * (IMAGE_SIDE // 4) ** 2
        self.mu = nn.Linear(features, spec.latent_dim)
        self.logvar = nn.Linear(features, spec.latent_dim)

    def forward(self, image_BHW: Tensor) -> Encoded:
        """Posterior mean and log variance of each image (pixels in [0, 1])."""
        features = self.features(image_BHW[:, None])
        return Encoded(self.mu(features), self.logvar(features))


class Gate(nn.Sequential):
    """MLP from the latent vector to one logit an expert: logit_BE."""

    def __init__(self, spec: ModelSpec) -> None:
        sizes = (spec.latent_dim, *spec.gate_hidden)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Linear(sizes[-1], spec.num_experts))


class Decoded(NamedTuple):
    """What a forward pass makes of a batch."""

    encoded: Encoded
    logit_BE: Tensor
    """Gate logits; their softmax is the gate probability p."""
    image_EBP: Tensor | None
    """Every expert's reconstruction; None when only the chosen expert was run."""
    chosen_BP: Tensor | None
    """The argmax expert's reconstruction; None when all experts were run."""


class SMoEVAE(nn.Module):
    """Encoder, gate and experts. Single-device PyTorch; placement, precision and parallelism come from outside."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.encoder = Encoder(spec)
        self.gate = Gate(spec)
        self.experts = ExpertBank(spec.decoder, spec.num_experts, spec.latent_dim)  # type: ignore[arg-type]

    def forward(self, image_BHW: Tensor, noise_BZ: Tensor | None, hard: bool = False) -> Decoded:
        """Encode, sample, gate and decode.

        Args:
            image_BHW: pixels in [0, 1].
            noise_BZ: standard normal noise of the latent sample; None takes z = mu.
            hard: run the argmax expert of each image alone instead of all experts.
        """
        encoded = self.encoder(image_BHW)
        z_BZ = encoded.mu_BZ
        if noise_BZ is not None:
            z_BZ = z_BZ + torch.exp(0.5 * encoded.logvar_BZ) * noise_BZ
        logit_BE = self.gate(z_BZ)
        if hard:
            return Decoded(encoded, logit_BE, None, self.experts.chosen(z_BZ, logit_BE.argmax(dim=1)))
        return Decoded(encoded, logit_BE, self.experts(z_BZ), None)


def build_model(spec: ModelSpec, seed: int) -> SMoEVAE:
    """A freshly initialised model on the CPU, its weights fixed by `seed` on every machine and device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SMoEVAE(spec)
