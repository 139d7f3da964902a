"""Components of a model: what each must be able to do, what it costs, and how the name in a spec becomes one.

An *architecture* is a component before it is built: it knows parameters and FLOPs without torch, and builds the module.

Shapes: B images, E experts, Z latent, C channels, H W pixels, P = C * H * W. Images are (B, H, W) where they have one
channel, else (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

from smoe_ray.spec import ModelSpec, PluginDecoder, PluginEncoder
from smoe_ray.spec.architectures import DECODERS, ENCODERS, DecoderLayers, EncoderLayers, ImageShape, LayerShapes
from smoe_ray.spec.gates import CosineGateSpec, HierarchicalGateSpec

if TYPE_CHECKING:
    from torch import Tensor


class ComponentCost(NamedTuple):
    """Parameters of a component and its FLOPs for one image."""

    params: int
    flops: int
    """Of the forward pass."""
    flops_backward: int
    """Of the backward pass: gradients of the weights, and of the input where something before it is trained."""

    def __add__(self, other: object) -> ComponentCost:  # by field, not like tuples
        if not isinstance(other, ComponentCost):
            return NotImplemented
        return ComponentCost(*map(sum, zip(self, other, strict=True)))

    def times(self, count: int) -> ComponentCost:
        """`count` such components."""
        return ComponentCost(*(count * value for value in self))


class Encoded(NamedTuple):
    """Posterior of the latent vector of each image."""

    mu_BZ: Tensor
    logvar_BZ: Tensor


class Encoder(Protocol):
    """A module from images to the posterior of their latent vectors."""

    def __call__(self, image_BHW: Tensor, /) -> Encoded:
        """Posterior mean and log variance of each image (pixels in [0, 1])."""


class Gate(Protocol):
    """A module from latent vectors to one logit per expert."""

    def __call__(self, z_BZ: Tensor, /) -> Tensor:
        """logit_BE; its softmax is the gate probability."""


class Experts(Protocol):
    """A module of E decoders that read the same latent vector."""

    num_experts: int

    def __call__(self, z_BZ: Tensor, /) -> Tensor:
        """Every expert's decoding of every latent vector: image_EBP in [0, 1]."""

    def chosen(self, z_BZ: Tensor, expert_B: Tensor) -> Tensor:
        """Each latent vector decoded by its own expert alone: image_BP."""


class EncoderArchitecture(Protocol):
    """An encoder before it is built."""

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ComponentCost:
        """Cost for images of this shape."""

    def build(self, image_shape: ImageShape, latent_dim: int) -> Encoder:
        """A freshly initialised module; needs torch."""


class DecoderArchitecture(Protocol):
    """The decoder that each of the experts is, before they are built."""

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ComponentCost:
        """Cost of one expert. Raises StudyError for a shape that the decoder cannot make."""

    def build(self, image_shape: ImageShape, num_experts: int, latent_dim: int) -> Experts:
        """A freshly initialised module of all experts; needs torch. Raises StudyError as `cost` does."""


class GateArchitecture(Protocol):
    """A gate before it is built."""

    def cost(self) -> ComponentCost:
        """Cost for one latent vector."""

    def build(self) -> Gate:
        """A freshly initialised module; needs torch."""


def encoder_architecture(name: str | PluginEncoder) -> EncoderArchitecture:
    """What `model.encoder` names: a row of the table, or a plug-in."""
    if isinstance(name, PluginEncoder):
        from smoe_ray.model.plugin_architectures import PluginEncoderArchitecture

        return PluginEncoderArchitecture(name)
    return ConvEncoderArchitecture(ENCODERS[name])


def decoder_architecture(name: str | PluginDecoder) -> DecoderArchitecture:
    """What `model.decoder` names: a row of the table, or a plug-in."""
    if isinstance(name, PluginDecoder):
        from smoe_ray.model.plugin_architectures import PluginDecoderArchitecture

        return PluginDecoderArchitecture(name)
    return ConvDecoderArchitecture(DECODERS[name])


@dataclass(frozen=True)
class ConvEncoderArchitecture:
    """A row of the table of encoders."""

    layers: EncoderLayers

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ComponentCost:
        """See `EncoderArchitecture.cost`."""
        first, *others = self.layers.shapes(image_shape)
        channels, height, width = [first, *others][-1].after
        heads = _linear(channels * height * width, latent_dim).times(2)
        # The first layer's input is the image, whose gradient is never computed.
        return sum(map(_convolution, others), _convolution(first, needs_input_gradient=False)) + heads

    def build(self, image_shape: ImageShape, latent_dim: int) -> Encoder:
        """See `EncoderArchitecture.build`."""
        from smoe_ray.model.encoder import ConvEncoder

        return ConvEncoder(self.layers, image_shape, latent_dim)


@dataclass(frozen=True)
class ConvDecoderArchitecture:
    """A row of the table of decoders."""

    layers: DecoderLayers

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ComponentCost:
        """See `DecoderArchitecture.cost`."""
        channels, height, width = self.layers.initial_shape(image_shape)
        return sum(map(_convolution, self.layers.shapes(image_shape)), _linear(latent_dim, channels * height * width))

    def build(self, image_shape: ImageShape, num_experts: int, latent_dim: int) -> Experts:
        """See `DecoderArchitecture.build`."""
        from smoe_ray.model.bank import ExpertBank

        return ExpertBank(self.layers, image_shape, num_experts, latent_dim)


def gate_architecture(spec: ModelSpec) -> GateArchitecture:
    """What `model.gate` names."""
    return _GATES[spec.gate.name](spec)


@dataclass(frozen=True)
class MLPGateArchitecture:
    """A multilayer perceptron."""

    spec: ModelSpec

    def cost(self) -> ComponentCost:
        """See `GateArchitecture.cost`."""
        return _perceptron(self.spec.latent_dim, *self.spec.gate_hidden, self.spec.num_experts)

    def build(self) -> Gate:
        """See `GateArchitecture.build`."""
        from smoe_ray.model.gate import MLPGate

        return MLPGate(self.spec.latent_dim, self.spec.gate_hidden, self.spec.num_experts)


@dataclass(frozen=True)
class CosineGateArchitecture:
    """Cosine similarity with a learnt vector per expert."""

    spec: ModelSpec

    def cost(self) -> ComponentCost:
        """See `GateArchitecture.cost`."""
        gate = self._gate()
        similarities = _linear(gate.projection, self.spec.num_experts)
        biases, scale = self.spec.num_experts, 1  # the vectors have no biases
        projection = _perceptron(self.spec.latent_dim, *self.spec.gate_hidden, gate.projection)
        return projection + similarities._replace(params=similarities.params - biases + scale)

    def build(self) -> Gate:
        """See `GateArchitecture.build`."""
        from smoe_ray.model.gate import CosineGate

        gate, spec = self._gate(), self.spec
        return CosineGate(spec.latent_dim, spec.gate_hidden, spec.num_experts, gate.projection, gate.scale)

    def _gate(self) -> CosineGateSpec:
        assert isinstance(self.spec.gate, CosineGateSpec)
        return self.spec.gate


@dataclass(frozen=True)
class HierarchicalGateArchitecture:
    """A gate over groups and one over the experts of each."""

    spec: ModelSpec

    def cost(self) -> ComponentCost:
        """See `GateArchitecture.cost`."""
        spec = self.spec
        return _perceptron(spec.latent_dim, *spec.gate_hidden, self._groups() + spec.num_experts)

    def build(self) -> Gate:
        """See `GateArchitecture.build`."""
        from smoe_ray.model.gate import HierarchicalGate

        spec = self.spec
        return HierarchicalGate(spec.latent_dim, spec.gate_hidden, spec.num_experts, self._groups())

    def _groups(self) -> int:
        assert isinstance(self.spec.gate, HierarchicalGateSpec)
        return self.spec.gate.groups


_GATES: dict[str, Callable[[ModelSpec], GateArchitecture]] = {
    "mlp": MLPGateArchitecture,
    "cosine": CosineGateArchitecture,
    "hierarchical": HierarchicalGateArchitecture,
}


def _perceptron(*sizes: int) -> ComponentCost:
    return sum((_linear(*pair) for pair in pairwise(sizes)), ComponentCost(0, 0, 0))


def _linear(n_in: int, n_out: int) -> ComponentCost:
    flops = 2 * n_in * n_out
    return ComponentCost(n_in * n_out + n_out, flops, 2 * flops)


def _convolution(shapes: LayerShapes, needs_input_gradient: bool = True) -> ComponentCost:
    (c_in, *size_in), (c_out, *size_out) = shapes.before, shapes.after
    # A transposed convolution applies its kernel once per input pixel, the others once per output pixel.
    height, width = size_in if shapes.layer.kind == "transposed" else size_out
    weights = c_in * c_out * shapes.layer.kernel**2
    flops = 2 * weights * height * width
    return ComponentCost(weights + c_out, flops, 2 * flops if needs_input_gradient else flops)
