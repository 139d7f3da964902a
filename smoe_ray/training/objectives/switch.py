"""Switch Transformer's routing: each image to the expert of the highest gate probability."""

from __future__ import annotations

from smoe_ray.spec.objectives import Switch
from smoe_ray.training.objectives.base import Loss, LossInput, Terms
from smoe_ray.training.objectives.dispatch import dispatched, load_balanced


class SwitchLoss(Loss[Switch]):
    """r(p_e x_e) + beta KL + a E sum_e f_e P_e + z mean(logsumexp(s)^2), e the dispatched expert.

    Fedus et al., arXiv:2101.03961, equations 2 and 4; the last term is the router z-loss of arXiv:2202.08906. f_e is
    the share of the global batch that is dispatched to e, P_e its mean gate probability. There is no capacity: no image
    is dropped. Test images are decoded by the expert alone, unscaled: the scale is learnt to be near 1.
    """

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        gate_BE, image_BP = dispatched(batch, normalised=False)
        reconstruction = self.error.total(batch.image_BP, image_BP).mean()
        return load_balanced(batch, reconstruction, gate_BE, self.spec)
