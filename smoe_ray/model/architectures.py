"""Components of a model: what each must be able to do, what it costs, and how the name in a spec becomes one.

An *architecture* is a component before it is built: it knows parameters and FLOPs without torch, and builds the module.

Shapes: B images, E experts, Z latent, C channels, H W pixels, P = C * H * W. Images are (B, H, W) where they have one
channel, else (B, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import EllipsisType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from smoe_ray.spec import ModelSpec, PluginDecoder, PluginEncoder
from smoe_ray.spec.architectures import DECODERS, ENCODERS, DecoderLayers, EncoderLayers, ImageShape, LayerShapes
from smoe_ray.spec.decoders import CPDecoderSpec, DecoderWithFields, SharedDecoderSpec
from smoe_ray.spec.gates import AttentiveGateSpec, BatchNormGateSpec, CosineGateSpec, HierarchicalGateSpec

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

    @property
    def training(self) -> int:
        """FLOPs of a forward and a backward pass."""
        return self.flops + self.flops_backward

    def times(self, count: int) -> ComponentCost:
        """`count` such components."""
        return ComponentCost(*(count * value for value in self))


class ExpertsCost(NamedTuple):
    """What the experts of a model cost."""

    shared: ComponentCost
    """What an image needs once, however many experts decode it."""
    each: ComponentCost
    """Of each expert that decodes the image."""
    hidden: ComponentCost = ComponentCost(0, 0, 0)
    """The part of `each` that makes the expert's hidden layer (`ExpertsWithHidden`)."""

    def of(self, count: int) -> ComponentCost:
        """Of an image that `count` experts decode: the parameters that it meets, and its FLOPs."""
        return self.shared + self.each.times(count)

    def with_hidden_layers_of(self, num_experts: int) -> ExpertsCost:
        """Where an image meets the hidden layers of all experts, whichever decode it."""
        return ExpertsCost(self.shared + self.hidden.times(num_experts), self.each + self.hidden.times(-1))


class Activations(NamedTuple):
    """Numbers that a component holds beside its parameters. They are float32, or bfloat16 under autocast."""

    kept: int
    """Per image, from the forward pass to the end of the backward pass."""
    widest: int
    """Per image, what its largest layer needs at once, without a backward pass or for its own gradients."""
    fixed: int = 0
    """Whatever the batch: what it makes of its parameters in a training step."""
    pooled: int = 0
    """The part of `kept` that stays allocated between steps (`lite_decoders._free`)."""


class Encoded(NamedTuple):
    """Posterior of the latent vector of each image."""

    mu_BZ: Tensor
    logvar_BZ: Tensor


class Part(NamedTuple):
    """What belongs to one expert in a parameter or buffer."""

    tensor: Tensor
    row: int | EllipsisType
    """Along the first axis; ``...``: the whole tensor."""

    @property
    def value(self) -> Tensor:
        """A view of this part."""
        return self.tensor[self.row]


class Encoder(Protocol):
    """A module from images to the posterior of their latent vectors."""

    def __call__(self, image_BHW: Tensor, /) -> Encoded:
        """Posterior mean and log variance of each image (pixels in [0, 1])."""


class Gate(Protocol):
    """A module from latent vectors to one logit per expert."""

    def __call__(self, z_BZ: Tensor, /) -> Tensor:
        """logit_BE; its softmax is the gate probability."""

    def parts_of(self, expert: int) -> list[Part]:
        """What of the last layer is one expert's own; first its vector, a row of the same matrix for each."""


class GateOverHidden(Protocol):
    """A module from latent vectors, and what the experts make of them, to one logit per expert."""

    def __call__(self, z_BZ: Tensor, hidden_EBM: Tensor, /) -> Tensor:
        """logit_BE, given `ExpertsWithHidden.hidden` of the same latent vectors."""

    def parts_of(self, expert: int) -> list[Part]:
        """What of the gate is one expert's own, if anything is."""


class Experts(Protocol):
    """A module of E decoders that read the same latent vector."""

    num_experts: int

    def __call__(self, z_BZ: Tensor, /) -> Tensor:
        """Every expert's decoding of every latent vector: image_EBP in [0, 1]."""

    def chosen(self, z_BZ: Tensor, expert_B: Tensor) -> Tensor:
        """Each latent vector decoded by its own expert alone: image_BP."""

    def parts_of(self, expert: int) -> list[Part]:
        """Parameters and buffers of one expert, in the same order for each."""


class ExpertsWithHidden(Experts, Protocol):
    """Experts that show what they make of a latent vector before they decode it."""

    def hidden(self, z_BZ: Tensor, /) -> Tensor:
        """Every expert's hidden layer for every latent vector, before any activation: hidden_EBM."""


class EncoderArchitecture(Protocol):
    """An encoder before it is built."""

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ComponentCost:
        """Cost for images of this shape."""

    def activations(self, image_shape: ImageShape, latent_dim: int) -> Activations:
        """Memory for images of this shape."""

    def build(self, image_shape: ImageShape, latent_dim: int) -> Encoder:
        """A freshly initialised module; needs torch."""


class DecoderArchitecture(Protocol):
    """The decoder that each of the experts is, before they are built."""

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ExpertsCost:
        """Cost of the experts. Raises StudyError for a shape that the decoder cannot make."""

    def activations(self, image_shape: ImageShape, latent_dim: int) -> Activations:
        """Memory of one expert, its image included. Raises as `cost`."""

    def build(self, image_shape: ImageShape, num_experts: int, latent_dim: int) -> Experts:
        """A freshly initialised module of all experts; needs torch. Raises StudyError as `cost` does."""


class GateArchitecture(Protocol):
    """A gate before it is built."""

    def cost(self) -> ComponentCost:
        """Cost for one latent vector."""

    def build(self) -> Gate | GateOverHidden:
        """A freshly initialised module; needs torch."""


def encoder_architecture(name: str | PluginEncoder) -> EncoderArchitecture:
    """What `model.encoder` names: a row of the table, or a plug-in."""
    if isinstance(name, PluginEncoder):
        from smoe_ray.model.plugin_architectures import PluginEncoderArchitecture

        return PluginEncoderArchitecture(name)
    return ConvEncoderArchitecture(ENCODERS[name])


def decoder_architecture(name: str | DecoderWithFields | PluginDecoder) -> DecoderArchitecture:
    """What `model.decoder` names: a row of the table, one in CP form or beside a shared decoder, or a plug-in."""
    if isinstance(name, PluginDecoder):
        from smoe_ray.model.plugin_architectures import PluginDecoderArchitecture

        return PluginDecoderArchitecture(name)
    if isinstance(name, CPDecoderSpec):
        return CPDecoderArchitecture(DECODERS[name.layers], name.rank)
    if isinstance(name, SharedDecoderSpec):
        return SharedDecoderArchitecture(DECODERS[name.layers])
    return ConvDecoderArchitecture(DECODERS[name])


@dataclass(frozen=True)
class ConvEncoderArchitecture:
    """A row of the table of encoders."""

    layers: EncoderLayers

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ComponentCost:
        """See `EncoderArchitecture.cost`."""
        first, *others = self.layers.shapes(image_shape)
        channels, height, width = [first, *others][-1].after
        heads = linear_layer(channels * height * width, latent_dim).times(2)
        # The first layer's input is the image, whose gradient is never computed.
        return sum(map(_convolution, others), _convolution(first, needs_input_gradient=False)) + heads

    def activations(self, image_shape: ImageShape, latent_dim: int) -> Activations:  # noqa: ARG002
        """See `EncoderArchitecture.activations`. Activation functions work in place."""
        shapes = self.layers.shapes(image_shape)
        maps = [math.prod(image_shape), *(math.prod(one.after) for one in shapes)]
        features = maps[-1]  # once more, flattened: they are stored channels last
        return Activations(kept=sum(maps) + features, widest=max(map(sum, pairwise(maps))))

    def build(self, image_shape: ImageShape, latent_dim: int) -> Encoder:
        """See `EncoderArchitecture.build`."""
        from smoe_ray.model.encoder import ConvEncoder

        return ConvEncoder(self.layers, image_shape, latent_dim)


@dataclass(frozen=True)
class ConvDecoderArchitecture:
    """A row of the table of decoders."""

    layers: DecoderLayers

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ExpertsCost:
        """See `DecoderArchitecture.cost`."""
        linear = linear_layer(latent_dim, math.prod(self.layers.initial_shape(image_shape)))
        return ExpertsCost(_NOTHING, sum(map(_convolution, self.layers.shapes(image_shape)), linear), linear)

    def activations(self, image_shape: ImageShape, latent_dim: int) -> Activations:
        """See `DecoderArchitecture.activations`."""
        return _decoder_activations(self.layers, image_shape, latent_dim)

    def build(self, image_shape: ImageShape, num_experts: int, latent_dim: int) -> Experts:
        """See `DecoderArchitecture.build`."""
        from smoe_ray.model.bank import ExpertBank

        return ExpertBank(self.layers, image_shape, num_experts, latent_dim)


@dataclass(frozen=True)
class CPDecoderArchitecture:
    """A row of the table of decoders, the linear layers in CP form and the convolutions shared."""

    layers: DecoderLayers
    rank: int

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ExpertsCost:
        """See `DecoderArchitecture.cost`: latent vector to R numbers, times the expert's own, to the initial map."""
        convolutions = sum(map(_convolution, self.layers.shapes(image_shape)), _NOTHING)
        to_map = _product(self.rank, math.prod(self.layers.initial_shape(image_shape)))
        from_latent = linear_layer(latent_dim, self.rank)
        return ExpertsCost(
            from_latent._replace(params=from_latent.params + to_map.params + convolutions.params),
            (to_map + convolutions)._replace(params=self.rank),
            to_map._replace(params=self.rank),
        )

    def activations(self, image_shape: ImageShape, latent_dim: int) -> Activations:
        """See `DecoderArchitecture.activations`: its linear layer is made anew in every step."""
        numbers = _decoder_activations(self.layers, image_shape, latent_dim)
        linear = (latent_dim + 1) * math.prod(self.layers.initial_shape(image_shape))
        return numbers._replace(fixed=numbers.fixed + 2 * linear)

    def build(self, image_shape: ImageShape, num_experts: int, latent_dim: int) -> Experts:
        """See `DecoderArchitecture.build`."""
        from smoe_ray.model.bank import CPExpertBank

        return CPExpertBank(self.layers, image_shape, num_experts, latent_dim, self.rank)


@dataclass(frozen=True)
class SharedDecoderArchitecture:
    """A row of the table of decoders, and one more such decoder for all images."""

    layers: DecoderLayers

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ExpertsCost:
        """See `DecoderArchitecture.cost`."""
        own = ConvDecoderArchitecture(self.layers).cost(image_shape, latent_dim)
        return own._replace(shared=own.each)

    def activations(self, image_shape: ImageShape, latent_dim: int) -> Activations:
        """See `DecoderArchitecture.activations`; with the sum of its image and the shared one's, and their mean."""
        own = _decoder_activations(self.layers, image_shape, latent_dim)
        return own._replace(kept=own.kept + 2 * math.prod(image_shape))

    def build(self, image_shape: ImageShape, num_experts: int, latent_dim: int) -> Experts:
        """See `DecoderArchitecture.build`."""
        from smoe_ray.model.bank import SharedExpertBank

        return SharedExpertBank(self.layers, image_shape, num_experts, latent_dim)


def hidden_size(spec: ModelSpec, image_shape: ImageShape) -> int:
    """Numbers of an expert's hidden layer (`ExpertsWithHidden`), where an attentive gate reads them."""
    assert not isinstance(spec.decoder, PluginDecoder), "the spec refuses it"
    layers = DECODERS[spec.decoder if isinstance(spec.decoder, str) else spec.decoder.layers]
    return math.prod(layers.initial_shape(image_shape))


def gate_architecture(spec: ModelSpec, image_shape: ImageShape) -> GateArchitecture:
    """What `model.gate` names, in a model of images of this shape."""
    return _GATES[spec.gate.name](spec, image_shape)


@dataclass(frozen=True)
class MLPGateArchitecture:
    """A multilayer perceptron."""

    spec: ModelSpec
    image_shape: ImageShape

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
    image_shape: ImageShape

    def cost(self) -> ComponentCost:
        """See `GateArchitecture.cost`."""
        gate = self._gate()
        similarities = _product(gate.projection, self.spec.num_experts)
        projection = _perceptron(self.spec.latent_dim, *self.spec.gate_hidden, gate.projection)
        return projection + similarities._replace(params=similarities.params + 1)  # the scale

    def build(self) -> Gate:
        """See `GateArchitecture.build`."""
        from smoe_ray.model.gate import CosineGate

        gate, spec = self._gate(), self.spec
        return CosineGate(spec.latent_dim, spec.gate_hidden, spec.num_experts, gate.projection, gate.scale)

    def _gate(self) -> CosineGateSpec:
        assert isinstance(self.spec.gate, CosineGateSpec)
        return self.spec.gate


@dataclass(frozen=True)
class BatchNormGateArchitecture:
    """Logits normalised over the batch."""

    spec: ModelSpec
    image_shape: ImageShape

    def cost(self) -> ComponentCost:
        """See `GateArchitecture.cost`."""
        *hidden, last = self.spec.latent_dim, *self.spec.gate_hidden
        return _perceptron(*hidden, last) + _product(last, self.spec.num_experts)

    def build(self) -> Gate:
        """See `GateArchitecture.build`."""
        from smoe_ray.model.gate import BatchNormGate

        spec = self.spec
        assert isinstance(spec.gate, BatchNormGateSpec)
        return BatchNormGate(spec.latent_dim, spec.gate_hidden, spec.num_experts, spec.gate.scale)


@dataclass(frozen=True)
class AttentiveGateArchitecture:
    """A query against a key of each expert's hidden layer; these layers are the experts' cost."""

    spec: ModelSpec
    image_shape: ImageShape

    def cost(self) -> ComponentCost:
        """See `GateArchitecture.cost`."""
        size, spec = self._gate().projection, self.spec
        hidden = hidden_size(spec, self.image_shape)
        keys, dot_products = _product(hidden, size), _product(size, 1)._replace(params=0)
        of_experts = (keys + dot_products).times(spec.num_experts)._replace(params=keys.params)
        return _perceptron(spec.latent_dim, *spec.gate_hidden, size) + of_experts

    def build(self) -> GateOverHidden:
        """See `GateArchitecture.build`."""
        from smoe_ray.model.gate import AttentiveGate

        size, spec = self._gate().projection, self.spec
        return AttentiveGate(spec.latent_dim, spec.gate_hidden, hidden_size(spec, self.image_shape), size)

    def _gate(self) -> AttentiveGateSpec:
        assert isinstance(self.spec.gate, AttentiveGateSpec)
        return self.spec.gate


@dataclass(frozen=True)
class HierarchicalGateArchitecture:
    """A gate over groups and one over the experts of each."""

    spec: ModelSpec
    image_shape: ImageShape

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


_GATES: dict[str, Callable[[ModelSpec, ImageShape], GateArchitecture]] = {
    "mlp": MLPGateArchitecture,
    "cosine": CosineGateArchitecture,
    "batch_norm": BatchNormGateArchitecture,
    "attentive": AttentiveGateArchitecture,
    "hierarchical": HierarchicalGateArchitecture,
}


_NOTHING = ComponentCost(0, 0, 0)


def _perceptron(*sizes: int) -> ComponentCost:
    return sum((linear_layer(*pair) for pair in pairwise(sizes)), _NOTHING)


def linear_layer(n_in: int, n_out: int) -> ComponentCost:
    """A linear layer with a bias."""
    product = _product(n_in, n_out)
    return product._replace(params=product.params + n_out)


def _product(n_in: int, n_out: int) -> ComponentCost:
    """A linear layer without a bias."""
    flops = 2 * n_in * n_out
    return ComponentCost(n_in * n_out, flops, 2 * flops)


def _decoder_activations(layers: DecoderLayers, image_shape: ImageShape, latent_dim: int) -> Activations:
    """Of a decoder as `bank.Bank` computes it: linear layer and first convolution are one matrix, made anew each step.

    ELU keeps its input and its output, ReLU its output alone; `lite_decoders` work in place.
    """
    first, *others = layers.shapes(image_shape)
    columns = (latent_dim + 1) * (math.prod(first.before) + _with_corners(first))
    if layers.for_images(image_shape).is_lite:
        hidden, image = math.prod(first.after), math.prod(image_shape)
        taps = 9 * image // 4
        # The matrix has a gradient for all experts at once, and one copy of its inputs for each tap.
        fixed = 2 * latent_dim * hidden + (latent_dim + 1) * 4 * math.prod(first.before)
        return Activations(kept=hidden + image, widest=hidden + taps + 2 * image, fixed=fixed, pooled=hidden)
    kept = math.prod(image_shape)
    for layer in [first, *others][:-1]:
        size = math.prod(layer.after)
        kept += size if layers.activation == "relu" else size + (size if layer is first else _with_corners(layer))
    # Convolutions copy input and output into a layout of their own; the next layer then needs the output twice.
    widest = max(2 * math.prod(layer.before) + 2 * _with_corners(layer) for layer in [first, *others])
    return Activations(kept, widest, columns)


def _with_corners(shapes: LayerShapes) -> int:
    """Numbers of a layer's output; an upsampled one is computed with a border (`bank._conv_upsampled`)."""
    channels, height, width = shapes.after
    border = 2 if shapes.layer.kind == "upsampled" else 0
    return channels * (height + border) * (width + border)


def _convolution(shapes: LayerShapes, needs_input_gradient: bool = True) -> ComponentCost:
    (c_in, *size_in), (c_out, *size_out) = shapes.before, shapes.after
    # A transposed convolution applies its kernel once per input pixel, the others once per output pixel.
    height, width = size_in if shapes.layer.kind == "transposed" else size_out
    product = convolution(c_in, c_out, shapes.layer.kernel, (height, width), needs_input_gradient)
    return product._replace(params=product.params + c_out)


def convolution(
    c_in: int, c_out: int, kernel: int, size: Sequence[int], needs_input_gradient: bool = True
) -> ComponentCost:
    """A convolution without a bias whose square kernel is applied at `size` places."""
    weights = c_in * c_out * kernel**2
    flops = 2 * weights * math.prod(size)
    return ComponentCost(weights, flops, 2 * flops if needs_input_gradient else flops)
