"""The `lite` decoders of many experts as a handful of matrix products: forward and backward, written out.

A lite decoder is linear Z -> I x 7 x 7; nearest x2, conv 3x3 I -> O, ELU; nearest x2, conv 3x3 O -> 1; sigmoid, with
I = 8 and O = 16 channels: too few for convolution routines to do well. Three exact identities:

- A 3x3 convolution of the upsampled image is a 2x2 convolution of the small one with four outputs, one for each large
  pixel around a *corner*, the point between four small pixels (`corner_kernel`).
- Linear layer and first convolution are one linear map, for nothing nonlinear stands between them. Its matrix is what
  the convolution makes of the Z + 1 columns of [W; b]: 33 images a step instead of one for each image of the batch.
- With the batch (or the columns) as the innermost axis, both convolutions are matrix products over long rows, and to
  shift an image by a pixel moves whole rows. The first convolution shifts its 8 inputs and then multiplies; the
  second multiplies and then shifts its one output.

Shapes: B images, E experts, n experts of a group, Z latent (Z1 = Z + 1), I O channels, u v = taps (2 x 2 small pixels
around a corner), a b = phases (2 x 2 large pixels around it), p q = parities of a large pixel's row and column.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

SEED_SIDE = 7
"""Height and width of the map that the linear layer makes."""

_TAPS = tuple(product(range(2), range(2)))


class LiteLayers(NamedTuple):
    """The layers of n lite decoders, as what the images are multiplied with."""

    matrix: Tensor
    """(n, O * 14 * 14, Z + 1): linear layer and first convolution as one; the offset is the last column."""
    taps: Tensor
    """(n, u v a b, O): second convolution."""
    bias: Tensor
    """(n, 1): of the second convolution."""

    def split(self) -> Iterator[LiteLayers]:
        """Each expert by itself."""
        return map(LiteLayers, *(tensor.split(1) for tensor in self))


def lite_layers(linear: Tensor, first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor) -> LiteLayers:
    """Bring the parameters of E lite decoders into the form in which they multiply.

    Args:
        linear: (E, I * 7 * 7, Z + 1), the bias as last column.
        first: weight (E, O, I, 3, 3) of the first convolution; `first_bias` (E, O).
        second: weight (E, 1, O, 3, 3) of the second convolution; `second_bias` (E, 1).
    """
    # Flipped, because parity p = 1 - a, and in the second convolution tap u moves the output by 1 - u.
    kernel = corner_kernel(first).flip(2, 3).flatten(4).flatten(1, 3)  # (E, O p q, I u v)
    kernel = torch.cat([kernel, first_bias.repeat_interleave(4, dim=1)[:, :, None]], dim=2)
    taps = corner_kernel(second)[:, 0].permute(0, 4, 5, 1, 2, 3).flip(1, 2).flatten(1, 4)  # (E, u v a b, O)
    matrix = _FirstLayer.apply(linear, kernel)  # type: ignore[no-untyped-call]
    return LiteLayers(matrix, taps, second_bias)


def decode_lite(z_BZ: Tensor, layers: LiteLayers) -> Tensor:
    """Decode every latent vector by every one of n experts.

    Returns:
        image_nBP in [0, 1], P = 28 * 28; strides put B innermost.
    """
    z1_ZB = F.pad(z_BZ, (0, 1), value=1.0).t().contiguous()
    image: Tensor = _SecondLayer.apply(z1_ZB, *layers)  # type: ignore[no-untyped-call]
    return image.flatten(1, 2).transpose(1, 2)


def corner_kernel(weight: Tensor) -> Tensor:
    """The 2x2 kernel that does on the small image what `weight` (..., O, I, 3, 3) does on the upsampled one, exactly.

    The four large pixels around a corner depend on the four small pixels around it alone: large row 2i - 1 + a
    (a = 0, 1) read at offset t = -1, 0, 1 is small row i - 1 + (a + t + 1) // 2.

    Returns:
        (..., O, 2, 2, I, 2, 2): output channel, phase a b, input channel, tap u v.
    """
    reach = torch.zeros(2, 2, 3, device=weight.device, dtype=weight.dtype)
    for a in range(2):
        for t in range(3):
            reach[a, (a + t) // 2, t] = 1
    return torch.einsum("aut,bvs,...oits->...oabiuv", reach, reach, weight)


class _FirstLayer(torch.autograd.Function):
    """Linear layer and first convolution as one matrix an expert.

    (linear (E, I 7 7, Z1), kernel (E, O p q, I u v + 1), bias last) -> (E, O 14 14, Z1), offset in the last column.
    """

    @staticmethod
    def forward(ctx: Any, linear: Tensor, kernel: Tensor) -> Tensor:
        E, channels, Z1 = kernel.shape[0], kernel.shape[1], linear.shape[2]
        s = SEED_SIDE
        matrix = linear.new_empty(E, channels // 4, s, 2, s, 2, Z1)
        for e in _groups(E, linear.device):
            corners = _products(kernel[e], _patches(linear[e]))
            matrix[e] = _parity_view(corners.unflatten(2, (s + 1, s + 1, Z1)))
        ctx.save_for_backward(linear, kernel)
        return matrix.view(E, -1, Z1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        linear, kernel = ctx.saved_tensors
        E, channels, Z1 = kernel.shape[0], kernel.shape[1], linear.shape[2]
        s = SEED_SIDE
        grad_matrix = grads[0].view(E, channels // 4, s, 2, s, 2, Z1)
        grad_linear, grad_kernel = torch.empty_like(linear), torch.empty_like(kernel)
        for e in _groups(E, linear.device):
            n = len(linear[e])
            corners = linear.new_zeros(n, channels, s + 1, s + 1, Z1)
            _parity_view(corners).copy_(grad_matrix[e])
            corners = corners.flatten(2)
            _products(corners, _patches(linear[e]).transpose(1, 2), out=grad_kernel[e])
            patch = _products(kernel[e, :, :-1].transpose(1, 2), corners).view(n, -1, 2, 2, s + 1, s + 1, Z1)
            bordered = linear.new_zeros(n, patch.shape[1], s + 2, s + 2, Z1)
            _add_taps(_tap_view(bordered, 1), patch)
            grad_linear[e] = bordered[:, :, 1:-1, 1:-1].reshape(n, -1, Z1)
        return grad_linear, grad_kernel


class _SecondLayer(torch.autograd.Function):
    """From the latent vector on: first layer as a matrix, ELU, second convolution, sigmoid.

    (z1 (Z1, B), matrix (E, O 14 14, Z1), taps (E, u v a b, O), bias (E, 1)) -> image (E, 28, 28, B). Experts go one
    at a time on a CPU, so that what one touches stays in its cache, and all at once on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, z1: Tensor, matrix: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        E, B, O, s = len(matrix), z1.shape[1], taps.shape[2], 2 * SEED_SIDE  # noqa: E741
        hidden = z1.new_empty(E, matrix.shape[1], B)
        image = z1.new_empty(E, 2 * s, 2 * s, B)
        for e in _groups(E, z1.device):
            _products(matrix[e], z1[None], out=hidden[e])
            F.elu_(hidden[e])
            tap = _products(taps[e], hidden[e].view(-1, O, s * s * B))
            large = bias[e, :, None, None].expand(-1, 2 * s + 2, 2 * s + 2, B).contiguous()
            _add_taps(_tap_view(large, 2), tap.view(-1, 1, 2, 2, 2, 2, s, s, B))
            torch.sigmoid(large[:, 1:-1, 1:-1], out=image[e])
        ctx.save_for_backward(z1, matrix, taps, hidden, image)
        return image

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        z1, matrix, taps, hidden, image = ctx.saved_tensors
        E, B, O, s = len(matrix), z1.shape[1], taps.shape[2], 2 * SEED_SIDE  # noqa: E741
        grad_z1 = torch.zeros_like(z1)
        grad_matrix, grad_taps = torch.empty_like(matrix), torch.empty_like(taps)
        grad_bias = z1.new_empty(E, 1)
        for e in _groups(E, z1.device):
            grad = torch.ops.aten.sigmoid_backward(grads[0][e], image[e])
            torch.sum(grad, dim=(1, 2, 3), out=grad_bias[e, 0])
            tap = _tap_view(_border(grad), 2).reshape(len(grad), 16, s * s * B)
            flat = hidden[e].view(-1, O, s * s * B)
            _products(tap, flat.transpose(1, 2), out=grad_taps[e])
            grad_hidden = torch.ops.aten.elu_backward(_products(taps[e].transpose(1, 2), tap), 1, 1, 1, True, flat)
            grad_hidden = grad_hidden.view(len(grad), -1, B)
            _products(grad_hidden, z1.t()[None], out=grad_matrix[e])
            grad_z1 += _products(matrix[e].transpose(1, 2), grad_hidden).sum(0)
        return grad_z1, grad_matrix, grad_taps, grad_bias


def _patches(linear: Tensor) -> Tensor:
    """What the first convolution multiplies: (n, I u v + 1, corners Z1). The last row stands for its bias."""
    n, _, Z1 = linear.shape
    bordered = _border(linear.view(n, -1, SEED_SIDE, SEED_SIDE, Z1))
    corners = SEED_SIDE + 1
    patches = linear.new_zeros(n, 4 * bordered.shape[1] + 1, corners, corners, Z1)
    patches[:, :-1].unflatten(1, (-1, 2, 2)).copy_(_tap_view(bordered, 1))
    patches[:, -1, :, :, -1] = 1  # the bias belongs to the column of the constant 1 alone
    return patches.flatten(2)


def _tap_view(image: Tensor, phases: int) -> Tensor:
    """A bordered image (..., H, W, B) as what each tap of a 2x2 kernel sees at each corner: a view, overlapping itself.

    With one phase: (..., u, v, corners, corners, B) of a small image. With two, of a large image, whose corners hold
    2x2 pixels: (..., u, v, a, b, small pixels, small pixels, B).
    """
    *outer, height, width, _ = image.shape
    *outer_strides, row, column, one = image.stride()
    size, stride = [2, 2], [phases * row, phases * column]
    if phases == 2:
        size, stride = [*size, 2, 2], [*stride, row, column]
    size += [height // phases - 1, width // phases - 1, image.shape[-1]]
    stride += [phases * row, phases * column, one]
    return image.as_strided([*outer, *size], [*outer_strides, *stride])


def _add_taps(view: Tensor, taps: Tensor) -> None:
    """Add what each tap gives to where it belongs; the transpose of copying out of `_tap_view`. Channels are axis 1."""
    if view.dim() < taps.dim():
        view = view.unsqueeze(1)
    for u, v in _TAPS:
        view[:, :, u, v] += taps[:, :, u, v]


def _parity_view(corners: Tensor) -> Tensor:
    """Corner outputs (E, O p q, 8, 8, B) as the large image's pixels (E, O, 7, p, 7, q, B): a view.

    Large row 2i + p is the corner output of parity p at corner i + p.
    """
    E, channels, rows, columns, B = corners.shape
    expert, channel, row, column, one = corners.stride()
    return corners.as_strided(
        (E, channels // 4, rows - 1, 2, columns - 1, 2, B),
        (expert, 4 * channel, row, 2 * channel + row, column, channel + column, one),
    )


def _groups(num_experts: int, device: torch.device) -> list[slice]:
    """Experts to compute together: on a CPU one, elsewhere all."""
    size = 1 if device.type == "cpu" else num_experts
    return [slice(start, start + size) for start in range(0, num_experts, size)]


def _border(image: Tensor) -> Tensor:
    """A border of one zero pixel around (..., H, W, B)."""
    return F.pad(image, (0, 0, 1, 1, 1, 1))


def _products(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Matrix products (n, i, j) x (n or 1, j, k). On a CPU one after another: several times faster than `bmm` here."""
    if a.is_cuda:
        return torch.matmul(a, b, out=out)
    if out is None:
        out = a.new_empty(len(a), a.shape[1], b.shape[2])
    for i, product_i in enumerate(out):
        torch.mm(a[i], b[i if len(b) > 1 else 0], out=product_i)
    return out
