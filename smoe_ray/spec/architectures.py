"""Layers of the built-in encoders and decoders: plain data.

Modules (`smoe_ray.model`), their cost and the names that a `ModelSpec` accepts all follow from the two tables below: a
new row is a new architecture. Released code and text: arXiv:2509.10025, section 3.

Shapes: C channels, H W pixels.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from smoe_ray.errors import StudyError

ImageShape = tuple[int, int, int]
"""(C, H, W) of an image."""

Activation = Literal["relu", "elu"]


class Layer(NamedTuple):
    """A convolution with a square kernel and padding 1."""

    kind: Literal["conv", "upsampled", "transposed"]
    """conv: torch's `Conv2d`; upsampled: nearest-neighbour x2, then `Conv2d`; transposed: `ConvTranspose2d`."""
    channels: int | None
    """Output channels; None: as many as the images have."""
    kernel: int = 3
    stride: int = 1

    def size_after(self, size: int) -> int:
        """Height or width of the output, given that of the input."""
        if self.kind == "transposed":
            return (size - 1) * self.stride - 2 + self.kernel
        return ((2 * size if self.kind == "upsampled" else size) + 2 - self.kernel) // self.stride + 1


class LayerShapes(NamedTuple):
    """A layer with the shapes of its input and output."""

    layer: Layer
    before: ImageShape
    after: ImageShape

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """Shape of the weight, as torch's module of this kind stores it."""
        pair = (self.before[0], self.after[0]) if self.layer.kind == "transposed" else (self.after[0], self.before[0])
        return (*pair, self.layer.kernel, self.layer.kernel)


class EncoderLayers(NamedTuple):
    """Convolutions, each with the activation behind it; two linear heads (mean, log variance) follow."""

    activation: Activation
    layers: tuple[Layer, ...]

    def shapes(self, image_shape: ImageShape) -> list[LayerShapes]:
        """The layers from the image to the features below the heads."""
        return _shapes(self.layers, image_shape, image_channels=image_shape[0])


class DecoderLayers(NamedTuple):
    """A linear layer to a small map, then convolutions with the activation between them; a sigmoid ends the decoder."""

    activation: Activation
    initial_channels: int
    """Channels of the map that the linear layer makes."""
    layers: tuple[Layer, ...]

    @property
    def scale(self) -> int:
        """Height and width of the image over those of the initial map."""
        return math.prod(2 if layer.kind == "upsampled" else layer.stride for layer in self.layers)

    def initial_shape(self, image_shape: ImageShape) -> ImageShape:
        """Shape of the map that the linear layer makes. Raises StudyError where no map would grow to this image."""
        _, height, width = image_shape
        if height % self.scale or width % self.scale:
            raise StudyError(
                f"model.decoder: images are {height}x{width} pixels; this decoder needs sides that are multiples of "
                f"{self.scale}: choose another decoder, or resize the images"
            )
        return (self.initial_channels, height // self.scale, width // self.scale)

    def shapes(self, image_shape: ImageShape) -> list[LayerShapes]:
        """The convolutions from the initial map to the image."""
        return _shapes(self.layers, self.initial_shape(image_shape), image_channels=image_shape[0])


def _shapes(layers: tuple[Layer, ...], before: ImageShape, image_channels: int) -> list[LayerShapes]:
    steps = []
    for layer in layers:
        _, height, width = before
        channels = image_channels if layer.channels is None else layer.channels
        after = (channels, layer.size_after(height), layer.size_after(width))
        steps.append(LayerShapes(layer, before, after))
        before = after
    return steps


ENCODERS: dict[str, EncoderLayers] = {
    "lite": EncoderLayers("elu", (Layer("conv", 16, stride=2), Layer("conv", 8, stride=2))),
    "medium": EncoderLayers("relu", (Layer("conv", 32), Layer("conv", 64, stride=2), Layer("conv", 128, stride=2))),
}

DECODERS: dict[str, DecoderLayers] = {
    # The paper's experts.
    "lite": DecoderLayers("elu", 8, (Layer("upsampled", 16), Layer("upsampled", None))),
    "medium": DecoderLayers("elu", 32, (Layer("upsampled", 64), Layer("upsampled", 32), Layer("conv", None))),
    "large": DecoderLayers(
        "relu",
        128,
        (
            Layer("transposed", 64, kernel=4, stride=2),
            Layer("transposed", 32, kernel=4, stride=2),
            Layer("transposed", None),
        ),
    ),
}
