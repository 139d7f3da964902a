"""The bank of experts: all decoders of a model, computed together.

Every decoder reads the same latent vector, and each begins with a linear layer whose output goes, without a
nonlinearity between, into its first convolution. Two exact identities make the bank fast:

- *Linear, upsampling and convolution are one linear map.* Its matrix is what the convolution makes of the columns of
  W: 32 images per step (and one of b) instead of one for each image of the batch, then one matrix product.
- *Nearest-neighbour upsampling x2 followed by a 3x3 convolution is a 2x2 convolution of the small image* with four
  outputs, one for each pixel around a corner. Interleaved, they are the large image.

Shapes: B images, E experts, Z latent, M numbers of the initial map, C channels, H W pixels, P = C * H * W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from smoe_ray.model.architectures import Part
from smoe_ray.model.lite_decoders import Size, corner_kernel, decode_lite, lite_layers
from smoe_ray.spec.architectures import DecoderLayers, ImageShape, Layer, LayerShapes

_TILE = 256
"""Images decoded at once by their chosen expert."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "elu": F.elu}


class Bank(nn.Module):
    """E decoders of one row of the table (`smoe_ray.spec.architectures.DECODERS`), wherever their weights come from."""

    def __init__(self, layers: DecoderLayers, image_shape: ImageShape, num_experts: int) -> None:
        super().__init__()
        self.layers = layers.for_images(image_shape)
        self.num_experts = num_experts
        self.initial_shape = layers.initial_shape(image_shape)
        self.num_pixels = math.prod(image_shape)
        self.is_lite = self.layers.is_lite

    def forward(self, z_BZ: Tensor) -> Tensor:
        """Every expert's decoding of every latent vector: image_EBP in [0, 1]."""
        if self.is_lite:
            decode_all = partial(_decode_all_lite, self.initial_shape[1:])
            return _in_one_dtype(decode_all, z_BZ, *self._parameters_of_layers())
        return torch.stack([self._decode(z_BZ, *parameters) for parameters in self._parameters_of_each()])

    def hidden(self, z_BZ: Tensor) -> Tensor:
        """What every expert's linear layer makes of every latent vector: hidden_EBM, M numbers of the initial map."""
        weight_EMZ, bias_EM, *_ = self._parameters_of_layers()
        return z_BZ @ weight_EMZ.transpose(1, 2) + bias_EM[:, None]

    def first_maps(self, z_BZ: Tensor) -> Iterator[Tensor]:
        """Each expert's map behind its first convolution and activation: map_BCHW of expert 0, 1, ... in turn.

        What `hidden` gives is affine in the latent vector, so that all experts know the same; this is where they part.
        """
        activation = _ACTIVATIONS[self.layers.activation]
        for linear, linear_bias, weight, bias, *_ in self._parameters_of_each():
            yield activation(self._first_layer_of(z_BZ, linear, linear_bias, weight, bias))

    def chosen(self, z_BZ: Tensor, expert_B: Tensor) -> Tensor:
        """Each latent vector decoded by its own expert alone: image_BP. Images are grouped by expert, one pass each."""
        order_B = torch.argsort(expert_B)
        groups = order_B.split(torch.bincount(expert_B, minlength=self.num_experts).tolist())
        if self.is_lite:
            decode_chosen = partial(_decode_chosen_lite, self.initial_shape[1:], self.num_pixels, groups)
            return _in_one_dtype(decode_chosen, z_BZ, *self._parameters_of_layers())
        pairs = zip(groups, self._parameters_of_each(), strict=True)
        image_BP = torch.cat([self._decode(z_BZ[group], *parameters) for group, parameters in pairs if len(group)])
        return torch.empty_like(image_BP).index_copy(0, order_B, image_BP)

    def merged(self, z_BZ: Tensor, weight_BE: Tensor) -> Tensor:
        """Each latent vector decoded by one expert whose parameters are the weighted mean of all experts': image_BP.

        Args:
            z_BZ: latent vectors.
            weight_BE: weights of the experts, which sum to 1 for each image.
        """
        activation = _ACTIVATIONS[self.layers.activation]
        linear, linear_bias, *convolutions = (_mean_parameter(one, weight_BE) for one in self._parameters_of_layers())
        x = torch.baddbmm(linear_bias[:, :, None], linear, z_BZ[:, :, None])
        x = x.view(1, -1, *self.initial_shape[1:])  # a group of channels for each image, with kernels of its own
        for number, layer in enumerate(self.layers.layers):
            weight, bias = (one.flatten(0, 1) for one in convolutions[2 * number : 2 * number + 2])
            x = _convolve(layer, activation(x) if number else x, weight, bias, groups=len(z_BZ))
        return torch.sigmoid(x).view(len(z_BZ), -1)

    def parts_of(self, expert: int) -> list[Part]:
        """What is one expert's own."""
        raise NotImplementedError

    def _parameters_of_layers(self) -> list[Tensor]:
        """Weight and bias of the linear layer, then of each convolution, each with a first axis E."""
        raise NotImplementedError

    def _parameters_of_each(self) -> list[tuple[Tensor, ...]]:
        # unbind, not indexing: the gradient of indexing fills a whole tensor with zeros for every expert.
        return list(zip(*(tensor.unbind(0) for tensor in self._parameters_of_layers()), strict=True))

    def _decode(self, z_BZ: Tensor, linear: Tensor, linear_bias: Tensor, *convolutions: Tensor) -> Tensor:
        """One expert from the latent vector to the image: image_BP."""
        activation = _ACTIVATIONS[self.layers.activation]
        (_, weight, bias), *others = zip(self.layers.layers, convolutions[::2], convolutions[1::2], strict=True)
        x = self._first_layer_of(z_BZ, linear, linear_bias, weight, bias)
        for layer, weight, bias in others:
            x = _convolve(layer, activation(x), weight, bias)
        return torch.sigmoid(x).flatten(1)

    def _first_layer_of(
        self, z_BZ: Tensor, linear: Tensor, linear_bias: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """One expert from the latent vector through its first convolution, before the activation: (B, C, H, W)."""
        columns = torch.cat([linear.t(), linear_bias[None]]).unflatten(1, self.initial_shape)
        return _first_layer(z_BZ, _convolve(self.layers.layers[0], columns, weight), bias)


class ExpertBank(Bank):
    """E decoders without anything in common, initialised as torch's own modules.

    Parameters are stacked along a first axis E.
    """

    def __init__(self, layers: DecoderLayers, image_shape: ImageShape, num_experts: int, latent_dim: int) -> None:
        super().__init__(layers, image_shape, num_experts)
        num_initial = math.prod(self.initial_shape)
        self.linear_weight = _parameter(num_experts, num_initial, latent_dim, fan_in=latent_dim)
        self.linear_bias = _parameter(num_experts, num_initial, fan_in=latent_dim)
        self.conv_weights, self.conv_biases = _convolutions(layers.shapes(image_shape), num_experts)

    def parts_of(self, expert: int) -> list[Part]:
        """One expert's part of every parameter."""
        return [Part(parameter, expert) for parameter in self.parameters()]

    def _parameters_of_layers(self) -> list[Tensor]:
        return [self.linear_weight, self.linear_bias, *_alternating(self.conv_weights, self.conv_biases)]


class CPExpertBank(Bank):
    """E decoders whose linear layers are one tensor in CP form, and which share their convolutions: muMoE
    (arXiv:2402.12550, section 3.1) in the place of the layer that has most of the weights.

    Weight and bias of expert e, as one matrix for the latent vector with a 1 behind it (Y = Z + 1), of rank R:

        W_e = sum_r a_er u_r v_r^T,  u_r in R^M (M numbers of the initial map), v_r in R^Y.

    A further expert is R numbers, a_e. Nothing else grows with E, which convolutions of its own would undo (those of a
    lite decoder have 1,313 parameters). Initialised as there: a_er from N(1, 1), u uniform in +-1/sqrt(R) and v uniform
    in +-1/sqrt(Z), so that experts begin as variations of one layer.

    The images are computed from W_e, as `ExpertBank` does; its cost is counted in the factors, as they are defined.
    """

    def __init__(
        self, layers: DecoderLayers, image_shape: ImageShape, num_experts: int, latent_dim: int, rank: int
    ) -> None:
        super().__init__(layers, image_shape, num_experts)
        self.expert_ER = nn.Parameter(torch.empty(num_experts, rank).normal_(mean=1))
        self.initial_MR = _parameter(math.prod(self.initial_shape), rank, fan_in=rank)
        self.latent_RY = _parameter(rank, latent_dim + 1, fan_in=latent_dim)
        self.conv_weights, self.conv_biases = _convolutions(layers.shapes(image_shape))

    def parts_of(self, expert: int) -> list[Part]:
        """Its R numbers."""
        return [Part(self.expert_ER, expert)]

    def _parameters_of_layers(self) -> list[Tensor]:
        # First the R rank-one matrices: their size does not depend on E.
        term_RMY = self.initial_MR.t()[:, :, None] * self.latent_RY[:, None]
        weight_EMY = (self.expert_ER @ term_RMY.flatten(1)).unflatten(1, term_RMY.shape[1:])
        shared = _alternating(self.conv_weights, self.conv_biases)
        each = [tensor.expand(self.num_experts, *tensor.shape) for tensor in shared]
        return [weight_EMY[..., :-1], weight_EMY[..., -1], *each]


class SharedExpertBank(ExpertBank):
    """E decoders beside one more, for all images: the image of an expert is the mean of its own and the shared one's.

    DeepSeekMoE (arXiv:2401.06066, section 3.2) adds the two; their mean stays in [0, 1]. What experts have in common
    need not be learnt by each. Hidden layers, and what is merged, are those of an expert's own decoder.
    """

    def __init__(self, layers: DecoderLayers, image_shape: ImageShape, num_experts: int, latent_dim: int) -> None:
        super().__init__(layers, image_shape, num_experts, latent_dim)
        self.shared = ExpertBank(layers, image_shape, 1, latent_dim)

    def forward(self, z_BZ: Tensor) -> Tensor:
        """See `Bank.forward`."""
        image_EBP: Tensor = (super().forward(z_BZ) + self.shared(z_BZ)) / 2
        return image_EBP

    def chosen(self, z_BZ: Tensor, expert_B: Tensor) -> Tensor:
        """See `Bank.chosen`."""
        return self._with_shared(super().chosen(z_BZ, expert_B), z_BZ)

    def merged(self, z_BZ: Tensor, weight_BE: Tensor) -> Tensor:
        """See `Bank.merged`."""
        return self._with_shared(super().merged(z_BZ, weight_BE), z_BZ)

    def parts_of(self, expert: int) -> list[Part]:
        """One expert's part of every parameter that is not the shared decoder's."""
        shared = set(self.shared.parameters())
        return [Part(parameter, expert) for parameter in self.parameters() if parameter not in shared]

    def _with_shared(self, image_BP: Tensor, z_BZ: Tensor) -> Tensor:
        shared_BP: Tensor = self.shared(z_BZ)[0]
        return (image_BP + shared_BP) / 2


def _convolutions(layers: Sequence[LayerShapes], *experts: int) -> tuple[nn.ParameterList, nn.ParameterList]:
    """Weights and biases of convolutions; with a first axis, where `experts` is its size."""
    weights, biases = nn.ParameterList(), nn.ParameterList()
    for shapes in layers:
        fan_in = math.prod(shapes.weight[1:])  # as torch computes it, for a transposed convolution too
        weights.append(_parameter(*experts, *shapes.weight, fan_in=fan_in))
        biases.append(_parameter(*experts, shapes.after[0], fan_in=fan_in))
    return weights, biases


def _alternating(weights: Iterable[Tensor], biases: Iterable[Tensor]) -> list[Tensor]:
    """Weight and bias of each layer in turn."""
    return [tensor for pair in zip(weights, biases, strict=True) for tensor in pair]


def _decode_all_lite(initial: Size, z_BZ: Tensor, *parameters: Tensor) -> Tensor:
    return decode_lite(z_BZ, initial, lite_layers(initial, *parameters))


def _decode_chosen_lite(
    initial: Size, num_pixels: int, groups: Sequence[Tensor], z_BZ: Tensor, *parameters: Tensor
) -> Tensor:
    image_BP = z_BZ.new_empty(len(z_BZ), num_pixels)
    for group, layers in zip(groups, lite_layers(initial, *parameters).split(), strict=True):
        # In tiles: an activation of a tile stays in a CPU's cache, and memory does not grow with the group.
        for tile in group.split(_TILE) if len(group) else ():
            image_BP.index_copy_(0, tile, decode_lite(z_BZ[tile], initial, layers)[0])
    return image_BP


def _in_one_dtype(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`function` in autocast's dtype as a whole: autocast chooses one per operation, and none for a backward."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return function(*tensors)
    dtype = torch.get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        return function(*(tensor.to(dtype) for tensor in tensors))


def _first_layer(z_BZ: Tensor, columns: Tensor, bias_C: Tensor) -> Tensor:
    """Linear layer and first convolution as one product, given the convolved columns (Z + 1, C, H, W): (B, C, H, W)."""
    offset = columns[-1] + bias_C[:, None, None]
    return torch.addmm(offset.flatten(), z_BZ, columns[:-1].flatten(1)).view(-1, *columns.shape[1:])


def _mean_parameter(parameter: Tensor, weight_BE: Tensor) -> Tensor:
    """The weighted mean of a parameter (E, ...) over the experts, for each image: (B, ...)."""
    mean: Tensor = (weight_BE @ parameter.flatten(1)).unflatten(1, parameter.shape[1:])
    return mean


def _convolve(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """A layer of the table, without activation."""
    if layer.kind == "upsampled":
        return _conv_upsampled(x, weight, bias, groups)
    convolution = F.conv_transpose2d if layer.kind == "transposed" else F.conv2d
    return convolution(x, weight, bias, stride=layer.stride, padding=1, groups=groups)


def _conv_upsampled(x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """3x3 convolution (padding 1) of the nearest-neighbour x2 upsampling of x (B, I, H, W), exactly: (B, O, 2H, 2W)."""
    bias = None if bias is None else bias.repeat_interleave(4)
    corners = F.conv2d(x, corner_kernel(weight).flatten(0, 2), bias, padding=1, groups=groups)
    return F.pixel_shuffle(corners, 2)[..., 1:-1, 1:-1]


def _parameter(*shape: int, fan_in: int) -> nn.Parameter:
    """Uniform in +-1/sqrt(fan_in): torch's default for the weights and biases of linear layers and convolutions."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
