"""From a spec to a model with fresh weights."""

from __future__ import annotations

from typing import overload

import torch

from smoe_ray.model.families.contrastive_conv import ContrastiveMoE
from smoe_ray.model.families.smoe_vae import SMoEVAE
from smoe_ray.spec import AnyModelSpec, ContrastiveModelSpec, ImageShape, ModelSpec


@overload
def build_model(spec: ModelSpec, image_shape: ImageShape, seed: int) -> SMoEVAE: ...
@overload
def build_model(spec: ContrastiveModelSpec, image_shape: ImageShape, seed: int) -> ContrastiveMoE: ...
def build_model(spec: AnyModelSpec, image_shape: ImageShape, seed: int) -> SMoEVAE | ContrastiveMoE:
    """A freshly initialised model on the CPU, its weights fixed by `seed` on every machine and device.

    Args:
        spec: the model.
        image_shape: (C, H, W) of its images.
        seed: of the initial weights.

    Raises:
        StudyError: the decoder cannot make images of this shape.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(spec, ContrastiveModelSpec):
            return ContrastiveMoE(spec, image_shape)
        return SMoEVAE(spec, image_shape)
