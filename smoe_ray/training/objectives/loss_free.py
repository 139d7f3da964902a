"""Loss-free balancing: a bias per expert, moved after each step by the sign of its load's deviation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from smoe_ray.model import SMoEVAE
from smoe_ray.model.gate import MLPGate
from smoe_ray.spec.objectives import LossFreeBias
from smoe_ray.training.objectives.base import GlobalMean, Loss, LossInput, Terms
from smoe_ray.training.objectives.dispatch import dispatched, sign_of_difference
from smoe_ray.training.objectives.terms import complete


class LossFreeBiasLoss(Loss[LossFreeBias]):
    """r(sum_k w_k x_k) + beta KL over the first K experts by s + b; w is softmax(s), without the bias b.

    Wang et al., arXiv:2408.15664: after each step b_e += u sign(mean load - load_e), the loads being those
    of the global batch, and no gradient balances them. There b is added to the gate's probabilities, here to its
    logits, and it is part of the gate: `after_step` adds it to the bias of the gate's last linear layer. So the logits
    that a model computes are s + b, test images go to their argmax with it, and the loss subtracts b again. The
    optimizer trains that same layer's bias through s; the two add up. The weights w are scaled to sum to 1 over several
    experts of an image (as DeepSeek-V3 does, arXiv:2412.19437, section 2.1.2); a single one keeps its w, through which
    alone the gate learns then.
    """

    bias_E: Tensor

    def __init__(self, spec: LossFreeBias) -> None:
        super().__init__(spec)
        self.register_buffer("bias_E", torch.zeros(()))  # of any number of experts, which the first step tells
        self.register_load_state_dict_pre_hook(_take_shape)  # type: ignore[no-untyped-call]
        self.load_E: Tensor | None = None

    def choose(self, logit_BE: Tensor, global_mean: GlobalMean, uniform_BE: Tensor | None) -> Tensor:  # noqa: ARG002
        """The experts with the highest s + b, which are the gate's logits."""
        return logit_BE.topk(self.spec.top_k, dim=1).indices

    def forward(self, batch: LossInput) -> Terms:
        """See `Loss.forward`."""
        score_BE = batch.decoded.logit_BE - self.bias_E
        gate_BE, image_BP = dispatched(batch, normalised=self.spec.top_k > 1, logit_BE=score_BE)
        assert batch.decoded.expert_BK is not None
        is_chosen_BE = F.one_hot(batch.decoded.expert_BK, gate_BE.shape[1]).sum(dim=1)
        self.load_E = load_E = batch.global_mean(is_chosen_BE.double().mean(dim=0))
        terms = complete(batch, self.error.total(batch.image_BP, image_BP).mean(), gate_BE)
        return terms._replace(own={"max_violation": (load_E.max() / load_E.mean() - 1).to(terms.loss.dtype)})

    @torch.no_grad()
    def after_step(self, model: SMoEVAE) -> None:
        """Move the bias of every expert, in the gate too."""
        assert isinstance(model.gate, MLPGate)
        assert self.load_E is not None
        change_E = self.spec.bias_rate * sign_of_difference(self.load_E.mean(), self.load_E).to(self.bias_E.dtype)
        self.bias_E = self.bias_E + change_E
        last = model.gate[-1]
        assert isinstance(last, nn.Linear)
        last.bias.add_(change_E)


def _take_shape(loss: LossFreeBiasLoss, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A checkpoint knows the number of experts that a fresh loss does not."""
    loss.bias_E = torch.zeros_like(state[f"{prefix}bias_E"], device=loss.bias_E.device)
