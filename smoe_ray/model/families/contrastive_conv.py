"""A contrastive convolutional mixture of experts, for the questions of arXiv:2605.20610.

That abstract names sparsely gated convolutional experts and a contrastive objective. Ours are, beyond that: where the
experts stand (one stage of a small network, which the spec names), their form (two 3 x 3 convolutions, as every stage),
batch normalisation (in training over the images that an expert gets; group normalisation learnt far slower), and what
the gate reads (the stage's input, averaged over its pixels). The gate is the noisy top-k one of arXiv:1701.06538; its
softmax is taken before the K experts are chosen (arXiv:2106.05974), so that it learns where K is 1, and its noise has
the standard deviation 1 / E at first (the same place): with more, the two views of an image mostly went to different
experts, and what these had in common was not learnt.

Shapes: B images, E experts, K of them for each image, C channels, H W pixels, Z the representation, D its projection.
Images are (B, H, W) where they have one channel, else (B, C, H, W).
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from smoe_ray.spec import ContrastiveModelSpec, ImageShape


class Gated(NamedTuple):
    """What the gate makes of a batch."""

    logit_BE: Tensor
    """Without noise; their softmax is the gate probability, their argmax an image's expert."""
    noisy_BE: Tensor
    """With noise, where there is some: of these, the first K experts run."""
    deviation_BE: Tensor | None
    """Standard deviation of the noise; None without noise."""
    expert_BK: Tensor
    weight_BK: Tensor
    """What the experts' outputs are multiplied by: their share of the softmax over all noisy logits."""


class Represented(NamedTuple):
    """Result of a forward pass on a batch."""

    feature_BZ: Tensor
    gated: Gated


class NoisyTopKGate(nn.Module):
    """One logit per expert, and in training noise whose size is learnt (arXiv:1701.06538, equations 3 to 5)."""

    def __init__(self, channels: int, num_experts: int, experts_per_image: int) -> None:
        super().__init__()
        self.logit = nn.Linear(channels, num_experts)
        self.noise = nn.Linear(channels, num_experts)
        nn.init.zeros_(self.noise.weight)
        nn.init.constant_(self.noise.bias, math.log(math.expm1(1 / num_experts)))  # of softplus, 1 / E
        self.experts_per_image = experts_per_image

    def forward(self, pooled_BC: Tensor, normal_BE: Tensor | None) -> Gated:
        """Choose experts; `normal_BE`: standard normal noise, None for none."""
        logit_BE = self.logit(pooled_BC)
        deviation_BE = None if normal_BE is None else F.softplus(self.noise(pooled_BC))
        noisy_BE = logit_BE if deviation_BE is None or normal_BE is None else logit_BE + normal_BE * deviation_BE
        weight_BK, expert_BK = torch.softmax(noisy_BE, dim=1).topk(self.experts_per_image, dim=1)
        return Gated(logit_BE, noisy_BE, deviation_BE, expert_BK, weight_BK)


class ConvExperts(nn.Module):
    """E stages side by side, each run for the images that are dispatched to it alone."""

    def __init__(self, c_in: int, c_out: int, num_experts: int) -> None:
        super().__init__()
        self.num_experts, self.c_out = num_experts, c_out
        self.stages = nn.ModuleList(stage(c_in, c_out) for _ in range(num_experts))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Every expert's map of every image: (E, B, C, H, W)."""
        return torch.stack([expert(image_BCHW) for expert in self.stages])

    def mixed(self, image_BCHW: Tensor, gated: Gated) -> Tensor:
        """The weighted sum of the chosen experts' maps: (B, C, H, W)."""
        height, width = ((side + 1) // 2 for side in image_BCHW.shape[-2:])
        mixed_BCHW: Tensor | None = None
        for number, expert in enumerate(self.stages):
            row_N, k_N = (gated.expert_BK == number).nonzero(as_tuple=True)
            if len(row_N) == 0:
                continue
            map_NCHW = expert(image_BCHW[row_N]) * gated.weight_BK[row_N, k_N].view(-1, 1, 1, 1)
            if mixed_BCHW is None:
                mixed_BCHW = map_NCHW.new_zeros(len(image_BCHW), self.c_out, height, width)
            mixed_BCHW = mixed_BCHW.index_add(0, row_N, map_NCHW)
        assert mixed_BCHW is not None, "a batch has an image, and an image an expert"
        return mixed_BCHW


def stage(c_in: int, c_out: int) -> nn.Sequential:
    """Two convolutions, of which the first halves the side, rounded up."""
    return nn.Sequential(*_layer(c_in, c_out, stride=2), *_layer(c_out, c_out))


def _layer(c_in: int, c_out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), _BatchNorm2d(c_out), nn.ReLU()


class _BatchNorm2d(nn.BatchNorm2d):
    """Where there is one value per channel, which has no variance, training normalises as evaluation does.

    It is one image's where maps are a single pixel, and an expert gets one image.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class ContrastiveMoE(nn.Module):
    """Stem, stages with experts in one of them, and the projection head. Single-device PyTorch, as `SMoEVAE`."""

    def __init__(self, spec: ContrastiveModelSpec, image_shape: ImageShape) -> None:
        super().__init__()
        self.moe_stage = spec.moe_stage
        self.stem = nn.Sequential(*_layer(image_shape[0], spec.widths[0]))
        self.stages = nn.ModuleList(
            ConvExperts(*pair, spec.num_experts) if number == spec.moe_stage else stage(*pair)
            for number, pair in enumerate(pairwise(spec.widths), start=1)
        )
        self.gate = NoisyTopKGate(spec.widths[spec.moe_stage - 1], spec.num_experts, spec.experts_per_image)
        hidden, size = spec.projection
        self.projection = nn.Sequential(
            nn.Linear(spec.widths[-1], hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, size)
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ContrastiveMoE:
        """As `SMoEVAE.from_pretrained`.

        Raises:
            ResultsError: no such folder, or its files are not those of such a model.
        """
        from smoe_ray.model.pretrained import load_pretrained

        return load_pretrained(folder, cls)

    @property
    def experts(self) -> ConvExperts:
        """The mixture of experts."""
        experts = self.stages[self.moe_stage - 1]
        assert isinstance(experts, ConvExperts)
        return experts

    def before_experts(self, image_BHW: Tensor) -> Tensor:
        """What the gate and the experts read: (B, C, H, W)."""
        map_BCHW: Tensor = self.stem(image_BHW if image_BHW.ndim == 4 else image_BHW[:, None])
        for each in self.stages[: self.moe_stage - 1]:
            map_BCHW = each(map_BCHW)
        return map_BCHW

    def forward(self, image_BHW: Tensor, normal_BE: Tensor | None = None) -> Represented:
        """Representation and gate of images (pixels in [0, 1]); `normal_BE`: noise of the gate, None for none."""
        map_BCHW = self.before_experts(image_BHW)
        gated = self.gate(map_BCHW.mean(dim=(2, 3)), normal_BE)
        map_BCHW = self.experts.mixed(map_BCHW, gated)
        for each in self.stages[self.moe_stage :]:
            map_BCHW = each(map_BCHW)
        return Represented(map_BCHW.mean(dim=(2, 3)), gated)

    def projected(self, feature_BZ: Tensor) -> Tensor:
        """What the contrastive loss compares: unit vectors (B, D)."""
        return F.normalize(self.projection(feature_BZ), dim=1)
