"""The convolutional encoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from smoe_ray.model.architectures import Encoded
from smoe_ray.spec.architectures import EncoderLayers, ImageShape


class ConvEncoder(nn.Module):
    """Image to posterior: the convolutions of a row of the table, then two linear heads."""

    def __init__(self, layers: EncoderLayers, image_shape: ImageShape, latent_dim: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        shapes = layers.shapes(image_shape)
        modules: list[nn.Module] = []
        for layer, before, after in shapes:
            modules.append(nn.Conv2d(before[0], after[0], layer.kernel, layer.stride, padding=1))
            modules.append(nn.ReLU(inplace=True) if layers.activation == "relu" else nn.ELU(inplace=True))
        # Channels last: the layout in which convolutions are fastest, on CPUs and on GPUs.
        self.features = nn.Sequential(*modules, nn.Flatten())
        self.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        num_features = math.prod(shapes[-1].after)
        self.mu = nn.Linear(num_features, latent_dim)
        self.logvar = nn.Linear(num_features, latent_dim)

    def forward(self, image_BHW: Tensor) -> Encoded:
        """Posterior mean and log variance of each image: (B, H, W), or (B, C, H, W); pixels in [0, 1]."""
        features = self.features(image_BHW.reshape(len(image_BHW), *self.image_shape))
        return Encoded(self.mu(features), self.logvar(features))
