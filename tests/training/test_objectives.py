"""Terms of the loss on numbers worked out by hand.

Shapes: B images, E experts, Z latent, P pixels (here two, where it does not matter).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smoe_ray.model import Decoded, Encoded
from smoe_ray.spec import (
    Blend,
    Expected,
    FrozenRouter,
    Gumbel,
    HardEM,
    Likelihood,
    MutualInformation,
    ObjectiveSpec,
    Sinkhorn,
    Supervised,
    UniformRouter,
    VMoE,
)
from smoe_ray.spec.objectives import BuiltInObjective, DecoderLikelihood
from smoe_ray.testing.objectives import ObjectiveContract
from smoe_ray.training.objectives import LossInput, Terms, loss_for
from smoe_ray.training.objectives import terms as shared_terms
from smoe_ray.training.objectives.errors import error_of, squared_error
from smoe_ray.training.objectives.terms import (
    PAPER_BATCH_SIZE,
    annealed,
    balance_term,
    blend,
    entropy_term,
    expert_errors,
    kl_divergence,
)

LIKELIHOODS: tuple[DecoderLikelihood, ...] = get_args(DecoderLikelihood)


def tensor(values: Sequence[object]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Two images of two pixels, two experts. Squared errors: image 0: expert 0 1, expert 1 0.25 + 1; image 1: 0 and 1.
IMAGE_BP = tensor([[0, 1], [1, 1]])
IMAGE_EBP = tensor([[[0, 0], [1, 1]], [[0.5, 0], [1, 0]]])
ERROR_BE = tensor([[1, 1.25], [0, 1]])
GATE_BE = tensor([[0.25, 0.75], [0.5, 0.5]])
MU_BZ, LOGVAR_BZ = tensor([[1], [0]]), tensor([[0], [math.log(4)]])
KL = (0.5 + (0.5 * (4 - 1) - math.log(2))) / 2


def decoded(
    gate_BE: Tensor = GATE_BE, image_EBP: Tensor | None = IMAGE_EBP, chosen_BP: Tensor | None = None
) -> Decoded:
    chosen_KBP = None if chosen_BP is None else chosen_BP[None]
    return Decoded(Encoded(MU_BZ, LOGVAR_BZ), gate_BE.log(), image_EBP, chosen_KBP)


def loss_terms(
    objective: ObjectiveSpec,
    decoding: Decoded,
    beta: float = 0,
    progress: float = 0,
    image_BP: Tensor = IMAGE_BP,
    label_B: Tensor | None = None,
) -> Terms:
    label_B = torch.zeros(len(image_BP), dtype=torch.int64) if label_B is None else label_B
    found: Terms = loss_for(objective)(LossInput(image_BP, label_B, decoding, beta, progress))
    return found


def test_the_parts_by_hand() -> None:
    assert squared_error(IMAGE_BP, IMAGE_EBP[1]).tolist() == [1.25, 1]
    assert torch.allclose(blend(GATE_BE, IMAGE_EBP), tensor([[0.375, 0], [1, 0.5]]))
    assert kl_divergence(Encoded(MU_BZ, LOGVAR_BZ)).mean().item() == pytest.approx(KL)


# Two values of an image, 0.25 and 1, decoded as 0.5 and 0.8.
@pytest.mark.parametrize(
    ("likelihood", "error"),
    [
        ("gaussian", 0.25**2 + 0.2**2),
        ("bernoulli", math.log(2) - math.log(0.8)),
        ("laplace", 0.25 + 0.2),
    ],
)
def test_each_error_by_hand(likelihood: DecoderLikelihood, error: float) -> None:
    image_BP, decoded_BP = tensor([[0.25, 1]]), tensor([[0.5, 0.8]])
    for objective in (Blend(likelihood=likelihood), Supervised(likelihood=likelihood)):
        assert error_of(objective).total(image_BP, decoded_BP).tolist() == pytest.approx([error])
    terms = loss_terms(
        Likelihood(likelihood=likelihood, lambda_balance=0, variance_start=0.5),
        Decoded(Encoded(MU_BZ[:1], LOGVAR_BZ[:1]), tensor([[0.0, 0]]), torch.stack([decoded_BP, image_BP]), None),
        image_BP=image_BP,
    )
    least = error_of(Blend(likelihood=likelihood)).total(image_BP, image_BP).item()
    # s^2 = 1/2: minus the logarithm of the mixture's density (bernoulli: its probability, exactly).
    assert terms.reconstruction.item() == pytest.approx(-math.log((math.exp(-error) + math.exp(-least)) / 2))


class PlainSpec(ObjectiveSpec):
    """Of a plug-in that knows no likelihood."""


def test_parts_of_a_batch_are_balanced_each_by_itself() -> None:
    gate_BE = tensor([[1, 0], [0, 1], [1, 0], [0, 1], [0.5, 0.5]])
    batch = LossInput(IMAGE_BP, torch.zeros(5), decoded(), 0, 0)
    # Rows 0, 2, 4 have the mean (5/6, 1/6), and rows 1, 3 have (0, 1); all of them are even.
    parts = [2 * 2 * (1 / 3) ** 2, 2 * 2 * 0.5**2]
    assert shared_terms.global_balance(gate_BE, batch).item() == pytest.approx(0)
    assert shared_terms.global_balance(gate_BE, batch, parts=2).item() == pytest.approx(
        (3 * parts[0] + 2 * parts[1]) / 5
    )
    # A part without an image does not count: each image is then balanced by itself.
    alone = shared_terms.global_balance(gate_BE, batch, parts=9)
    assert alone.item() == pytest.approx(4 / 5)


def test_an_objective_without_a_likelihood_has_the_squared_error() -> None:
    assert error_of(PlainSpec(name="plain")) is error_of(Blend())


def test_the_bernoulli_error_and_its_gradient_are_torchs_and_finite_at_0_and_1() -> None:
    corners = tensor([0, 0.25, 1])
    ends = tensor([0, 1e-300, 1e-9, 0.5, 1 - 1e-9, 1])
    image_BP, y_BP = (values.flatten()[None] for values in torch.meshgrid(corners, ends, indexing="ij"))
    weight_B = tensor([0.3])
    ours_BP, torchs_BP = y_BP.clone().requires_grad_(), y_BP.clone().requires_grad_()
    ours = error_of(Blend(likelihood="bernoulli")).total(image_BP, ours_BP)
    torchs = F.binary_cross_entropy(torchs_BP, image_BP, reduction="none").sum(dim=1)
    torch.testing.assert_close(ours, torchs)
    (weight_B * ours).sum().backward()
    (weight_B * torchs).sum().backward()
    assert ours_BP.grad is not None
    assert torch.isfinite(ours_BP.grad).all()
    torch.testing.assert_close(ours_BP.grad, torchs_BP.grad)


def test_a_blend_that_rounding_lifts_above_1_has_a_cross_entropy_and_nan_stays_nan() -> None:
    total = error_of(Blend(likelihood="bernoulli")).total
    assert total(torch.ones(1, 1), torch.full((1, 1), 1 + 1e-6)).item() == 0
    assert total(torch.ones(1, 1), torch.full((1, 1), math.nan)).isnan().all()  # the loop tells a divergence by it


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradients_of_the_errors_are_numerical_ones(likelihood: DecoderLikelihood) -> None:
    generator = torch.Generator().manual_seed(0)
    image_BP = torch.rand(3, 4, dtype=torch.float64, generator=generator)
    image_EBP = torch.rand(2, 3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    error = error_of(Blend(likelihood=likelihood))
    assert torch.autograd.gradcheck(lambda decoded: expert_errors(image_BP, decoded, error), image_EBP)
    one_BP = image_EBP[0].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda decoded: error.total(image_BP, decoded), one_BP)


@pytest.mark.parametrize("image_dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["batch innermost", "pixels innermost"])
@pytest.mark.parametrize(
    "objective",
    [
        Blend(),
        Blend(gating="hard"),
        Expected(),
        Likelihood(),
        Expected(likelihood="bernoulli"),
        Likelihood(likelihood="laplace"),
    ],
    ids=str,
)
def test_one_expert_after_another_is_all_at_once(
    objective: ObjectiveSpec, layout: str, image_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    logit_BE = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    image_EPB = torch.rand(3, 4, 5, dtype=torch.float64, generator=generator).to(image_dtype)
    image_EBP = image_EPB.transpose(1, 2)
    if layout == "pixels innermost":
        image_EBP = image_EBP.contiguous()
    image_EBP.requires_grad_()
    image_BP = torch.rand(5, 4, dtype=torch.float64, generator=generator)
    posterior = Encoded(torch.zeros(5, 1, dtype=torch.float64), torch.zeros(5, 1, dtype=torch.float64))

    def value_and_gradients() -> list[Tensor]:
        loss = loss_terms(objective, Decoded(posterior, logit_BE, image_EBP, None), 0.5, 0.25, image_BP).loss
        return [loss, *torch.autograd.grad(loss, (logit_BE, image_EBP))]

    actual = value_and_gradients()
    monkeypatch.setattr(shared_terms, "_one_by_one", lambda _: False)
    for one_by_one, at_once in zip(actual, value_and_gradients(), strict=True):
        assert one_by_one.dtype == at_once.dtype
        assert torch.allclose(one_by_one, at_once, rtol=1e-12 if at_once.dtype == torch.float64 else 1e-2)


@pytest.mark.parametrize(
    ("mean_gate", "released", "text"),
    [
        ([0.5, 0.5], 0, 0),
        ([1, 0], 2 * (0.25 + 0.25), 2 * 0.25),
        ([0.25, 0.75], 2 * (0.0625 + 0.0625), 2 * 0.0625),
        ([0.5, 0.5, 0, 0], 4 * 4 * 0.0625, 4 * 0.0625),
        ([1], 0, 0),
    ],
)
def test_balance_by_hand(mean_gate: list[float], released: float, text: float) -> None:
    assert balance_term(tensor(mean_gate), "released_code").item() == pytest.approx(released)
    assert balance_term(tensor(mean_gate), "paper_text").item() == pytest.approx(text)


@pytest.mark.parametrize(
    ("gate", "entropy"),
    [
        ([[1, 0]], 0),
        ([[0.5, 0.5]], math.log(2)),
        ([[0.25] * 4, [1, 0, 0, 0]], math.log(4) / 2),
        ([[0.25, 0.75]], 0.25 * math.log(4) + 0.75 * math.log(4 / 3)),
    ],
)
def test_entropy_by_hand(gate: list[list[float]], entropy: float) -> None:
    assert entropy_term(tensor(gate)).item() == pytest.approx(entropy, abs=1e-7)


def test_an_empty_expert_gives_no_nan_in_entropy_or_its_gradient() -> None:
    gate_BE = tensor([[1, 0]]).requires_grad_()
    entropy_term(gate_BE).backward()
    assert gate_BE.grad is not None
    assert torch.isfinite(gate_BE.grad).all()


BALANCE = 2 * (0.125**2 + 0.125**2)  # mean gate (3/8, 5/8)
ENTROPY = (0.25 * math.log(4) + 0.75 * math.log(4 / 3) + math.log(2)) / 2
BLENDED = (0.375**2 + 1 + 0.25) / 2


def test_blend_by_hand() -> None:
    objective = Blend(lambda_balance=128, lambda_entropy=256)
    terms = loss_terms(objective, decoded(), beta=0.5, progress=0)
    assert terms.reconstruction.item() == pytest.approx(BLENDED)
    assert terms.kl.item() == pytest.approx(KL)
    assert terms.balance.item() == pytest.approx(BALANCE)
    assert terms.entropy.item() == pytest.approx(ENTROPY, abs=1e-7)
    assert terms.cross_entropy.item() == 0
    assert terms.loss.item() == pytest.approx(BLENDED + 0.5 * KL + 1 * BALANCE + 2 * ENTROPY, abs=1e-6)


def test_the_papers_text_divides_balance_by_the_number_of_experts() -> None:
    objective = Blend(lambda_balance=128, lambda_entropy=0, balance_form="paper_text")
    terms = loss_terms(objective, decoded(), beta=0, progress=0)
    assert terms.loss.item() == pytest.approx(BLENDED + BALANCE / 2)


def test_expected_by_hand() -> None:
    terms = loss_terms(Expected(lambda_balance=64), decoded(), beta=2, progress=0)
    reconstruction = (0.25 * 1 + 0.75 * 1.25 + 0.5 * 0 + 0.5 * 1) / 2
    assert terms.reconstruction.item() == pytest.approx(reconstruction)
    assert terms.loss.item() == pytest.approx(reconstruction + 2 * KL + BALANCE / 2)  # no entropy term
    assert terms.entropy.item() == pytest.approx(ENTROPY, abs=1e-7)  # but reported


def test_likelihood_by_hand() -> None:
    objective = Likelihood(lambda_balance=64, variance_start=8, variance_end=2)
    terms = loss_terms(objective, decoded(), beta=2, progress=0.5)  # s^2 = 4
    first = 0.25 * math.exp(-1 / 8) + 0.75 * math.exp(-1.25 / 8)
    second = 0.5 + 0.5 * math.exp(-1 / 8)
    reconstruction = -8 * (math.log(first) + math.log(second)) / 2
    assert terms.reconstruction.item() == pytest.approx(reconstruction)
    assert terms.loss.item() == pytest.approx(reconstruction + 2 * KL + BALANCE / 2)


def test_annealing_is_geometric_and_meets_both_ends() -> None:
    objective = Likelihood(variance_start=8, variance_end=0.5)
    ends = objective.variance_start, objective.variance_end
    assert [annealed(*ends, share) for share in (0, 0.25, 0.5, 1)] == pytest.approx([8, 4, 2, 0.5])
    assert annealed(2, 2, 0.3) == pytest.approx(2)


def reconstruction(objective: ObjectiveSpec, gate_BE: Tensor, image_EBP: Tensor) -> float:
    return loss_terms(objective, decoded(gate_BE, image_EBP)).reconstruction.item()


@given(st.integers(0, 999), st.sampled_from(LIKELIHOODS))
def test_one_expert_makes_all_objectives_one(seed: int, likelihood: DecoderLikelihood) -> None:
    image_EBP = torch.rand(1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    plain = error_of(Blend(likelihood=likelihood)).total(IMAGE_BP, image_EBP[0]).mean().item()
    for objective in (
        Blend(likelihood=likelihood),
        Blend(likelihood=likelihood, gating="hard"),
        Expected(likelihood=likelihood),
        Likelihood(likelihood=likelihood),
        Likelihood(likelihood=likelihood, variance_start=0.01),
    ):
        assert reconstruction(objective, torch.ones(2, 1, dtype=torch.float64), image_EBP) == pytest.approx(plain)
        terms = loss_terms(objective, decoded(torch.ones(2, 1, dtype=torch.float64), image_EBP), 0.5)
        assert terms.loss.item() == pytest.approx(plain + 0.5 * KL, abs=1e-6)


def test_the_likelihoods_limits_are_the_best_expert_and_the_expected_error() -> None:
    tiny, huge = 1e-4, 1e6
    # -2 s^2 ln sum_e p_e exp(-r_e / 2 s^2) -> min_e r_e - 2 s^2 ln p_best as s^2 -> 0
    best = ((1 - 2 * tiny * math.log(0.25)) + (0 - 2 * tiny * math.log(0.5))) / 2
    assert reconstruction(Likelihood(variance_start=tiny), GATE_BE, IMAGE_EBP) == pytest.approx(best, abs=1e-12)
    expected = reconstruction(Expected(), GATE_BE, IMAGE_EBP)
    assert reconstruction(Likelihood(variance_start=huge), GATE_BE, IMAGE_EBP) == pytest.approx(expected, rel=1e-6)


def test_likelihood_does_not_underflow_for_a_bad_gate_and_large_errors() -> None:
    decoding = Decoded(
        Encoded(torch.zeros(1, 1), torch.zeros(1, 1)),
        torch.tensor([[0.0, -300.0]]),
        torch.tensor([[[40.0]], [[60.0]]]),
        None,
    )
    terms = loss_terms(Likelihood(variance_start=1), decoding, image_BP=torch.zeros(1, 1))
    assert terms.reconstruction.item() == pytest.approx(1600)


def test_at_batch_128_the_loss_is_the_papers_divided_by_128() -> None:
    generator = torch.Generator().manual_seed(0)
    image_BP = torch.rand(128, 784, dtype=torch.float64, generator=generator)
    image_EBP = torch.rand(3, 128, 784, dtype=torch.float64, generator=generator)
    logit_BE, mu_BZ, logvar_BZ = torch.randn(3, 128, 3, dtype=torch.float64, generator=generator)
    decoding = Decoded(Encoded(mu_BZ, logvar_BZ), logit_BE, image_EBP, None)
    terms = loss_terms(Blend(lambda_balance=200, lambda_entropy=400), decoding, beta=0.01, image_BP=image_BP)
    # Written as the authors do: sums over the batch, means for the gate's terms.
    p = logit_BE.softmax(dim=1)
    x = sum(p[:, e, None] * image_EBP[e] for e in range(3))
    kl = 0.5 * (mu_BZ**2 + logvar_BZ.exp() - 1 - logvar_BZ).sum()
    balance = 3 * ((p.mean(dim=0) - 1 / 3) ** 2).sum()
    entropy = -(p * (p + 1e-8).log()).sum(dim=1).mean()
    papers = ((x - image_BP) ** 2).sum() + 0.01 * kl + 200 * balance + 400 * entropy
    assert PAPER_BATCH_SIZE == 128
    assert terms.loss.item() == pytest.approx(papers.item() / 128, rel=1e-12)


def test_balance_is_of_the_mean_gate_over_workers() -> None:
    label_B = torch.zeros(2, dtype=torch.int64)
    terms = loss_for(Expected())(LossInput(IMAGE_BP, label_B, decoded(), 0, 0, lambda _: tensor([1, 0])))
    assert terms.balance.item() == pytest.approx(1)


@given(st.integers(0, 999))
def test_kl_is_torchs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mu_BZ, logvar_BZ = 2 * torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
    posterior = torch.distributions.Normal(mu_BZ, (logvar_BZ / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mu_BZ), torch.ones_like(mu_BZ))
    torchs = torch.distributions.kl_divergence(posterior, prior).sum(dim=1)
    assert torch.allclose(kl_divergence(Encoded(mu_BZ, logvar_BZ)), torchs)


def test_hard_gating_is_the_argmax_forward_and_the_softmax_backward() -> None:
    logit_BE = tensor([[1, 2], [0.5, 0]]).requires_grad_()
    decoding = Decoded(Encoded(MU_BZ, LOGVAR_BZ), logit_BE, IMAGE_EBP, None)
    objective = Blend(gating="hard", lambda_balance=0, lambda_entropy=0)
    terms = loss_terms(objective, decoding)
    assert terms.reconstruction.item() == pytest.approx((1.25 + 0) / 2)  # expert 1 for image 0, expert 0 for image 1
    (grad,) = torch.autograd.grad(terms.reconstruction, logit_BE)
    # d/dp_e of |x - sum p x_e|^2 at the one-hot p: -2 (x - x_argmax) . x_e, then the softmax's Jacobian.
    residual_BP = IMAGE_BP - torch.stack([IMAGE_EBP[1, 0], IMAGE_EBP[0, 1]])
    slope_BE = -2 * torch.einsum("bp,ebp->be", residual_BP, IMAGE_EBP) / 2
    p = logit_BE.detach().softmax(dim=1)
    assert torch.allclose(grad, p * (slope_BE - (p * slope_BE).sum(dim=1, keepdim=True)))
    assert grad[0].abs().min() > 0


def gate_gradient(objective: ObjectiveSpec) -> tuple[Tensor, Tensor]:
    """Gradient of the reconstruction term by the gate's logits, and the gate."""
    logit_BE = tensor([[1, 2], [0.5, 0]]).requires_grad_()
    decoding = Decoded(Encoded(MU_BZ, LOGVAR_BZ), logit_BE, IMAGE_EBP, None)
    (grad,) = torch.autograd.grad(loss_terms(objective, decoding).reconstruction, logit_BE)
    return grad, logit_BE.detach().softmax(dim=1)


def test_the_expected_error_moves_the_gate_to_experts_better_than_average() -> None:
    grad, p = gate_gradient(Expected())
    assert torch.allclose(grad, p * (ERROR_BE - (p * ERROR_BE).sum(dim=1, keepdim=True)) / 2)


def test_the_likelihood_moves_the_gate_to_the_posterior_of_the_experts() -> None:
    # Prior minus posterior probability (Jacobs et al. 1991), times 2 s^2.
    grad, p = gate_gradient(Likelihood(variance_start=2))
    posterior = p * torch.exp(-ERROR_BE / 4)
    posterior /= posterior.sum(dim=1, keepdim=True)
    assert torch.allclose(grad, 4 * (p - posterior) / 2)


@pytest.mark.parametrize("weight", [1, 200])
def test_supervised_by_hand(weight: float) -> None:
    decoding = decoded(image_EBP=None, chosen_BP=IMAGE_EBP[1])
    terms = loss_terms(Supervised(cross_entropy_weight=weight), decoding, beta=0.5, label_B=torch.tensor([1, 0]))
    cross_entropy = -(math.log(0.75) + math.log(0.5)) / 2
    assert terms.reconstruction.item() == pytest.approx((1.25 + 1) / 2)
    assert terms.cross_entropy.item() == pytest.approx(cross_entropy)
    assert terms.loss.item() == pytest.approx(1.125 + 0.5 * KL + weight * cross_entropy)
    assert (terms.balance.item(), terms.entropy.item()) == pytest.approx((BALANCE, ENTROPY), abs=1e-7)


# --- the contract, over every objective of the union ------------------------------------------------------------------

UNTRAINED_GATE = (FrozenRouter, UniformRouter)
BUILT_IN = [objective() for objective in get_args(BuiltInObjective) if objective not in UNTRAINED_GATE]
VARIANTS = [
    Blend(gating="hard", likelihood="bernoulli"),
    Expected(balance_form="paper_text", likelihood="bernoulli"),
    Likelihood(likelihood="bernoulli"),
    Supervised(cross_entropy_weight=200, likelihood="bernoulli"),
    Blend(likelihood="laplace"),
    Expected(likelihood="laplace"),
    Likelihood(likelihood="laplace"),
    Supervised(likelihood="laplace"),
    *(objective(error_scale=0.5) for objective in (Blend, Expected, Likelihood, HardEM, Gumbel)),
    Expected(balance_parts=4),
    MutualInformation(usage_weight=2),
    VMoE(top_k=1),
    Sinkhorn(temperature=0.1, iterations=50),
]


class TestBuiltIn(ObjectiveContract):
    @pytest.fixture(params=[*BUILT_IN, *VARIANTS], ids=repr)
    def objective(self, request: pytest.FixtureRequest) -> ObjectiveSpec:
        return request.param


class TestUntrainedGate(ObjectiveContract):
    trains_gate = False

    @pytest.fixture(params=[objective() for objective in UNTRAINED_GATE], ids=repr)
    def objective(self, request: pytest.FixtureRequest) -> ObjectiveSpec:
        return request.param
