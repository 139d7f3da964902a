"""The sparse mixture-of-experts VAE (arXiv:2509.10025, section 3): encoder, gate and E decoders.

Shapes: B images, E experts, K of them for each image, Z latent, C channels, H W pixels, P = C * H * W. Images are
(B, H, W) where they have one channel, else (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from smoe_ray.errors import StudyError
from smoe_ray.model.architectures import (
    Encoded,
    Encoder,
    Experts,
    ExpertsWithHidden,
    Gate,
    GateOverHidden,
    Part,
    decoder_architecture,
    encoder_architecture,
    gate_architecture,
)
from smoe_ray.model.bank import Bank
from smoe_ray.model.gate import AttentiveGate
from smoe_ray.spec import ImageShape, ModelSpec
from smoe_ray.spec.objectives import Decodes


class Decoded(NamedTuple):
    """Result of a forward pass on a batch."""

    encoded: Encoded
    logit_BE: Tensor
    """Gate logits; their softmax is the gate probability p."""
    image_EBP: Tensor | None
    """Every expert's reconstruction; None when only chosen experts were run."""
    chosen_KBP: Tensor | None
    """Reconstructions by the K experts that each image was dispatched to; None when all experts were run."""
    expert_BK: Tensor | None = None
    """These experts; None when all were run."""
    merged_BP: Tensor | None = None
    """Reconstructions by one expert per image with the gate-weighted mean of all parameters; None when experts were
    run as they are."""

    @property
    def chosen_BP(self) -> Tensor | None:  # noqa: N802 - named by its shape
        """Reconstruction by the first chosen expert; None when all experts were run."""
        return None if self.chosen_KBP is None else self.chosen_KBP[0]


Choose = Callable[[Tensor], Tensor]
"""From gate logits (B, E) to the experts of each image (B, K)."""


def as_it_is(logit_BE: Tensor) -> Tensor:
    """Gate logits without a change."""
    return logit_BE


def first_choice(logit_BE: Tensor) -> Tensor:
    """The expert with the highest gate logit: (B, 1)."""
    return logit_BE.argmax(dim=1, keepdim=True)


class SMoEVAE(nn.Module):
    """Encoder, gate and experts. Single-device PyTorch; placement, precision and parallelism come from outside."""

    def __init__(self, spec: ModelSpec, image_shape: ImageShape) -> None:
        super().__init__()
        self.encoder: Encoder = encoder_architecture(spec.encoder).build(image_shape, spec.latent_dim)
        self.gate: Gate | GateOverHidden = gate_architecture(spec, image_shape).build()
        self.experts: Experts = decoder_architecture(spec.decoder).build(image_shape, spec.num_experts, spec.latent_dim)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> SMoEVAE:
        """The model in a folder that ``smoe-ray export --model`` wrote, on the CPU, in evaluation mode.

        Raises:
            ResultsError: no such folder, or its files are not those of a model.
            PluginError: it has a plug-in that is not allowed or not installed.
        """
        from smoe_ray.model.pretrained import load_pretrained

        return load_pretrained(folder, cls)

    def parts_of(self, expert: int) -> list[Part]:
        """What belongs to one expert alone: its part of the gate's last layer, and its decoder."""
        return [*self.gate.parts_of(expert), *self.experts.parts_of(expert)]

    def forward(
        self,
        image_BHW: Tensor,
        noise_BZ: Tensor | None,
        decodes: Decodes = "all",
        choose: Choose = first_choice,
        modify: Callable[[Tensor], Tensor] = as_it_is,
    ) -> Decoded:
        """Encode, sample, gate and decode.

        Args:
            image_BHW: pixels in [0, 1].
            noise_BZ: standard normal noise of the latent sample; None takes z = mu.
            decodes: which experts run: all; the chosen ones of each image alone; or one per image with the
                gate-weighted mean of all parameters (``merged``).
            choose: which are ``chosen``; by default the argmax of the gate.
            modify: makes the gate logits of this pass from those of the gate.

        Raises:
            StudyError: ``merged``, and the experts are a plug-in's decoders, whose parameters have no mean.
        """
        encoded = self.encoder(image_BHW)
        z_BZ = encoded.mu_BZ
        if noise_BZ is not None:
            z_BZ = z_BZ + torch.exp(0.5 * encoded.logvar_BZ) * noise_BZ
        logit_BE = modify(self.logits(z_BZ))
        if decodes == "merged":
            if not isinstance(self.experts, Bank):
                raise StudyError("the objective averages the parameters of experts, which these decoders do not offer")
            merged_BP = self.experts.merged(z_BZ, torch.softmax(logit_BE, dim=1))
            return Decoded(encoded, logit_BE, None, None, merged_BP=merged_BP)
        if decodes == "chosen":
            expert_BK = choose(logit_BE)
            K = expert_BK.shape[1]
            chosen = self.experts.chosen(z_BZ.repeat(K, 1), expert_BK.t().flatten())
            return Decoded(encoded, logit_BE, None, chosen.unflatten(0, (K, -1)), expert_BK)
        return Decoded(encoded, logit_BE, self.experts(z_BZ), None)

    def logits(self, z_BZ: Tensor) -> Tensor:
        """Gate logits (B, E) of latent vectors."""
        if isinstance(self.gate, AttentiveGate):
            return cast(GateOverHidden, self.gate)(z_BZ, cast(ExpertsWithHidden, self.experts).hidden(z_BZ))
        return cast(Gate, self.gate)(z_BZ)
