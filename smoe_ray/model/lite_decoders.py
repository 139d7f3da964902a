"""The `lite` decoders of many experts as a handful of matrix products: forward and backward, written out.

A lite decoder is linear Z -> I x h x w; nearest x2, conv 3x3 I -> O, ELU; nearest x2, conv 3x3 O -> C; sigmoid, with
I = 8, O = 16 and C = 1 or 3 channels: too few for convolution routines to be efficient. Four exact identities, valid
for any initial size h x w (7 x 7 for images of 28 x 28) and any numbers of channels:

- Linear layer and first convolution are one linear map, since there is no nonlinearity between them. Its matrix is the
  convolution of the Z columns of W: 32 images per step instead of one per image of the batch.
- A 3x3 convolution of the upsampled image equals a 2x2 convolution of the small image with four outputs, one per large
  pixel around a *corner*, the point between four small pixels (`corner_kernel`). The first convolution uses this form.
- It also equals a transposed convolution of the small image with stride 2, followed by the sum over every 2x2 pixels,
  since upsampling is that sum over an image with zeros between its pixels. This takes 9 products per small pixel, not
  16, and more additions. The second convolution, which has few outputs to add up, uses this form.
- With the batch (or the columns) as the innermost axis, both convolutions are matrix products over long rows, and
  shifting an image by a pixel moves whole rows. The first convolution shifts its 8 inputs, then multiplies; the second
  multiplies, then shifts its few outputs.

On a CPU, as many experts are computed at a time as there are threads: each operation covers all experts of the group,
and each result goes into a buffer that the previous group used for the same purpose. Each thread then works on one
expert, finds its own earlier results in its cache, and synchronises least often (in a smaller last group, threads share
experts). Reading what another core wrote can cost more than the arithmetic.

Every product is one `bmm` over the rows of the images: small products stay in a thread's cache, which is a quarter to a
half faster than large ones. Hence a map of C channels has the axes (row, C, column, B).

Before and after its ELU the hidden map is stored in units of ln 2 (multiplied by log2 e): e^x is then a power of 2,
which torch computes in a third of the time. The first layer's weights include the factor; the taps divide by it.

Shapes: B images, E experts, n experts of a group, Z latent, h w initial map, I O C channels (of the initial map, the
hidden map, the image), u v = taps (2 x 2 small pixels around a corner, 3 x 3 in the second convolution), p q = parities
of a large pixel's row and column, R = the rows of all images, those of an expert together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

_REACH = (((1, 1, 0), (0, 0, 1)), ((1, 0, 0), (0, 1, 1)))
"""Of phase a and tap u: the offsets t at which a large row of that phase reads that small row (`corner_kernel`)."""

LOG2_E = math.log2(math.e)

_ELU = (LOG2_E, 1, 1 / LOG2_E)
"""ELU of a number in units of ln 2, as torch takes it: y where y > 0, log2 e (e^(y / log2 e) - 1) elsewhere."""

_free: dict[str, Tensor] = {}
"""Free buffers by purpose, returned by `_Buffers`.

A backward pass needs "patches" and "hidden". All others are scratch, shared by forward and backward pass: "map", for
example, holds intermediate results of ELU, and then the gradient of the hidden map.
"""


Size = tuple[int, int]
"""Height and width of a map."""


class LiteLayers(NamedTuple):
    """The layers of n lite decoders, as what the images are multiplied with."""

    matrix: Tensor
    """(n, 2h * O * 2w, Z): linear layer and first convolution as one, in units of ln 2; their offset is `offset`."""
    offset: Tensor
    """(n, 2h * O * 2w)."""
    taps: Tensor
    """(n, C u v, O): second convolution, of a hidden map in units of ln 2."""
    bias: Tensor
    """(n, C): of the second convolution."""

    def split(self) -> Iterator[LiteLayers]:
        """Each expert by itself."""
        return map(LiteLayers, *(tensor.split(1) for tensor in self))


def lite_layers(
    initial: Size,
    linear: Tensor,
    linear_bias: Tensor,
    first: Tensor,
    first_bias: Tensor,
    second: Tensor,
    second_bias: Tensor,
) -> LiteLayers:
    """Bring the parameters of E lite decoders into the form in which they multiply.

    Args:
        initial: h and w of the map that the linear layer makes.
        linear: (E, I * h * w, Z).
        linear_bias: (E, I * h * w).
        first: weight (E, O, I, 3, 3) of the first convolution.
        first_bias: (E, O).
        second: weight (E, C, O, 3, 3) of the second convolution.
        second_bias: (E, C).
    """
    matrix, offset = _FirstLayer.apply(initial, linear, linear_bias, first, first_bias)  # type: ignore[no-untyped-call]
    taps = (second / LOG2_E).flip(3, 4).flatten(3).transpose(2, 3).flatten(1, 2)  # flipped: a transposed convolution
    return LiteLayers(matrix, offset, taps, second_bias)


def decode_lite(z_BZ: Tensor, initial: Size, layers: LiteLayers) -> Tensor:
    """Decode every latent vector by every one of n experts.

    Returns:
        image_nBP in [0, 1], P = C * 4h * 4w; strides put B innermost.
    """
    image: Tensor = _SecondLayer.apply(initial, z_BZ.t().contiguous(), *layers)  # type: ignore[no-untyped-call]
    return image.flatten(1, 3).transpose(1, 2)


def corner_kernel(weight: Tensor) -> Tensor:
    """The 2x2 kernel that does on the small image what `weight` (..., O, I, 3, 3) does on the upsampled one, exactly.

    The four large pixels around a corner depend on the four small pixels around it alone: large row 2i - 1 + a
    (a = 0, 1) read at offset t = -1, 0, 1 is small row i - 1 + (a + t + 1) // 2.

    Returns:
        (..., O, 2, 2, I, 2, 2): output channel, phase a b, input channel, tap u v.
    """
    phases = weight.flatten(-2) @ _corner_weights(weight.dtype, weight.device).reshape(9, 16)
    return phases.view(*weight.shape[:-2], 2, 2, 2, 2).movedim(-5, -3)


@cache
def _corner_weights(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(3, 3, a, b, u, v): which weights of a 3x3 kernel make up which of its `corner_kernel`."""
    with torch.inference_mode(False):  # a tensor made in inference mode could not serve training afterwards
        reach = torch.tensor(_REACH, dtype=dtype, device=device).permute(2, 0, 1)
        return reach[:, None, :, None, :, None] * reach[None, :, None, :, None, :]


class _FirstLayer(torch.autograd.Function):
    """Linear layer and first convolution as one matrix per expert, and the offset from their biases; times log2 e.

    (linear (E, I h w, Z), bias (E, I h w), first (E, O, I, 3, 3), bias (E, O)) -> (E, 2h O 2w, Z) and (E, 2h O 2w).
    The linear layer's bias goes through the convolution as one column more, the last.
    """

    @staticmethod
    def forward(
        ctx: Any, initial: Size, linear: Tensor, linear_bias: Tensor, first: Tensor, first_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        E, O, I, (h, w), Z = *first.shape[:3], initial, linear.shape[2]  # noqa: E741
        spread = LOG2_E * _corner_weights(first.dtype, first.device).flip(2, 3).reshape(9, 16)  # flipped: p = 1 - a
        kernel = (first.flatten(3) @ spread).view(E, O, I, 4, 4).transpose(2, 3).reshape(E, 4 * O, 4 * I)
        bordered = first.new_zeros(E, I, h + 2, w + 2, Z + 1)
        inner = bordered[:, :, 1:-1, 1:-1]
        inner[..., :Z] = linear.view(E, I, h, w, Z)
        inner[..., Z] = linear_bias.view(E, I, h, w)
        places = _rows_first(_tap_view(bordered, 2, 1))
        ctx.buffers, scratch = _Buffers(first), _Buffers(first)
        patches = ctx.buffers("patches", *places.shape)
        patches_R = patches.view(E * (h + 1), 4 * I, -1)
        matrix = first.new_empty(E, h, 2, O, w, 2, Z)
        offset = first.new_empty(E, h, 2, O, w, 2)
        for e in _groups(E, first.device):
            n, R = e.stop - e.start, slice(e.start * (h + 1), e.stop * (h + 1))
            patches[e] = places[e]
            corners = scratch("corners", n * (h + 1), 4 * O, (w + 1) * (Z + 1))
            torch.bmm(_of_each_row(kernel[e], h + 1), patches_R[R], out=corners)
            large = _parity_view(corners.view(n, h + 1, 4 * O, w + 1, Z + 1))
            matrix[e] = large[..., :Z]
            offset[e] = large[..., Z]
        offset.add_(first_bias[:, None, None, :, None, None], alpha=LOG2_E)
        ctx.save_for_backward(kernel, spread)
        ctx.initial = initial
        return matrix.view(E, -1, Z), offset.view(E, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kernel, spread = ctx.saved_tensors
        E, O, I, (h, w), Z = len(kernel), kernel.shape[1] // 4, kernel.shape[2] // 4, ctx.initial, grads[0].shape[2]  # noqa: E741
        grad_matrix, grad_offset = grads[0].view(E, h, 2, O, w, 2, Z), grads[1].view(E, h, 2, O, w, 2)
        grad_kernel, bordered = torch.empty_like(kernel), kernel.new_zeros(E, I, h + 2, w + 2, Z + 1)
        scratch = _Buffers(kernel)
        patches_R = ctx.buffers("patches", E * (h + 1), 4 * I, (w + 1) * (Z + 1))
        groups = _groups(E, kernel.device)
        # Made once: every group writes the same places, and the others stay zero.
        all_corners = kernel.new_zeros(groups[0].stop, h + 1, 4 * O, w + 1, Z + 1)
        for e in groups:
            n, R = e.stop - e.start, slice(e.start * (h + 1), e.stop * (h + 1))
            corners = all_corners[:n]
            large, corners_R = _parity_view(corners), corners.view(n * (h + 1), 4 * O, -1)
            large[..., :Z] = grad_matrix[e]
            large[..., Z] = grad_offset[e]
            _sum_of_products(corners_R, patches_R[R].transpose(1, 2), scratch, out=grad_kernel[e])
            grad_patches = scratch("grad_patches", *patches_R[R].shape)
            torch.bmm(_of_each_row(kernel[e].transpose(1, 2), h + 1), corners_R, out=grad_patches)
            _add_taps(bordered[e], _channels_first(grad_patches.view(n, h + 1, I, 2, 2, w + 1, Z + 1)))
        inner = bordered[:, :, 1:-1, 1:-1]
        grad_phases = grad_kernel.view(E, O, 4, I, 4).transpose(2, 3).reshape(E, O, I, 16)
        return (
            None,
            inner[..., :Z].reshape(E, -1, Z),
            inner[..., Z].reshape(E, -1),
            (grad_phases @ spread.t()).view(E, O, I, 3, 3),
            grad_offset.sum(dim=(1, 2, 4, 5)) * LOG2_E,
        )


class _SecondLayer(torch.autograd.Function):
    """From the latent vector on: first layer as a matrix, ELU, second convolution, sigmoid.

    (z (Z, B), matrix (E, 2h O 2w, Z), offset (E, 2h O 2w), taps (E, C u v, O), bias (E, C)) -> image (E, C, 4h, 4w, B).
    Below, H W are those of the hidden map: 2h 2w.
    """

    @staticmethod
    def forward(
        ctx: Any, initial: Size, z: Tensor, matrix: Tensor, offset: Tensor, taps: Tensor, bias: Tensor
    ) -> Tensor:
        (E, C), B, O, (H, W) = bias.shape, z.shape[1], taps.shape[2], (2 * side for side in initial)  # noqa: E741
        groups = _groups(E, z.device)
        size = groups[0].stop
        # Without a backward pass one group's memory is enough. The bias is a bare parameter, which always asks for one.
        keep = any(ctx.needs_input_grad[:5])
        ctx.buffers, scratch = _Buffers(z), _Buffers(z)
        image = z.new_empty(E, C, 2 * H, 2 * W, B)
        # What the loop needs of all experts, by the rows of their images.
        hidden_R = ctx.buffers("hidden", (E if keep else size) * H, O * W, B)
        matrix_R, offset_R = matrix.view(E * H, O * W, -1), offset.view(E * H, O * W, 1)
        taps_R, z_R = _of_each_row(taps, H), z.expand(size * H, -1, -1)
        quarter = bias / 4  # because four of a grid's pixels make one of the image
        for e in groups:
            n, R = e.stop - e.start, slice(e.start * H, e.stop * H)
            hidden = hidden_R[R if keep else slice(n * H)]
            torch.baddbmm(offset_R[R], matrix_R[R], z_R[: n * H], out=hidden)
            _elu_(hidden, scratch)
            tap = scratch("tap", n * H, C * 9, W * B)
            torch.bmm(taps_R[R], hidden.view(-1, O, W * B), out=tap)
            grid = scratch("grid", n, C, 2 * H + 1, 2 * W + 1, B)
            _place_taps(grid, _channels_first(tap.view(n, H, C, 3, 3, W, B)), quarter[e])
            _sum_2x2(grid, scratch, out=image[e]).sigmoid_()
        ctx.save_for_backward(z, matrix, taps, image)
        ctx.initial = initial
        return image

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, matrix, taps, image = ctx.saved_tensors
        (E, C), B, O, (H, W) = image.shape[:2], z.shape[1], taps.shape[2], (2 * side for side in ctx.initial)  # noqa: E741
        grad_matrix, grad_taps = torch.empty_like(matrix), torch.empty_like(taps)
        grad_offset, grad_bias = z.new_empty(E, matrix.shape[1]), z.new_empty(E, C)
        groups = _groups(E, z.device)
        size = groups[0].stop
        scratch = _Buffers(z)
        all_bordered = z.new_zeros(size, C, 2 * H + 2, 2 * W + 2, B)  # the border stays zero
        grad_z = z.new_zeros(size * H, *z.shape)  # what each row of the images gives
        # What the loop needs of all experts, by the rows of their images.
        hidden_R = ctx.buffers("hidden", E * H, O, W * B)
        matrix_R, grad_matrix_R = matrix.view(E * H, O * W, -1).transpose(1, 2), grad_matrix.view(E * H, O * W, -1)
        taps_R, z_R = _of_each_row(taps.transpose(1, 2), H), z.t().expand(size * H, -1, -1)
        for e in groups:
            n, R = e.stop - e.start, slice(e.start * H, e.stop * H)
            bordered = all_bordered[:n]
            torch.ops.aten.sigmoid_backward.grad_input(grads[0][e], image[e], grad_input=bordered[..., 1:-1, 1:-1, :])
            torch.sum(bordered.view(n, C, -1), dim=2, out=grad_bias[e])
            sums = _sum_2x2(bordered, scratch, out=scratch("grid", n, C, 2 * H + 1, 2 * W + 1, B))
            tap = scratch("tap", n * H, C * 9, W * B)
            tap.view(n, H, C, 3, 3, W, B).copy_(_rows_first(_tap_view(sums, 3, 2)))
            hidden, grad_hidden = hidden_R[R], scratch("map", n * H, O, W * B)
            torch.bmm(taps_R[R], tap, out=grad_hidden)
            torch.ops.aten.elu_backward.grad_input(grad_hidden, *_ELU, True, hidden, grad_input=grad_hidden)
            _sum_of_products(tap, hidden.transpose(1, 2), scratch, out=grad_taps[e])
            by_row = grad_hidden.view(-1, O * W, B)
            torch.sum(by_row.view(n, -1, B), dim=2, out=grad_offset[e])
            torch.bmm(by_row, z_R[: n * H], out=grad_matrix_R[R])
            torch.baddbmm(grad_z[: n * H], matrix_R[R], by_row, out=grad_z[: n * H])
        return None, grad_z.sum(0), grad_matrix, grad_offset, grad_taps, grad_bias


class _Buffers:
    """Buffers by purpose, which return to the pool when this object is freed: with its function, or with its graph.

    Pooled on a CPU only. There the system maps fresh memory page by page as it is touched; the hidden activations of
    50 experts are 80 MB: that took a tenth of a training step. On a GPU torch's allocator reuses memory anyway.
    """

    def __init__(self, like: Tensor) -> None:
        self._empty = like.new_empty(0)
        self._buffers: dict[str, Tensor] = {}
        self._tensors: dict[str, Tensor] = {}

    def __call__(self, purpose: str, *shape: int) -> Tensor:
        """The buffer of this purpose as a tensor; it has the values last written to it, under whatever shape."""
        tensor = self._tensors.get(purpose)
        if tensor is None or tensor.shape != shape:  # a view costs 2 us, and every group asks for ten
            size = math.prod(shape)
            tensor = self._tensors[purpose] = self._buffer(purpose, size)[:size].view(shape)
        return tensor

    def _buffer(self, purpose: str, size: int) -> Tensor:
        if purpose not in self._buffers and self._empty.device.type == "cpu":
            self._buffers[purpose] = _free.pop(purpose, self._empty)
        buffer = self._buffers.get(purpose, self._empty)
        if buffer.dtype != self._empty.dtype or len(buffer) < size:
            with torch.inference_mode(False):  # a buffer made in inference mode could not serve training afterwards
                buffer = self._empty.new_empty(size)
        self._buffers[purpose] = buffer
        return buffer

    def __del__(self) -> None:
        if self._empty.device.type == "cpu":
            _free.update(self._buffers)


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


def _add_taps(image: Tensor, taps: Tensor) -> None:
    """Add 2x2 taps (..., u, v, rows, columns, B) to where they belong; the transpose of copying out of `_tap_view`."""
    view = _tap_view(image, 2, 1)
    for u, v in product(range(2), range(2)):
        view[..., u, v, :, :, :].add_(taps[..., u, v, :, :, :])


def _place_taps(image: Tensor, taps: Tensor, constant: Tensor) -> None:
    """Fill an image (n, C, H, W, B) with `constant` (n, C) plus 3x3 taps (n, C, u, v, rows, columns, B) moving by 2."""
    view = _tap_view(image, 3, 2)
    # Neighbouring taps never meet at one pixel: one addition for all of them. The first needs no filling before.
    torch.add(taps[:, :, :2, :2], constant[..., None, None, None, None, None], out=view[:, :, :2, :2])
    image[:, :, -1] = image[:, :, :, -1] = constant[..., None, None]
    for u, v in ((2, slice(0, 2)), (slice(0, 2), 2), (2, 2)):
        view[:, :, u, v].add_(taps[:, :, u, v])


def _sum_2x2(image: Tensor, scratch: _Buffers, out: Tensor) -> Tensor:
    """The sum over every 2x2 pixels of (n, C, H, W, B): (n, C, H - 1, W - 1, B)."""
    n, C, H, W, B = image.shape
    rows = torch.add(image[:, :, :-1], image[:, :, 1:], out=scratch("rows", n, C, H - 1, W, B))
    return torch.add(rows[:, :, :, :-1], rows[:, :, :, 1:], out=out)


def _parity_view(corners: Tensor) -> Tensor:
    """Corner outputs (n, h + 1, O p q, w + 1, B) as the large image's pixels (n, h, p, O, w, q, B): a view.

    Large row 2i + p is the corner output of parity p at corner i + p.
    """
    n, rows, channels, columns, B = corners.shape
    expert, row, channel, column, one = corners.stride()
    return corners.as_strided(
        (n, rows - 1, 2, channels // 4, columns - 1, 2, B),
        (expert, row, row + 2 * channel, 4 * channel, column, column + channel, one),
    )


def _rows_first(taps: Tensor) -> Tensor:
    """(n, ..., u, v, rows, columns, B) -> (n, rows, ..., u, v, columns, B): a view, as its inverse is."""
    return taps.movedim(-3, 1)


def _channels_first(taps: Tensor) -> Tensor:
    return taps.movedim(1, -3)


def _of_each_row(matrix: Tensor, rows: int) -> Tensor:
    """(n, i, j) -> (n rows, i, j): the same matrix for every row of an expert's image."""
    return matrix[:, None].expand(-1, rows, -1, -1).flatten(0, 1)


def _sum_of_products(a: Tensor, b: Tensor, scratch: _Buffers, out: Tensor) -> None:
    """Products (n rows, i, j) x (n rows, j, k), summed over the rows into `out` (n, i, k)."""
    products = torch.bmm(a, b, out=scratch("products", len(a), *out.shape[1:]))
    torch.sum(products.unflatten(0, (len(out), -1)), dim=1, out=out)


def _groups(num_experts: int, device: torch.device) -> list[slice]:
    """Experts to compute together: on a CPU one per thread, elsewhere all."""
    size = torch.get_num_threads() if device.type == "cpu" else num_experts
    return [slice(start, min(start + size, num_experts)) for start in range(0, num_experts, size)]


def _elu_(y: Tensor, scratch: _Buffers) -> None:
    """ELU in place, of numbers in units of ln 2. On a CPU in three passes, a third of the time of `F.elu_`.

    y <= log2 e (2^y - 1) everywhere, so ELU is the middle one of y, 0 and log2 e (2^y - 1).
    """
    if y.device.type != "cpu" or y.itemsize < 4:  # in half precision 2^y - 1 would lose the small y
        torch.ops.aten.elu_(y, *_ELU)
    else:
        growth = torch.exp2(y, out=scratch("map", *y.shape))
        torch.add(y.new_tensor(-LOG2_E), growth, alpha=LOG2_E, out=growth)
        torch.clamp(y.new_zeros(()), y, growth, out=y)
