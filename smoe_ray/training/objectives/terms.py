"""Terms that objectives are made of: means per image, so that the batch size is a free choice.

Shapes: B images, E experts, Z latent, P values of an image (C * H * W pixels).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from smoe_ray.model import Encoded
from smoe_ray.spec.objectives import BalancedObjectiveSpec
from smoe_ray.training.objectives.base import LossInput, Terms
from smoe_ray.training.objectives.errors import SQUARED_ERROR, PixelError
from smoe_ray.training.objectives.errors import squared_error as squared_error  # plug-ins find it here

PAPER_BATCH_SIZE = 128
"""The paper's lambdas weigh batch means against squared errors summed over a batch of 128; per image: divide by it."""

ENTROPY_EPSILON = 1e-8
"""Inside the logarithm of the entropy term, as in the authors' code."""


def complete(
    batch: LossInput,
    reconstruction: Tensor,
    gate_BE: Tensor,
    balanced: BalancedObjectiveSpec | None = None,
    lambda_entropy: float | None = None,
    scale: float | Tensor = 1.0,
) -> Terms:
    """All terms, given the objective's own: reconstruction + beta KL + (lambda_b L_balance + lambda_e L_entropy) / 128.

    Args:
        batch: what the objective was given.
        reconstruction: the objective's reconstruction term, a mean over images.
        gate_BE: gate probabilities.
        balanced: weight and form of the balance term; None: it is reported, and no part of the loss.
        lambda_entropy: weight of the entropy term; None: likewise.
        scale: factor of both weights; see `ErrorScale`.
    """
    kl = kl_divergence(batch.decoded.encoded).mean()
    balance = (
        global_balance(gate_BE, batch, balanced.balance_form, balanced.balance_parts)
        if balanced
        else global_balance(gate_BE, batch)
    )
    entropy = entropy_term(gate_BE)
    loss = reconstruction + batch.beta * kl
    if balanced is not None:
        regularisers = balanced.lambda_balance * balance
        if lambda_entropy is not None:
            regularisers = regularisers + lambda_entropy * entropy
        loss = loss + scale * (regularisers / PAPER_BATCH_SIZE)
    return Terms(loss, reconstruction, kl, balance, entropy, torch.zeros_like(loss))


def annealed(start: float, end: float, progress: float | Tensor) -> float | Tensor:
    """Between `start` and `end`, geometrically over the budget."""
    return start * (end / start) ** progress


def global_balance(gate_BE: Tensor, batch: LossInput, form: str = "released_code", parts: int = 1) -> Tensor:
    """L_balance of the average gate over the global batch, whatever shard of it this worker has (arXiv:2501.11873).

    With several `parts` M, image number i of the global batch is in part i mod M, and the result is the mean over
    images of the L_balance of their parts: again the same for any number of workers.
    """
    if parts == 1:
        return balance_term(batch.global_mean(gate_BE.mean(dim=0)), form)
    row_B = batch.first_row + torch.arange(len(gate_BE), device=gate_BE.device)
    part_BM = F.one_hot(row_B % parts, parts).to(gate_BE.dtype)
    share_M = batch.global_mean(part_BM.mean(dim=0))
    sum_ME = batch.global_mean(part_BM.t() @ gate_BE / len(gate_BE))
    balances = [
        balance_term(sum_E / share.clamp_min(1e-12), form) for sum_E, share in zip(sum_ME, share_M, strict=True)
    ]
    return (share_M * torch.stack(balances)).sum()


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


def expert_errors(image_BP: Tensor, image_EBP: Tensor, error: PixelError = SQUARED_ERROR) -> Tensor:
    """r_e: error of each expert alone on each image, by default squared: (B, E). See `Loss.error`."""
    if _one_by_one(image_EBP):
        error_BE: Tensor = _ExpertErrors.apply(error, image_BP, image_EBP)  # type: ignore[no-untyped-call]
        return error_BE
    return error.total(image_BP.expand_as(image_EBP), image_EBP).t()


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
    """`expert_errors`, one expert after another."""

    @staticmethod
    def forward(ctx: Any, error: PixelError, image_BP: Tensor, image_EBP: Tensor) -> Tensor:
        image_BP = torch.empty_like(image_EBP[0], dtype=image_BP.dtype).copy_(image_BP)  # in the experts' layout
        ctx.save_for_backward(image_BP, image_EBP)
        ctx.error = error
        return torch.stack([error.total(image_BP, expert_BP) for expert_BP in image_EBP], dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        image_BP, image_EBP = ctx.saved_tensors
        grad_image_EBP = torch.empty_like(image_EBP)
        for grad_B, expert_BP, grad_BP in zip(grads[0].t(), image_EBP, grad_image_EBP, strict=True):
            ctx.error.write_slope(image_BP, expert_BP, grad_B[:, None], grad_BP)
        return None, None, grad_image_EBP
