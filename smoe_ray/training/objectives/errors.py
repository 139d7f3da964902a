"""The error of an image under each decoder likelihood, summed over its values, and its derivative.

Shapes: B images, P values of an image: P = C * H * W pixels in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from smoe_ray.spec import DecoderLikelihood, DecoderLikelihoodSpec, ObjectiveSpec

LEAST_LOG = -100.0
"""Logarithms in the cross-entropy are at least this, as in `torch.nn.BCELoss`: an output of exactly 0 or 1 where the
image differs costs at most 100 nats, not infinitely many."""

LEAST_VARIANCE = 1e-12
"""The derivative of the cross-entropy, (y - x) / (y (1 - y)), divides by at least this, again as torch does."""


class PixelError(NamedTuple):
    """The error of an image: minus the log likelihood of its values, up to a constant and a factor."""

    total: Callable[[Tensor, Tensor], Tensor]
    """Error of each image (..., P), given its reconstruction: (...,). It can be differentiated by the latter."""
    write_slope: Callable[[Tensor, Tensor, Tensor, Tensor], None]
    """Writes its derivative by each value of the reconstruction, times a weight per image (..., 1), into the last
    tensor."""


def squared_error(image_BP: Tensor, reconstruction_BP: Tensor) -> Tensor:
    """Squared error of each image, summed over its values: (B,)."""
    return (image_BP - reconstruction_BP).square().sum(dim=-1)


def absolute_error(image_BP: Tensor, reconstruction_BP: Tensor) -> Tensor:
    """Absolute error of each image, summed over its values: (B,)."""
    return (image_BP - reconstruction_BP).abs().sum(dim=-1)


def cross_entropy(image_BP: Tensor, reconstruction_BP: Tensor) -> Tensor:
    """Binary cross-entropy of each image, nats, summed over its values: (B,).

    That of a grey value x is -x ln y - (1 - x) ln(1 - y), whose minimum over y is the entropy of x, not 0. Logarithms
    are clamped at `LEAST_LOG`. Reconstructions are clamped to [0, 1], which a blend may leave by a rounding error.
    """
    # bfloat16 has no number between 0.996 and 1: the logarithms at least are not rounded to it too.
    dtype = torch.promote_types(image_BP.dtype, reconstruction_BP.dtype)
    y_BP = reconstruction_BP.to(dtype).clamp(0, 1)
    with torch.no_grad():
        log_BP, log_of_rest_BP = (part_BP.clamp_(min=LEAST_LOG) for part_BP in (torch.log(y_BP), torch.log1p(-y_BP)))
        total_BP = -torch.lerp(log_of_rest_BP, log_BP, image_BP.to(dtype))
    if not (torch.is_grad_enabled() and y_BP.requires_grad):
        return total_BP.sum(dim=-1)
    # The derivative of the logarithms is NaN at 0 and 1, so ours is attached to a term that is zero.
    slope_BP = _slope_of_cross_entropy(image_BP, y_BP.detach())
    return (total_BP + slope_BP * (y_BP - y_BP.detach())).sum(dim=-1)


def _slope_of_cross_entropy(image_BP: Tensor, y_BP: Tensor) -> Tensor:
    return (y_BP - image_BP) / (y_BP * (1 - y_BP)).clamp(min=LEAST_VARIANCE)


def _write_squared_slope(image_BP: Tensor, reconstruction_BP: Tensor, weight_B1: Tensor, out_BP: Tensor) -> None:
    torch.sub(reconstruction_BP, image_BP, out=out_BP).mul_(2 * weight_B1)


def _write_absolute_slope(image_BP: Tensor, reconstruction_BP: Tensor, weight_B1: Tensor, out_BP: Tensor) -> None:
    torch.sub(reconstruction_BP, image_BP, out=out_BP).sign_().mul_(weight_B1)


def _write_cross_entropy_slope(image_BP: Tensor, reconstruction_BP: Tensor, weight_B1: Tensor, out_BP: Tensor) -> None:
    y_BP = reconstruction_BP.to(torch.promote_types(image_BP.dtype, reconstruction_BP.dtype))
    torch.mul(_slope_of_cross_entropy(image_BP, y_BP), weight_B1, out=out_BP)


SQUARED_ERROR = PixelError(squared_error, _write_squared_slope)

_ERRORS: dict[DecoderLikelihood, PixelError] = {
    "gaussian": SQUARED_ERROR,
    "bernoulli": PixelError(cross_entropy, _write_cross_entropy_slope),
    "laplace": PixelError(absolute_error, _write_absolute_slope),
}


def error_of(spec: ObjectiveSpec) -> PixelError:
    """The error of an image under the objective's likelihood; the squared error where it offers no choice."""
    return _ERRORS[spec.likelihood] if isinstance(spec, DecoderLikelihoodSpec) else SQUARED_ERROR
