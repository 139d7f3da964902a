"""Layers of the built-in encoders and decoders: plain data.

Modules (`smoe_ray.model`), their cost and the names that a `ModelSpec` accepts all follow from the two tables below: a
new row is a new architecture. Released code and text: arXiv:2509.10025, section 3.

Shapes: C channels, H W pixels.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Literal, NamedTuple

from smoe_ray.errors import StudyError

ImageShape = tuple[int, int, int]
"""(C, H, W) of an image."""

MIN_SIDE, MAX_SIDE = 8, 128
"""Smallest and largest height and width of an image, in pixels."""

_TABLE_SIDE = 32
"""Smaller side of images, in pixels, up to which an architecture that deepens has exactly the layers of its row."""

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
    deepens: bool = False
    """One more of the last layer for each doubling of the smaller side of the images above 32 pixels."""

    def for_images(self, image_shape: ImageShape) -> EncoderLayers:
        """The layers for images of this size."""
        more = self.layers[-1:] * _doublings(image_shape) if self.deepens else ()
        return self._replace(layers=self.layers + more, deepens=False)

    def shapes(self, image_shape: ImageShape) -> list[LayerShapes]:
        """The layers from the image to the features below the heads."""
        return _shapes(self.for_images(image_shape).layers, image_shape, image_channels=image_shape[0])


class DecoderLayers(NamedTuple):
    """A linear layer to a small map, then convolutions with the activation between them; a sigmoid ends the decoder."""

    activation: Activation
    initial_channels: int
    """Channels of the map that the linear layer makes."""
    layers: tuple[Layer, ...]
    deepens: bool = False
    """One more of the first layer for each doubling of the smaller side of the images above 32 pixels."""

    def for_images(self, image_shape: ImageShape) -> DecoderLayers:
        """The layers for images of this size."""
        more = self.layers[:1] * _doublings(image_shape) if self.deepens else ()
        return self._replace(layers=more + self.layers, deepens=False)

    @property
    def is_lite(self) -> bool:
        """Whether these, `for_images` of some size, are what `lite_decoders` computes.

        Two upsampled 3x3 convolutions with an ELU between.
        """
        kinds = [(layer.kind, layer.kernel, layer.stride) for layer in self.layers]
        return kinds == [("upsampled", 3, 1)] * 2 and self.activation == "elu"

    def scale(self, image_shape: ImageShape) -> int:
        """Height and width of an image of this size over those of the initial map."""
        layers = self.for_images(image_shape).layers
        return math.prod(2 if layer.kind == "upsampled" else layer.stride for layer in layers)

    def makes(self, image_shape: ImageShape) -> bool:
        """Whether a map grows to images of this size."""
        scale = self.scale(image_shape)
        return all(side % scale == 0 for side in image_shape[1:])

    def initial_shape(self, image_shape: ImageShape) -> ImageShape:
        """Shape of the map that the linear layer makes. Raises StudyError where no map would grow to this image."""
        _, height, width = image_shape
        if not self.makes(image_shape):
            raise StudyError(
                f"model.decoder: images are {height}x{width} pixels, which this decoder cannot make; nearest to that "
                f"it can make {self._nearest_sizes(height, width)}: resize the images (data.image.size makes squares) "
                "or choose another decoder"
            )
        scale = self.scale(image_shape)
        return (self.initial_channels, height // scale, width // scale)

    def shapes(self, image_shape: ImageShape) -> list[LayerShapes]:
        """The convolutions from the initial map to the image."""
        layers = self.for_images(image_shape).layers
        return _shapes(layers, self.initial_shape(image_shape), image_channels=image_shape[0])

    def _nearest_sizes(self, height: int, width: int) -> str:
        """The nearest sizes that the decoder can make, of no larger and of no smaller sides; squares for a square."""

        def distance(size: tuple[int, int]) -> int:
            return abs(size[0] - height) + abs(size[1] - width)

        sides = range(MIN_SIDE, MAX_SIDE + 1)
        candidates = zip(sides, sides, strict=True) if height == width else product(sides, sides)
        sizes = [size for size in candidates if self.makes((1, *size))]
        smaller = [size for size in sizes if size[0] <= height and size[1] <= width]
        larger = [size for size in sizes if size[0] >= height and size[1] >= width]
        nearest = [min(group, key=distance) for group in (smaller, larger) if group]
        return " and ".join(f"{height}x{width}" for height, width in nearest)


def _doublings(image_shape: ImageShape) -> int:
    """How often 32 pixels must be doubled to reach the smaller side: 0 up to 32, 1 up to 64, 2 up to 128.

    The smaller side: by the larger one, the maps of a long image would shrink to nothing across it.
    """
    return max(0, math.ceil(math.log2(min(image_shape[1:]) / _TABLE_SIDE)))


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
    "medium": EncoderLayers(
        "relu", (Layer("conv", 32), Layer("conv", 64, stride=2), Layer("conv", 128, stride=2)), deepens=True
    ),
}

DECODERS: dict[str, DecoderLayers] = {
    # The paper's experts.
    "lite": DecoderLayers("elu", 8, (Layer("upsampled", 16), Layer("upsampled", None))),
    "medium": DecoderLayers(
        "elu", 32, (Layer("upsampled", 64), Layer("upsampled", 32), Layer("conv", None)), deepens=True
    ),
    "large": DecoderLayers(
        "relu",
        128,
        (
            Layer("transposed", 64, kernel=4, stride=2),
            Layer("transposed", 32, kernel=4, stride=2),
            Layer("transposed", None),
        ),
        deepens=True,
    ),
}
