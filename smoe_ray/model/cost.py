"""What a model costs, counted from its structure: parameters and floating-point operations.

FLOPs follow torch's own counter: a multiplication and an addition count as two, only convolutions and matrix products
count, and a convolution counts as it is defined (not as `ExpertBank` computes it), so that costs compare across
implementations.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from smoe_ray.spec import IMAGE_SIDE, ModelSpec

_SIDE = IMAGE_SIDE // 4
_ENCODERS = {  # (in, out, output side)
    "lite": ((1, 16, 2 * _SIDE), (16, 8, _SIDE)),
    "medium": ((1, 32, 4 * _SIDE), (32, 64, 2 * _SIDE), (64, 128, _SIDE)),
}
_DECODERS = {  # seed channels, then convolutions: (in, out, kernel taps, side at which the kernel is applied)
    "lite": (8, ((8, 16, 9, 2 * _SIDE), (16, 1, 9, 4 * _SIDE))),
    "medium": (32, ((32, 64, 9, 2 * _SIDE), (64, 32, 9, 4 * _SIDE), (32, 1, 9, 4 * _SIDE))),
    # A transposed convolution applies its kernel once an *input* pixel.
    "large": (128, ((128, 64, 16, _SIDE), (64, 32, 16, 2 * _SIDE), (32, 1, 9, 4 * _SIDE))),
}


class Part(NamedTuple):
    """Parameters and forward FLOPs (for one image) of a part of the model."""

    params: int
    flops: int

    def __add__(self, other: object) -> Part:  # parts add up by field, not like tuples
        if not isinstance(other, Part):
            return NotImplemented
        return Part(self.params + other.params, self.flops + other.flops)

    def times(self, count: int) -> Part:
        """`count` such parts."""
        return Part(self.params * count, self.flops * count)


class Cost(NamedTuple):
    """Cost of one model. FLOPs are for one image."""

    params_total: int
    params_active: int
    """Parameters that one image meets under hard gating: encoder, gate and one expert."""
    flops_hard: int
    """Forward pass with the chosen expert alone."""
    flops_soft: int
    """Forward pass with all experts."""
    flops_train: int
    """Forward and backward pass of a training step with all experts."""
    flops_train_hard: int
    """Forward and backward pass of a training step that runs the chosen expert alone (supervised routing)."""


def model_cost(spec: ModelSpec) -> Cost:
    """Count the parameters and FLOPs of a model without building it."""
    encoder, first_convolution = _encoder(spec)
    shared = encoder + _gate(spec)
    expert = _expert(spec)
    all_experts = expert.times(spec.num_experts)
    hard, soft = shared.flops + expert.flops, shared.flops + all_experts.flops
    # Backward: a gradient for the weights and one for the input of each layer, except that no one asks for the images'.
    return Cost(
        params_total=shared.params + all_experts.params,
        params_active=shared.params + expert.params,
        flops_hard=hard,
        flops_soft=soft,
        flops_train=3 * soft - first_convolution.flops,
        flops_train_hard=3 * hard - first_convolution.flops,
    )


def _encoder(spec: ModelSpec) -> tuple[Part, Part]:
    layers = [_convolution(c_in, c_out, 9, side) for c_in, c_out, side in _ENCODERS[spec.encoder]]  # type: ignore[index]
    features = _ENCODERS[spec.encoder][-1][1] * _SIDE**2  # type: ignore[index]
    heads = _linear(features, spec.latent_dim).times(2)
    return sum(layers, heads), layers[0]


def _gate(spec: ModelSpec) -> Part:
    sizes = (spec.latent_dim, *spec.gate_hidden, spec.num_experts)
    return sum((_linear(n_in, n_out) for n_in, n_out in pairwise(sizes)), Part(0, 0))


def _expert(spec: ModelSpec) -> Part:
    seed_channels, convolutions = _DECODERS[spec.decoder]  # type: ignore[index]
    seed = _linear(spec.latent_dim, seed_channels * _SIDE**2)
    return sum((_convolution(*layer) for layer in convolutions), seed)


def _linear(n_in: int, n_out: int) -> Part:
    return Part(n_in * n_out + n_out, 2 * n_in * n_out)


def _convolution(c_in: int, c_out: int, taps: int, side: int) -> Part:
    return Part(c_in * c_out * taps + c_out, 2 * c_in * c_out * taps * side**2)
