"""The bank of experts: all decoders of a model, computed together.

Every decoder reads the same latent vector, and each begins with a linear layer whose output goes, without a
nonlinearity between, into its first convolution. Two exact identities make the bank fast:

- *Linear, upsampling and convolution are one linear map.* Its matrix is what the convolution makes of the columns of
  W: 32 images a step (and one of b) instead of one for each image of the batch, then one matrix product.
- *Nearest-neighbour upsampling x2 followed by a 3x3 convolution is a 2x2 convolution of the small image* with four
  outputs, one for each pixel around a corner. Interleaved, they are the large image.

Shapes: B images, E experts, Z latent, C channels, H W pixels, P = H * W = 784, S small pixels (14 * 14).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from smoe_ray.model.lite_decoders import SEED_SIDE, corner_kernel, decode_lite, lite_layers
from smoe_ray.spec import IMAGE_SIDE

_TILE = 256
"""Images decoded at once by their chosen expert."""

PIXELS = IMAGE_SIDE * IMAGE_SIDE
DecoderName = Literal["lite", "medium", "large"]


class ExpertBank(nn.Module):
    """E decoders of one architecture (arXiv:2509.10025, section 3); parameters are stacked along a first axis E.

    Layers, each with weights as torch's own modules would have them:

    - ``lite`` (the paper's experts): linear Z -> 8x7x7; nearest x2, conv 8 -> 16, ELU; nearest x2, conv 16 -> 1.
    - ``medium``: linear Z -> 32x7x7; nearest x2, conv 32 -> 64, ELU; nearest x2, conv 64 -> 32, ELU; conv 32 -> 1.
    - ``large``: linear Z -> 128x7x7; transposed conv 128 -> 64, ReLU; 64 -> 32, ReLU (both 4x4, stride 2); 32 -> 1.

    All convolutions are 3x3 with padding 1 unless said otherwise; a sigmoid ends each decoder.
    """

    def __init__(self, decoder: DecoderName, num_experts: int, latent_dim: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.num_experts = num_experts
        channels: Sequence[int] = {"lite": (8, 16, 1), "medium": (32, 64, 32, 1), "large": (128, 64, 32, 1)}[decoder]
        self.channels = tuple(channels)
        self.linear_weight = _parameter(num_experts, channels[0] * SEED_SIDE**2, latent_dim, fan_in=latent_dim)
        self.linear_bias = _parameter(num_experts, channels[0] * SEED_SIDE**2, fan_in=latent_dim)
        self.conv_weights = nn.ParameterList()
        self.conv_biases = nn.ParameterList()
        for layer, (c_in, c_out) in enumerate(pairwise(channels)):
            if decoder == "large":  # a transposed convolution stores (in, out); torch takes out * k * k for its fan-in
                side = 3 if layer == len(channels) - 2 else 4
                shape, fan_in = (c_in, c_out, side, side), c_out * side**2
            else:
                shape, fan_in = (c_out, c_in, 3, 3), c_in * 9
            self.conv_weights.append(_parameter(num_experts, *shape, fan_in=fan_in))
            self.conv_biases.append(_parameter(num_experts, c_out, fan_in=fan_in))

    def forward(self, z_BZ: Tensor) -> Tensor:
        """Every expert's decoding of every latent vector: image_EBP in [0, 1]."""
        if self.decoder == "lite":
            return _in_one_dtype(_decode_all_lite, z_BZ, *self._parameters_of_layers())
        return torch.stack([self._decode(z_BZ, *layers) for layers in self._layers_of_each()])

    def chosen(self, z_BZ: Tensor, expert_B: Tensor) -> Tensor:
        """Each latent vector decoded by its own expert alone: image_BP. Images are grouped by expert, one pass each."""
        order_B = torch.argsort(expert_B)
        groups = order_B.split(torch.bincount(expert_B, minlength=self.num_experts).tolist())
        if self.decoder == "lite":
            return _in_one_dtype(partial(_decode_chosen_lite, groups), z_BZ, *self._parameters_of_layers())
        pairs = zip(groups, self._layers_of_each(), strict=True)
        image_BP = torch.cat([self._decode(z_BZ[group], *layers) for group, layers in pairs if len(group)])
        return torch.empty_like(image_BP).index_copy(0, order_B, image_BP)

    def _parameters_of_layers(self) -> list[Tensor]:
        """Weight and bias of the linear layer, then of each convolution."""
        pairs = zip(self.conv_weights, self.conv_biases, strict=True)
        return [self.linear_weight, self.linear_bias, *(tensor for pair in pairs for tensor in pair)]

    def _layers_of_each(self) -> list[tuple[Tensor, ...]]:
        # unbind, not indexing: the gradient of indexing fills a whole tensor with zeros for every expert.
        return list(zip(*(tensor.unbind(0) for tensor in self._parameters_of_layers()), strict=True))

    def _decode(self, z_BZ: Tensor, linear: Tensor, linear_bias: Tensor, *convolutions: Tensor) -> Tensor:
        """One medium or large expert from the latent vector to the image: image_BP."""
        first, first_bias, second, second_bias, last, last_bias = convolutions
        columns = torch.cat([linear.t(), linear_bias[None]]).unflatten(1, (self.channels[0], SEED_SIDE, SEED_SIDE))
        if self.decoder == "medium":
            x = F.elu(_first_layer(z_BZ, _conv_upsampled(columns, first), first_bias))
            x = F.elu(_conv_upsampled(x, second, second_bias))
            x = F.conv2d(x, last, last_bias, padding=1)
        else:
            columns = F.conv_transpose2d(columns, first, stride=2, padding=1)
            x = F.relu(_first_layer(z_BZ, columns, first_bias))
            x = F.relu(F.conv_transpose2d(x, second, second_bias, stride=2, padding=1))
            x = F.conv_transpose2d(x, last, last_bias, stride=1, padding=1)
        return torch.sigmoid(x).flatten(1)


def _decode_all_lite(z_BZ: Tensor, *parameters: Tensor) -> Tensor:
    return decode_lite(z_BZ, lite_layers(*parameters))


def _decode_chosen_lite(groups: Sequence[Tensor], z_BZ: Tensor, *parameters: Tensor) -> Tensor:
    image_BP = z_BZ.new_empty(len(z_BZ), PIXELS)
    for group, layers in zip(groups, lite_layers(*parameters).split(), strict=True):
        # In tiles: an activation of a tile stays in a CPU's cache, and memory does not grow with the group.
        for tile in group.split(_TILE) if len(group) else ():
            image_BP.index_copy_(0, tile, decode_lite(z_BZ[tile], layers)[0])
    return image_BP


def _in_one_dtype(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`function` in autocast's dtype as a whole: autocast chooses one for each operation, and none for a backward."""
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


def _conv_upsampled(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """3x3 convolution (padding 1) of the nearest-neighbour x2 upsampling of x (B, I, H, W), exactly: (B, O, 2H, 2W)."""
    bias = None if bias is None else bias.repeat_interleave(4)
    corners = F.conv2d(x, corner_kernel(weight).flatten(0, 2), bias, padding=1)
    return F.pixel_shuffle(corners, 2)[..., 1:-1, 1:-1]


def _parameter(*shape: int, fan_in: int) -> nn.Parameter:
    """Uniform in +-1/sqrt(fan_in): torch's default for the weights and biases of linear layers and convolutions."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
