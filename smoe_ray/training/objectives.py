"""What training minimises: terms per image, so that the batch size is a free choice.

Shapes: B images, E experts, Z latent, P pixels (784).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from smoe_ray.model import Decoded, Encoded
from smoe_ray.spec import Blend, Expected, Likelihood

PAPER_BATCH_SIZE = 128
"""The paper's lambdas weigh batch means against squared errors summed over a batch of 128; per image: divide by it."""

ENTROPY_EPSILON = 1e-8
"""Inside the logarithm of the entropy term, as in the authors' code."""

MeanOverWorkers = Callable[[Tensor], Tensor]


def identity(value: Tensor) -> Tensor:
    """`MeanOverWorkers` of a single worker."""
    return value


class Terms(NamedTuple):
    """Terms of the loss of a batch, each a mean over images (scalar tensors)."""

    loss: Tensor
    """What is minimised."""
    reconstruction: Tensor
    """The objective's own reconstruction term, squared-error units summed over the pixels."""
    kl: Tensor
    """KL divergence of posterior from prior, nats."""
    balance: Tensor
    """L_balance, unweighted."""
    entropy: Tensor
    """Mean gate entropy, nats, unweighted (reported even where it is no part of the loss)."""
    cross_entropy: Tensor
    """Cross-entropy of the gate against the class label, nats; zero in unsupervised routing."""


def unsupervised_terms(
    objective: Blend | Expected | Likelihood,
    image_BP: Tensor,
    decoded: Decoded,
    beta: float,
    progress: float | Tensor,
    mean_over_workers: MeanOverWorkers = identity,
) -> Terms:
    """Loss of unsupervised routing: reconstruction + beta KL + (lambda_b L_balance + lambda_e L_entropy) / 128.

    Args:
        objective: which reconstruction term, and the weights lambda.
        image_BP: the images, pixels in [0, 1].
        decoded: a forward pass with all experts.
        beta: weight of the KL term.
        progress: share of the budget that is done, 0 to 1 (anneals the variance of `likelihood`).
        mean_over_workers: mean of the batch's average gate over data-parallel workers; the identity for one.
    """
    assert decoded.image_EBP is not None
    gate_BE = torch.softmax(decoded.logit_BE, dim=1)
    if isinstance(objective, Blend):
        reconstruction = _blend_error(objective.gating, gate_BE, image_BP, decoded.image_EBP)
    elif isinstance(objective, Expected):
        reconstruction = (gate_BE * _expert_errors(image_BP, decoded.image_EBP)).sum(dim=1).mean()
    else:
        variance = annealed_variance(objective, progress)
        log_gate_BE = torch.log_softmax(decoded.logit_BE, dim=1)
        error_BE = _expert_errors(image_BP, decoded.image_EBP)
        log_mixture_B = torch.logsumexp(log_gate_BE - error_BE / (2 * variance), dim=1)
        reconstruction = -2 * variance * log_mixture_B.mean()
    kl = kl_divergence(decoded.encoded).mean()
    balance = balance_term(mean_over_workers(gate_BE.mean(dim=0)), objective.balance_form)
    entropy = entropy_term(gate_BE)
    regularisers = objective.lambda_balance * balance
    if isinstance(objective, Blend):
        regularisers = regularisers + objective.lambda_entropy * entropy
    loss = reconstruction + beta * kl + regularisers / PAPER_BATCH_SIZE
    return Terms(loss, reconstruction, kl, balance, entropy, torch.zeros_like(loss))


def supervised_terms(
    image_BP: Tensor,
    label_B: Tensor,
    decoded: Decoded,
    beta: float,
    mean_over_workers: MeanOverWorkers = identity,
) -> Terms:
    """Loss of the label-routed baseline: error of the predicted class's expert, KL, cross-entropy of the gate.

    The choice of the expert is hard, so the reconstruction sends no gradient into the gate. The cross-entropy has
    weight 1 an image; the paper names none.

    Args:
        image_BP: the images, pixels in [0, 1].
        label_B: class labels; expert number = class number.
        decoded: a forward pass with the chosen expert alone.
        beta: weight of the KL term.
        mean_over_workers: as in `unsupervised_terms`; here for the reported balance, which is no part of the loss.
    """
    assert decoded.chosen_BP is not None
    gate_BE = torch.softmax(decoded.logit_BE, dim=1)
    reconstruction = squared_error(image_BP, decoded.chosen_BP).mean()
    kl = kl_divergence(decoded.encoded).mean()
    cross_entropy = F.cross_entropy(decoded.logit_BE, label_B)
    balance = balance_term(mean_over_workers(gate_BE.mean(dim=0)), "released_code")
    loss = reconstruction + beta * kl + cross_entropy
    return Terms(loss, reconstruction, kl, balance, entropy_term(gate_BE), cross_entropy)


def squared_error(image_BP: Tensor, reconstruction_BP: Tensor) -> Tensor:
    """Squared error of each image, summed over its pixels: (B,)."""
    return (image_BP - reconstruction_BP).square().sum(dim=-1)


def blend(gate_BE: Tensor, image_EBP: Tensor) -> Tensor:
    """Gate-weighted sum of the experts' images: (B, P)."""
    if _one_by_one(image_EBP):
        blended: Tensor = _Blend.apply(gate_BE, image_EBP)  # type: ignore[no-untyped-call]
        return blended
    return (gate_BE.t()[:, :, None] * image_EBP).sum(dim=0)


def kl_divergence(encoded: Encoded) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) of each image, nats, summed over the latent vector: (B,)."""
    mu_BZ, logvar_BZ = encoded
    return -0.5 * (1 + logvar_BZ - mu_BZ.square() - logvar_BZ.exp()).sum(dim=1)


def balance_term(mean_gate_E: Tensor, form: str) -> Tensor:
    """L_balance = E * sum_e (p_e - 1/E)^2 (released code), or E * mean_e of it (text of arXiv:2509.10025)."""
    E = len(mean_gate_E)
    squares_E = (mean_gate_E - 1 / E).square()
    return E * (squares_E.sum() if form == "released_code" else squares_E.mean())


def entropy_term(gate_BE: Tensor) -> Tensor:
    """L_entropy: mean entropy of the gate, nats (arXiv:2509.10025, with the authors' epsilon)."""
    return -(gate_BE * torch.log(gate_BE + ENTROPY_EPSILON)).sum(dim=1).mean()


def annealed_variance(objective: Likelihood, progress: float | Tensor) -> float | Tensor:
    """s^2 between `variance_start` and `variance_end`, geometrically over the budget."""
    return objective.variance_start * (objective.variance_end / objective.variance_start) ** progress


def _expert_errors(image_BP: Tensor, image_EBP: Tensor) -> Tensor:
    """r_e: squared error of each expert alone on each image: (B, E)."""
    if _one_by_one(image_EBP):
        error_BE: Tensor = _ExpertErrors.apply(image_BP, image_EBP)  # type: ignore[no-untyped-call]
        return error_BE
    return (image_EBP - image_BP).square().sum(dim=-1).t()


def _blend_error(gating: str, gate_BE: Tensor, image_BP: Tensor, image_EBP: Tensor) -> Tensor:
    if gating == "hard":  # straight through: one-hot forward, the softmax's gradient backward
        one_hot_BE = F.one_hot(gate_BE.argmax(dim=1), gate_BE.shape[1]).to(gate_BE.dtype)
        gate_BE = one_hot_BE + gate_BE - gate_BE.detach()
    return squared_error(image_BP, blend(gate_BE, image_EBP)).mean()


def _one_by_one(image_EBP: Tensor) -> bool:
    """Whether to take one expert after another.

    On a CPU what one needs stays in a cache; written for all at once, passes over E x B x P numbers took a tenth of a
    training step with 50 experts. A compiler fuses the passes by itself.
    """
    return image_EBP.device.type == "cpu" and not torch.compiler.is_compiling()


class _Blend(torch.autograd.Function):
    """`blend`, one expert after another."""

    @staticmethod
    def forward(ctx: Any, gate_BE: Tensor, image_EBP: Tensor) -> Tensor:
        ctx.save_for_backward(gate_BE, image_EBP)
        blended_BP = torch.zeros_like(image_EBP[0], dtype=torch.result_type(gate_BE, image_EBP))
        for gate_B, expert_BP in zip(gate_BE.t(), image_EBP, strict=True):
            blended_BP.addcmul_(gate_B[:, None], expert_BP)
        return blended_BP

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        gate_BE, image_EBP = ctx.saved_tensors
        grad_gate_BE, grad_image_EBP = torch.empty_like(gate_BE), torch.empty_like(image_EBP)
        grad_BP = torch.empty_like(image_EBP[0], dtype=grads[0].dtype).copy_(grads[0])  # in the experts' layout
        for e, expert_BP in enumerate(image_EBP):
            torch.mul(grad_BP, gate_BE[:, e, None], out=grad_image_EBP[e])
            torch.sum(grad_BP * expert_BP, dim=1, out=grad_gate_BE[:, e])
        return grad_gate_BE, grad_image_EBP


class _ExpertErrors(torch.autograd.Function):
    """`_expert_errors`, one expert after another."""

    @staticmethod
    def forward(ctx: Any, image_BP: Tensor, image_EBP: Tensor) -> Tensor:
        image_BP = torch.empty_like(image_EBP[0], dtype=image_BP.dtype).copy_(image_BP)  # in the experts' layout
        ctx.save_for_backward(image_BP, image_EBP)
        return torch.stack([squared_error(image_BP, expert_BP) for expert_BP in image_EBP], dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        image_BP, image_EBP = ctx.saved_tensors
        grad_image_EBP = torch.empty_like(image_EBP)
        for grad_B, expert_BP, grad_BP in zip(grads[0].t(), image_EBP, grad_image_EBP, strict=True):
            torch.sub(expert_BP, image_BP, out=grad_BP).mul_(2 * grad_B[:, None])
        return None, grad_image_EBP
