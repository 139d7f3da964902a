"""Terms of the loss that rise linearly from 0: w = min(t / share, 1) at the share t of the budget.

- ``regularisers``: loss = reconstruction + beta KL + w * (everything else of the objective). Works for any objective:
  balance, entropy, load, information, the cross-entropy of routing by label.
- ``entropy``: only the entropy term lambda_entropy H(p) / 128 has the factor w. The balance term has its full weight
  from the start, so for a while the ratio of the two is above that at which experts begin to die.

The ramp is that of the KL term in Bowman et al. 2016, arXiv:1511.06349, section 3.1, on other terms.
"""

from __future__ import annotations

from torch import Tensor

from smoe_ray.model import SMoEVAE
from smoe_ray.spec import TrialSpec
from smoe_ray.spec.modifiers import WarmUpSpec
from smoe_ray.training.modifiers.base import Modifier, risen
from smoe_ray.training.objectives import LossInput, Terms
from smoe_ray.training.objectives.terms import PAPER_BATCH_SIZE


class WarmUp(Modifier[WarmUpSpec]):
    """Takes from the loss what its terms have not yet risen to."""

    def __init__(self, spec: WarmUpSpec, trial: TrialSpec) -> None:
        super().__init__(spec, trial)
        # None or absent without an entropy term; `TrialSpec` refuses to warm one up then.
        self.lambda_entropy: float | None = getattr(trial.objective, "lambda_entropy", None)

    def terms(self, terms: Terms, batch: LossInput, model: SMoEVAE) -> Terms:  # noqa: ARG002
        """With the loss of this step; the terms are reported as they are, unweighted."""
        missing = 1 - risen(batch.progress, self.spec.share)
        return terms._replace(loss=terms.loss - missing * self._warmed_up(terms, batch))

    def _warmed_up(self, terms: Terms, batch: LossInput) -> Tensor:
        """The part of the loss that rises, at full weight."""
        if self.spec.terms == "regularisers":
            return terms.loss - terms.reconstruction - batch.beta * terms.kl
        assert self.lambda_entropy is not None
        scale = (terms.own or {}).get("weight_scale", 1.0)  # see `ErrorScale`
        return scale * (self.lambda_entropy / PAPER_BATCH_SIZE) * terms.entropy
