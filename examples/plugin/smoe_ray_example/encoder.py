"""A perceptron in place of the convolutional encoder. B images, Z latent."""

import math

from pydantic import Field
from torch import Tensor, nn

from smoe_ray import spec
from smoe_ray.model import Encoded


class Perceptron(nn.Module):
    """Image to posterior by one hidden layer."""

    class Spec(spec.Spec):
        """Parameters of the encoder."""

        hidden: int = Field(default=64, ge=1, description="hidden units")

    def __init__(self, spec: Spec, image_shape: tuple[int, ...], latent_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), spec.hidden), nn.ReLU())
        self.mu = nn.Linear(spec.hidden, latent_dim)
        self.logvar = nn.Linear(spec.hidden, latent_dim)

    def forward(self, image_BHW: Tensor) -> Encoded:
        """Posterior mean and log variance of each image (pixels in [0, 1])."""
        hidden = self.hidden(image_BHW)
        return Encoded(self.mu(hidden), self.logvar(hidden))
