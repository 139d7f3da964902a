"""Control: experts drawn uniformly, anew at every step."""

from __future__ import annotations

from torch import Tensor

from smoe_ray.spec.objectives import UniformRouter
from smoe_ray.training.objectives.base import GlobalMean, Loss, LossInput, Terms
from smoe_ray.training.objectives.dispatch import without_gate


class UniformRouterLoss(Loss[UniformRouter]):
    """r_e + beta KL, e drawn uniformly: the experts learn the same, and the gate nothing."""

    def choose(self, logit_BE: Tensor, global_mean: GlobalMean, uniform_BE: Tensor | None) -> Tensor:  # noqa: ARG002
        """The expert of the largest random number."""
        assert uniform_BE is not None
        return uniform_BE.argmax(dim=1, keepdim=True)

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        return without_gate(batch, self.error)
