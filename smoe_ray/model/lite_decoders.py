"""The `lite` decoders of many experts as a handful of matrix products: forward and backward, written out.

A lite decoder is linear Z -> I x 7 x 7; nearest x2, conv 3x3 I -> O, ELU; nearest x2, conv 3x3 O -> 1; sigmoid, with
I = 8 and O = 16 channels: too few for convolution routines to do well. Four exact identities:

- Linear layer and first convolution are one linear map, for nothing nonlinear stands between them. Its matrix is what
  the convolution makes of the Z columns of W: 32 images a step instead of one for each image of the batch.
- A 3x3 convolution of the upsampled image is a 2x2 convolution of the small one with four outputs, one for each large
  pixel around a *corner*, the point between four small pixels (`corner_kernel`). So goes the first convolution.
- It is also a transposed convolution of the small image with stride 2, followed by the sum over every 2x2 pixels, for
  upsampling is that sum over an image with zeros between its pixels. That takes 9 products a small pixel, not 16,
  and more additions. So goes the second convolution, which has one output to add up.
- With the batch (or the columns) as the innermost axis, both convolutions are matrix products over long rows, and to
  shift an image by a pixel moves whole rows. The first convolution shifts its 8 inputs and then multiplies; the
  second multiplies and then shifts its one output.

Shapes: B images, E experts, n experts of a group, Z latent, I O channels, u v = taps (2 x 2 small pixels around a
corner, 3 x 3 in the second convolution), p q = parities of a large pixel's row and column.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

SEED_SIDE = 7
"""Height and width of the map that the linear layer makes."""

_spare: list[Tensor] = []
"""At most one buffer, which `_Loan` took back."""


class LiteLayers(NamedTuple):
    """The layers of n lite decoders, as what the images are multiplied with."""

    matrix: Tensor
    """(n, O * 14 * 14, Z): linear layer and first convolution as one, and their `offset` (n, O * 14 * 14)."""
    offset: Tensor
    taps: Tensor
    """(n, u v, O): second convolution."""
    bias: Tensor
    """(n, 1): of the second convolution."""

    def split(self) -> Iterator[LiteLayers]:
        """Each expert by itself."""
        return map(LiteLayers, *(tensor.split(1) for tensor in self))


def lite_layers(
    linear: Tensor, linear_bias: Tensor, first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor
) -> LiteLayers:
    """Bring the parameters of E lite decoders into the form in which they multiply.

    Args:
        linear: (E, I * 7 * 7, Z); `linear_bias` (E, I * 7 * 7).
        first: weight (E, O, I, 3, 3) of the first convolution; `first_bias` (E, O).
        second: weight (E, 1, O, 3, 3) of the second convolution; `second_bias` (E, 1).
    """
    E = len(linear)
    kernel = corner_kernel(first).flip(2, 3).flatten(4).flatten(1, 3)  # (E, O p q, I u v); flipped: parity p = 1 - a
    matrix: Tensor = _FirstLayer.apply(linear, kernel)  # type: ignore[no-untyped-call]
    # What the decoders make of z = 0: one image, for which a column more in the products would cost more than this.
    seed = F.interpolate(linear_bias.view(1, -1, SEED_SIDE, SEED_SIDE), scale_factor=2)
    offset = F.conv2d(seed, first.flatten(0, 1), first_bias.flatten(), padding=1, groups=E).view(E, -1)
    taps = second[:, 0].flip(2, 3).flatten(2).transpose(1, 2)  # flipped: a transposed convolution
    return LiteLayers(matrix, offset, taps, second_bias)


def decode_lite(z_BZ: Tensor, layers: LiteLayers) -> Tensor:
    """Decode every latent vector by every one of n experts.

    Returns:
        image_nBP in [0, 1], P = 28 * 28; strides put B innermost.
    """
    image: Tensor = _SecondLayer.apply(z_BZ.t().contiguous(), *layers)  # type: ignore[no-untyped-call]
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
    """Linear layer and first convolution as one matrix an expert, but for their biases.

    (linear (E, I 7 7, Z), kernel (E, O p q, I u v)) -> (E, O 14 14, Z).
    """

    @staticmethod
    def forward(ctx: Any, linear: Tensor, kernel: Tensor) -> Tensor:
        E, channels, Z, s = kernel.shape[0], kernel.shape[1], linear.shape[2], SEED_SIDE
        bordered = F.pad(linear.view(E, -1, s, s, Z), (0, 0, 1, 1, 1, 1))
        patches = _tap_view(bordered, 2, 1).reshape(E, kernel.shape[2], -1)
        matrix = linear.new_empty(E, channels // 4, s, 2, s, 2, Z)
        for e in _groups(E, linear.device):
            corners = _products(kernel[e], patches[e])
            matrix[e] = _parity_view(corners.view(-1, channels, s + 1, s + 1, Z))
        ctx.save_for_backward(patches, kernel)
        return matrix.view(E, -1, Z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        patches, kernel = ctx.saved_tensors
        E, channels, Z, s = kernel.shape[0], kernel.shape[1], grads[0].shape[2], SEED_SIDE
        grad_matrix = grads[0].view(E, channels // 4, s, 2, s, 2, Z)
        grad_patches, grad_kernel = torch.empty_like(patches), torch.empty_like(kernel)
        groups = _groups(E, kernel.device)
        # Made once: every group writes the same places, and the others stay zero.
        corners = kernel.new_zeros(len(kernel[groups[0]]), channels, s + 1, s + 1, Z)
        for e in groups:
            _parity_view(corners).copy_(grad_matrix[e])
            flat = corners.flatten(2)
            _products(flat, patches[e].transpose(1, 2), out=grad_kernel[e])
            _products(kernel[e].transpose(1, 2), flat, out=grad_patches[e])
        bordered = kernel.new_zeros(E, kernel.shape[2] // 4, s + 2, s + 2, Z)
        _add_taps(bordered, grad_patches, 2, 1)
        return bordered[:, :, 1:-1, 1:-1].reshape(E, -1, Z), grad_kernel


class _SecondLayer(torch.autograd.Function):
    """From the latent vector on: first layer as a matrix, ELU, second convolution, sigmoid.

    (z (Z, B), matrix (E, O 14 14, Z), offset (E, O 14 14), taps (E, u v, O), bias (E, 1)) -> image (E, 28, 28, B).
    Experts go one at a time on a CPU, so that what one touches stays in its cache, and all at once on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, matrix: Tensor, offset: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        E, B, O, s = len(matrix), z.shape[1], taps.shape[2], 2 * SEED_SIDE  # noqa: E741
        groups = _groups(E, z.device)
        kept = E if any(ctx.needs_input_grad[:4]) else len(matrix[groups[0]])  # without a backward pass, one group's
        ctx.loan = _Loan(z, kept, matrix.shape[1], B)
        hidden = ctx.loan.tensor.expand(E, -1, -1)
        image = z.new_empty(E, 2 * s, 2 * s, B)
        for e in groups:
            _products(matrix[e], z[None], offset[e], out=hidden[e])
            _elu_(hidden[e])
            tap = _products(taps[e], hidden[e].view(-1, O, s * s * B))
            # A quarter, because four of these pixels make one of the image.
            grid = (bias[e, :, None, None] / 4).expand(-1, 2 * s + 1, 2 * s + 1, B).contiguous()
            _add_taps(grid[:, None], tap, 3, 2)
            torch.sigmoid(_sum_2x2(grid), out=image[e])
        ctx.save_for_backward(z, matrix, taps, image)
        return image

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        z, matrix, taps, image = ctx.saved_tensors
        E, B, O, s = len(matrix), z.shape[1], taps.shape[2], 2 * SEED_SIDE  # noqa: E741
        hidden = ctx.loan.tensor
        grad_z, grad_matrix, grad_taps = torch.zeros_like(z), torch.empty_like(matrix), torch.empty_like(taps)
        grad_offset, grad_bias = z.new_empty(E, matrix.shape[1]), z.new_empty(E, 1)
        groups = _groups(E, z.device)
        bordered = z.new_zeros(len(matrix[groups[0]]), 2 * s + 2, 2 * s + 2, B)  # the border stays zero
        for e in groups:
            grad = bordered[:, 1:-1, 1:-1]
            torch.ops.aten.sigmoid_backward.grad_input(grads[0][e], image[e], grad_input=grad)
            torch.sum(bordered, dim=(1, 2, 3), out=grad_bias[e, 0])
            tap = _tap_view(_sum_2x2(bordered), 3, 2).reshape(len(grad), 9, s * s * B)
            flat = hidden[e].view(-1, O, s * s * B)
            grad_flat = _products(taps[e].transpose(1, 2), tap)
            torch.ops.aten.elu_backward.grad_input(grad_flat, 1, 1, 1, True, flat, grad_input=grad_flat)
            _products(tap, flat.transpose(1, 2), out=grad_taps[e])
            grad_hidden = grad_flat.view(len(grad), -1, B)
            torch.sum(grad_hidden, dim=2, out=grad_offset[e])
            _products(grad_hidden, z.t()[None], out=grad_matrix[e])
            grad_z += _products(matrix[e].transpose(1, 2), grad_hidden).sum(0)
        return grad_z, grad_matrix, grad_offset, grad_taps, grad_bias


class _Loan:
    """A tensor in a buffer that goes to the next borrower once the graph that holds the loan is gone.

    On a CPU only. There the system maps fresh memory page by page as it is touched, and the hidden activations of 50
    experts are 80 MB: that took a tenth of a training step. On a GPU torch keeps memory anyway.
    """

    def __init__(self, like: Tensor, *shape: int) -> None:
        size = math.prod(shape)
        with torch.inference_mode(False):  # a buffer made in inference mode could not serve training afterwards
            self.buffer = _spare.pop() if _spare and like.device.type == "cpu" else like.new_empty(0)
            if self.buffer.dtype != like.dtype or len(self.buffer) < size:
                self.buffer = like.new_empty(size)
            self.tensor = self.buffer[:size].view(shape)

    def __del__(self) -> None:
        if self.buffer.device.type == "cpu":
            _spare[:] = [self.buffer]


def _tap_view(image: Tensor, size: int, stride: int) -> Tensor:
    """An image (..., H, W, B) as what each tap of a kernel sees at each place: (..., u, v, rows, columns, B).

    A view, overlapping itself. The kernel is size x size and moves by `stride`.
    """
    *outer, height, width, B = image.shape
    *outer_strides, row, column, one = image.stride()
    places = [(side - size) // stride + 1 for side in (height, width)]
    return image.as_strided(
        [*outer, size, size, *places, B], [*outer_strides, row, column, stride * row, stride * column, one]
    )


def _add_taps(image: Tensor, taps: Tensor, size: int, stride: int) -> None:
    """Add what each tap gives to where it belongs; the transpose of copying out of `_tap_view`. Channels are axis 1."""
    view = _tap_view(image, size, stride)
    taps = taps.view(view.shape)
    # Taps nearer to each other than the stride never meet at one pixel: one addition for all of them.
    near = [slice(start, start + stride) for start in range(0, size, stride)]
    for u, v in product(near, near):
        view[:, :, u, v].add_(taps[:, :, u, v])


def _sum_2x2(image: Tensor) -> Tensor:
    """The sum over every 2x2 pixels of (..., H, W, B): (..., H - 1, W - 1, B)."""
    rows = image[..., :-1, :, :] + image[..., 1:, :, :]
    return rows[..., :-1, :] + rows[..., 1:, :]


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


def _elu_(x: Tensor) -> None:
    """ELU in place. On a CPU in five passes, which take half the time of `F.elu_`: torch's exp2 is that fast."""
    if x.is_cuda or x.itemsize < 4:  # in half precision e^x - 1 would lose the small x
        F.elu_(x)
    else:
        negative = torch.clamp_max(x, 0).mul_(math.log2(math.e)).exp2_().sub_(1)
        torch.maximum(x, negative, out=x)


def _products(a: Tensor, b: Tensor, offset: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Matrix products (n, i, j) x (n or 1, j, k), plus an offset (n, i) of the rows.

    On a CPU one after another: several times faster than `bmm` here.
    """
    if a.is_cuda:
        if offset is None:
            return torch.matmul(a, b, out=out)
        return torch.baddbmm(offset[:, :, None], a, b.expand(len(a), -1, -1), out=out)
    if out is None:
        out = a.new_empty(len(a), a.shape[1], b.shape[2])
    for i, product_i in enumerate(out):
        b_i = b[i if len(b) > 1 else 0]
        if offset is None:
            torch.mm(a[i], b_i, out=product_i)
        else:
            torch.addmm(offset[i, :, None], a[i], b_i, out=product_i)
    return out
