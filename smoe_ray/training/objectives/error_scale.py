"""Weights that follow the size of the error, so that one choice of them serves data of large and of small errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from smoe_ray.spec.objectives import BalancedObjectiveSpec, ErrorScaleSpec
from smoe_ray.training.objectives.base import GlobalMean, Loss, LossInput, Terms
from smoe_ray.training.objectives.terms import complete

MOMENTUM = 0.99
"""Of the running mean: it remembers about 100 steps."""


class ErrorScale(nn.Module):
    """(Running mean of the error of an image) / `error_scale`, or 1 where the spec has none.

    The mean is exponential, over the global batches, with the correction for its start that Adam has
    (arXiv:1412.6980, section 3). No gradient flows through it.
    """

    mean: Tensor
    weight: Tensor

    def __init__(self, spec: ErrorScaleSpec) -> None:
        super().__init__()
        self.error_scale = spec.error_scale
        if self.error_scale is not None:
            self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
            self.register_buffer("weight", torch.zeros((), dtype=torch.float64))
        # A compiled step would read the buffers as they were before this step, at first 0 / 0.
        self._running_mean: Callable[[Tensor, GlobalMean], Tensor] = torch.compiler.disable(self._follow)

    def forward(self, error: Tensor, global_mean: GlobalMean) -> float | Tensor:
        """The factor of this step, after its error: a mean over this worker's images (scalar)."""
        return 1.0 if self.error_scale is None else self._running_mean(error, global_mean) / self.error_scale

    @torch.no_grad()
    def _follow(self, error: Tensor, global_mean: GlobalMean) -> Tensor:
        now = global_mean(error.detach()).double()
        self.mean.lerp_(now, 1 - MOMENTUM)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - MOMENTUM)
        running_mean: Tensor = self.mean / self.weight
        return running_mean


ScaledSpec = TypeVar("ScaledSpec", bound=ErrorScaleSpec)


class ScaledLoss(Loss[ScaledSpec]):
    """A loss whose weights can follow the size of the error."""

    def __init__(self, spec: ScaledSpec) -> None:
        super().__init__(spec)
        self.scale = ErrorScale(spec)

    def complete(
        self,
        batch: LossInput,
        reconstruction: Tensor,
        gate_BE: Tensor,
        scale: float | Tensor,
        lambda_entropy: float | None = None,
    ) -> Terms:
        """`terms.complete` with this factor of the weights, which is reported where it is not always 1."""
        assert isinstance(self.spec, BalancedObjectiveSpec)
        terms = complete(batch, reconstruction, gate_BE, self.spec, lambda_entropy, scale)
        return terms._replace(own={"weight_scale": scale} if isinstance(scale, Tensor) else None)
