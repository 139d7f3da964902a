"""The routing zoo on numbers worked out by hand: loss terms, assignments and samples.

Shapes: B images, E experts, K of them for each image, Z latent, P pixels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smoe_ray.data import Splits
from smoe_ray.errors import StudyError
from smoe_ray.model import Decoded, Encoded, build_model, model_cost
from smoe_ray.spec import (
    Blend,
    ExpertChoice,
    FrozenRouter,
    GShard,
    Gumbel,
    HardEM,
    LossFreeBias,
    ModelSpec,
    MutualInformation,
    ObjectiveSpec,
    OracleRouter,
    ReLURouter,
    Sinkhorn,
    Smear,
    StyleOracle,
    Switch,
    TrialSpec,
    UniformRouter,
    VMoE,
    trial_with,
)
from smoe_ray.testing.objectives import TINY, noise_images
from smoe_ray.training import Runtime, fit
from smoe_ray.training.objectives import LossInput, Terms, loss_for
from smoe_ray.training.objectives.base import identity
from smoe_ray.training.objectives.dispatch import load_loss, squared_cv
from smoe_ray.training.objectives.error_scale import ErrorScale
from smoe_ray.training.objectives.expert_choice import favourites
from smoe_ray.training.objectives.gumbel import gumbel
from smoe_ray.training.objectives.sinkhorn import balanced_assignment


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Two images of two pixels, two experts. Squared errors: image 0: 1 and 1.25; image 1: 0 and 1.
IMAGE_BP = tensor([[0, 1], [1, 1]])
IMAGE_EBP = tensor([[[0, 0], [1, 1]], [[0.5, 0], [1, 0]]])
ERROR_BE = tensor([[1, 1.25], [0, 1]])
GATE_BE = tensor([[0.25, 0.75], [0.5, 0.5]])
ENCODED = Encoded(torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64))


def terms_of(
    objective: ObjectiveSpec,
    gate_BE: Tensor = GATE_BE,
    progress: float = 0.0,
    uniform_BE: Tensor | None = None,
    label: int = 0,
) -> Terms:
    loss, logit_BE = loss_for(objective), gate_BE.log()
    decoded = Decoded(ENCODED, logit_BE, IMAGE_EBP, None)
    if objective.decodes == "chosen":
        expert_BK = loss.choose(logit_BE, identity, uniform_BE)
        decoded = Decoded(ENCODED, logit_BE, None, IMAGE_EBP[expert_BK.t(), torch.arange(2)], expert_BK)
    label_B = torch.full((2,), label)
    found: Terms = loss(LossInput(IMAGE_BP, label_B, decoded, 0, progress, uniform_BE=uniform_BE))
    return found


def own(terms: Terms, name: str) -> float:
    assert terms.own is not None
    return terms.own[name].item()


def test_hard_em_explains_each_image_by_one_expert() -> None:
    variance = 0.5
    explained = ERROR_BE - 2 * variance * GATE_BE.log()  # 2.386 and 1.538; 0.693 and 1.693
    terms = terms_of(HardEM(variance=variance, lambda_balance=0))
    assert terms.loss.item() == pytest.approx((explained[0, 1] + explained[1, 0]).item() / 2)
    assert terms_of(HardEM(variance=1e-9, lambda_balance=0)).loss.item() == pytest.approx((1 + 0) / 2)


def test_mutual_information_by_hand() -> None:
    mean = [(0.25 + 0.5) / 2, (0.75 + 0.5) / 2]
    usage = -sum(p * math.log(p) for p in mean)
    entropy = (-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) + math.log(2)) / 2
    terms = terms_of(MutualInformation(lambda_information=128, usage_weight=2))
    assert own(terms, "information") == pytest.approx(usage - entropy, abs=1e-6)
    expected = (0.25 * 1 + 0.75 * 1.25 + 0.5 * 1) / 2
    assert terms.reconstruction.item() == pytest.approx(expected)
    assert terms.loss.item() == pytest.approx(expected - (2 * usage - entropy), abs=1e-6)


@pytest.mark.parametrize(("gate", "information"), [([[1.0, 0], [0, 1]], math.log(2)), ([[0.5, 0.5]] * 2, 0.0)])
def test_information_is_ln_2_of_a_sure_and_even_gate_and_0_of_one_that_knows_nothing(
    gate: list[list[float]], information: float
) -> None:
    found = terms_of(MutualInformation(), tensor(gate).clamp(1e-12))
    assert own(found, "information") == pytest.approx(information, abs=1e-6)


def test_the_gumbel_blend_by_hand() -> None:
    uniform_BE = tensor([[0.2, 0.7], [0.9, 0.1]])
    score = GATE_BE.log() - torch.log(-torch.log(uniform_BE))
    weight = torch.softmax(score / 0.25, dim=1)  # halfway between 1 and 1/16
    image = weight[:, :1] * IMAGE_EBP[0] + weight[:, 1:] * IMAGE_EBP[1]
    objective = Gumbel(temperature_start=1, temperature_end=1 / 16, lambda_balance=0)
    found = terms_of(objective, progress=0.5, uniform_BE=uniform_BE)
    assert found.loss.item() == pytest.approx((IMAGE_BP - image).square().sum(dim=1).mean().item())


def test_the_largest_gumbel_score_is_a_sample_of_the_gate() -> None:
    uniform_BE = torch.rand(40_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p_E = tensor([0.2, 0.3, 0.5])
    share_E = torch.bincount((p_E.log() + gumbel(uniform_BE)).argmax(dim=1)) / 40_000
    assert share_E.tolist() == pytest.approx(p_E.tolist(), abs=0.01)


def test_the_load_loss_is_1_at_equal_loads_and_the_number_of_experts_under_collapse() -> None:
    even, collapsed = torch.full((4,), 0.25), torch.eye(4)[2]
    assert load_loss(even, even).item() == 1
    assert load_loss(collapsed, collapsed).item() == 4
    assert (squared_cv(even).item(), squared_cv(collapsed).item()) == (0, pytest.approx(3))


def test_switch_by_hand() -> None:
    # Image 0 goes to expert 1 (p = 0.75), image 1 to expert 0 (p = 0.6); each is scaled by p.
    gate_BE = tensor([[0.25, 0.75], [0.6, 0.4]])
    scaled = [(0.75 * 0.5) ** 2 + 1, 2 * 0.4**2]
    found = terms_of(Switch(load_weight=10, z_weight=0), gate_BE)
    assert found.reconstruction.item() == pytest.approx(sum(scaled) / 2)
    assert own(found, "load") == pytest.approx(2 * (0.5 * 0.425 + 0.5 * 0.575))
    assert found.loss.item() == pytest.approx(found.reconstruction.item() + 10 * own(found, "load"))


def test_the_z_loss_is_0_for_normalised_logits_and_grows_with_them() -> None:
    assert own(terms_of(Switch()), "z") == pytest.approx(0, abs=1e-12)  # logits that are log-probabilities
    assert own(terms_of(Switch(), GATE_BE * math.e**3), "z") == pytest.approx(9)


def test_gshard_blends_its_two_experts_by_their_share_of_the_gate() -> None:
    found = terms_of(GShard(load_weight=0, z_weight=0))  # of two experts both: the blend of arXiv:2509.10025
    blended = GATE_BE[:, :1] * IMAGE_EBP[0] + GATE_BE[:, 1:] * IMAGE_EBP[1]
    assert found.loss.item() == pytest.approx((IMAGE_BP - blended).square().sum(dim=1).mean().item())
    logit_BE = torch.tensor([[1.0, 3, 2, 0], [0, 1, 2, 3]])
    assert loss_for(GShard()).choose(logit_BE, identity, None).tolist() == [[1, 2], [3, 2]]


def test_v_moe_chooses_by_noisy_logits_and_knows_the_chance_of_it() -> None:
    loss = loss_for(VMoE(top_k=1))
    logit_BE = torch.tensor([[0.0, 0.1, 0.3, -0.2]], dtype=torch.float64)
    draws = torch.rand(50_000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chosen_B = loss.choose(logit_BE.expand(50_000, 4), identity, draws)[:, 0]
    # Of normal noise with standard deviation 1/4: numpy's own draws as the reference.
    drawn = logit_BE.numpy() + np.random.default_rng(0).normal(0, 0.25, (50_000, 4))
    expected_E = np.bincount(drawn.argmax(axis=1)) / 50_000
    assert (torch.bincount(chosen_B) / 50_000).tolist() == pytest.approx(expected_E.tolist(), abs=0.01)
    noise = torch.distributions.Normal(0.0, 0.25)
    threshold = torch.tensor([[0.4]], dtype=torch.float64)
    noisy = torch.cat([threshold, logit_BE[:, 1:] - 1], dim=1)
    found = loss._chance_of_being_chosen(logit_BE, noisy)[0]
    assert found.tolist() == pytest.approx([1 - noise.cdf(0.4 - logit_BE[0, e]).item() for e in range(4)])


@given(st.integers(2, 6), st.integers(8, 60), st.integers(0, 1000))
def test_sinkhorns_assignment_has_equal_columns_and_rows_of_one(E: int, B: int, seed: int) -> None:
    score_BE = 3 * torch.randn(B, E, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plan_BE = balanced_assignment(score_BE, 500, identity).exp()
    assert plan_BE.mean(dim=0).tolist() == pytest.approx([1 / E] * E)
    assert plan_BE.sum(dim=1).tolist() == pytest.approx([1.0] * B, abs=1e-3)


def test_sinkhorn_gives_each_expert_its_share_of_images_that_all_prefer_one() -> None:
    preference = torch.linspace(0, 1, 40)
    logit_BE = torch.stack([torch.full((40,), 5.0), preference], dim=1)  # every argmax is expert 0
    expert_BK = loss_for(Sinkhorn()).choose(logit_BE, identity, None)
    assert torch.bincount(expert_BK[:, 0]).tolist() == [20, 20]
    assert expert_BK[20:, 0].tolist() == [1] * 20  # those that mind least


def test_the_uniform_router_takes_every_expert_equally_often_and_the_frozen_one_the_gates_first() -> None:
    draws = torch.rand(30_000, 3, generator=torch.Generator().manual_seed(2))
    logit_BE = torch.tensor([[9.0, 0, 0]]).expand(30_000, 3)
    drawn = loss_for(UniformRouter()).choose(logit_BE, identity, draws)
    assert (torch.bincount(drawn[:, 0]) / 30_000).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
    assert set(loss_for(FrozenRouter()).choose(logit_BE, identity, None)[:, 0].tolist()) == {0}


@pytest.mark.parametrize("objective", [FrozenRouter(), UniformRouter()], ids=lambda objective: objective.name)
def test_no_gradient_reaches_the_gate_of_these_controls(objective: ObjectiveSpec) -> None:
    trial = trial_with(TrialSpec(objective=objective), TINY)
    before = build_model(trial.model, (1, 28, 28), trial.seed).gate.state_dict()
    *_, last = fit(trial, noise_images(), Runtime("cpu"))
    weights = last.weights()
    assert before
    for name, value in before.items():
        assert np.array_equal(weights[f"gate.{name}"], value.numpy()), name


def test_the_style_oracle_trains_the_expert_of_the_style_and_teaches_the_gate_its_name() -> None:
    found = terms_of(StyleOracle(gate_weight=3), label=1)
    assert found.reconstruction.item() == (1.25 + 1) / 2
    assert found.cross_entropy.item() == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)
    assert found.loss.item() == pytest.approx(1.125 + 3 * found.cross_entropy.item())


def test_the_style_oracle_is_told_styles_not_classes() -> None:
    trial = trial_with(TrialSpec(objective=StyleOracle()), {**TINY, "training.budget": "1 epochs"})
    data = noise_images()

    def row(**changed: np.ndarray) -> dict[str, Any]:
        train, test = (
            replace(part, **{key: array[: len(part)] for key, array in changed.items()})
            for part in (data.train, data.test)
        )
        return next(fit(trial, replace(data, train=train, test=test), Runtime("cpu"))).row

    plain, others = row(), np.arange(20) // 7
    other = row(label_B=others)
    assert other["train.cross_entropy"] == plain["train.cross_entropy"]
    assert other["experts.label_accuracy"] == plain["experts.label_accuracy"]
    assert (other["experts.nmi"], plain["experts.nmi"] is None) == (None, False)  # of classes: one is left in the test
    other = row(style_B=others)
    assert other["train.cross_entropy"] != plain["train.cross_entropy"]
    assert other["experts.label_accuracy"] != plain["experts.label_accuracy"]


def test_the_style_oracle_needs_styles_and_an_expert_for_each() -> None:
    data = noise_images()
    few = trial_with(TrialSpec(objective=StyleOracle()), {**TINY, "model.num_experts": 2})
    with pytest.raises(StudyError, match=r"set model.num_experts to 3 or more \(it is 2\)"):
        next(fit(few, data, Runtime("cpu")))
    train = replace(data.train, style_B=None)
    with pytest.raises(
        StudyError, match="style_oracle routes by style, and data of the source synthetic have no styles"
    ):
        next(fit(few, replace(data, train=train), Runtime("cpu")))


def test_the_oracle_trains_the_best_expert_and_teaches_the_gate_its_name() -> None:
    found = terms_of(OracleRouter(gate_weight=3))
    assert found.reconstruction.item() == (1 + 0) / 2
    assert own(found, "gate_loss") == pytest.approx(-(math.log(0.25) + math.log(0.5)) / 2)
    assert found.loss.item() == pytest.approx(0.5 + 3 * own(found, "gate_loss"))


def test_only_dispatched_experts_are_paid_for(splits: Splits) -> None:
    tiny = {"model.encoder": "lite", "model.num_experts": 5, "training.budget": "1 epochs"}
    flops = {}
    for name in ("blend", "switch", "gshard"):
        trial = trial_with(TrialSpec(), {**tiny, "objective.name": name})
        [epoch] = fit(trial, splits, Runtime("cpu"))
        flops[name] = epoch.row["cost.flops"] / epoch.row["cost.images"]
    cost = model_cost(trial.model, splits.train.image_shape)
    expert = (cost.flops_train - cost.flops_train_hard) / 4
    assert flops == {
        "blend": cost.flops_train,
        "switch": cost.flops_train_hard,
        "gshard": pytest.approx(cost.flops_train_hard + expert),
    }


def test_an_image_cannot_go_to_more_experts_than_there_are() -> None:
    for objective in ({"name": "gshard"}, {"name": "v_moe", "top_k": 2}):
        with pytest.raises(ValueError, match=r"sends each image to 2 experts; model.num_experts is 1"):
            TrialSpec.model_validate({"objective": objective, "model": {"num_experts": 1}})


@pytest.mark.parametrize("name", ["blend", "expected", "likelihood", "hard_em"])
def test_with_an_error_scale_a_tenfold_error_gives_a_tenfold_loss(name: str) -> None:
    """Images and decoders scaled by sqrt(10): nothing but the unit changes."""
    objective = TrialSpec.model_validate({"objective": {"name": name, "error_scale": 30}}).objective
    losses = []
    for factor in (1.0, math.sqrt(10)):
        loss = loss_for(objective)
        decoded = Decoded(ENCODED, GATE_BE.log(), factor * IMAGE_EBP, None)
        batch = LossInput(factor * IMAGE_BP, torch.zeros(2, dtype=torch.int64), decoded, 0, 0.5)
        losses.append([loss(batch).loss.item() for _ in range(2)])
    assert losses[1] == pytest.approx([10 * value for value in losses[0]])


def test_the_error_scale_is_a_running_mean_that_starts_at_the_first_error() -> None:
    scale = ErrorScale(Blend(error_scale=30))
    assert scale(torch.tensor(60.0), identity).item() == pytest.approx(2)
    weights = [0.99 * 0.01, 0.01]
    mean = (weights[0] * 60 + weights[1] * 30) / sum(weights)
    assert scale(torch.tensor(30.0), identity).item() == pytest.approx(mean / 30)
    for _ in range(2000):
        last = scale(torch.tensor(15.0), identity).item()
    assert last == pytest.approx(0.5, rel=1e-6)
    absolute = ErrorScale(Blend())
    assert (absolute(torch.tensor(60.0), identity), dict(absolute.state_dict())) == (1.0, {})


def test_gshard_scales_the_two_weights_to_sum_to_one_and_leaves_out_the_third_expert() -> None:
    loss, logit_BE = loss_for(GShard(load_weight=0, z_weight=0)), tensor([[0.5, 0.2, 0.3]] * 2).log()
    image_EBP = torch.cat([IMAGE_EBP, tensor([[[0.2, 0.4], [0, 1]]])])
    expert_BK = loss.choose(logit_BE, identity, None)
    decoded = Decoded(ENCODED, logit_BE, None, image_EBP[expert_BK.t(), torch.arange(2)], expert_BK)
    found = loss(LossInput(IMAGE_BP, torch.zeros(2, dtype=torch.int64), decoded, 0, 0.0))
    blended = 0.625 * image_EBP[0] + 0.375 * image_EBP[2]
    assert found.loss.item() == pytest.approx((IMAGE_BP - blended).square().sum(dim=1).mean().item())


# --- loss-free balancing ----------------------------------------------------------------------------------------------


def test_loss_free_bias_brings_a_planted_skew_below_a_tenth_of_the_mean_load() -> None:
    model = build_model(ModelSpec(encoder="lite", num_experts=4, latent_dim=8), (1, 28, 28), seed=0)
    objective = LossFreeBias(top_k=1, bias_rate=0.003)
    loss, z_BZ = loss_for(objective), torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    encoded = Encoded(torch.zeros(400, 1), torch.zeros(400, 1))
    with torch.no_grad():
        model.gate[-1].bias[2] += 1  # every image's first choice
        score_BE = model.gate(z_BZ)
    violations = []
    for _ in range(350):
        logit_BE = model.gate(z_BZ)
        expert_BK = loss.choose(logit_BE, identity, None)
        decoded = Decoded(encoded, logit_BE, None, torch.zeros(1, 400, 2), expert_BK)
        found = loss(LossInput(torch.zeros(400, 2), torch.zeros(400), decoded, 0, 0.0))
        violations.append(own(found, "max_violation"))
        loss.after_step(model)
    assert violations[0] == pytest.approx(3)  # all images at one of four experts
    assert violations[-1] < 0.1
    # A test image goes to the argmax of the logits, which know the bias; without it they are what they were.
    load_E = torch.bincount(model.gate(z_BZ).argmax(dim=1), minlength=4) / 100
    assert load_E.max() - 1 < 0.1
    torch.testing.assert_close(model.gate(z_BZ) - loss.bias_E, score_BE)


def test_loss_free_bias_moves_by_the_sign_of_the_load_and_not_at_the_mean() -> None:
    model = build_model(trial_with(TrialSpec(), TINY).model, (1, 28, 28), seed=0)
    before_E = model.gate[-1].bias.detach().clone()
    loss = loss_for(LossFreeBias(bias_rate=0.5))
    for load in ([3 / 6, 1 / 6, 2 / 6], [0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3 + 1e-8]):  # the last: a rounding error
        loss.load_E = tensor(load)
        loss.after_step(model)
    assert loss.bias_E.tolist() == [-1, 1, 0.5]
    assert (model.gate[-1].bias - before_E).tolist() == pytest.approx([-1, 1, 0.5])


def test_loss_free_weighs_by_the_gate_without_the_bias() -> None:
    loss = loss_for(LossFreeBias(top_k=1))
    loss.bias_E = tensor([2.0, 0])  # so that image 0 goes to expert 0, which p = (0.25, 0.75) would not choose
    logit_BE = GATE_BE.log() + loss.bias_E
    expert_BK = loss.choose(logit_BE, identity, None)
    assert expert_BK.tolist() == [[0], [0]]
    decoded = Decoded(ENCODED, logit_BE, None, IMAGE_EBP[expert_BK.t(), torch.arange(2)], expert_BK)
    found = loss(LossInput(IMAGE_BP, torch.zeros(2, dtype=torch.int64), decoded, 0, 0.0))
    assert found.loss.item() == pytest.approx((1 + 2 * 0.5**2) / 2)  # black in place of (0, 1); (1, 1) scaled by 0.5
    assert own(found, "max_violation") == 1


def test_the_weights_of_several_experts_of_loss_free_sum_to_one() -> None:
    loss = loss_for(LossFreeBias(top_k=2))
    loss.bias_E = tensor([0, 0, 5.0])  # expert 2 is chosen first, expert 1 next; p = (0.1, 0.3, 0.6) weighs them
    logit_BE = tensor([[0.1, 0.3, 0.6]]).log() + loss.bias_E
    expert_BK = loss.choose(logit_BE, identity, None)
    assert expert_BK.tolist() == [[2, 1]]
    decoded = Decoded(Encoded(*torch.zeros(2, 1, 1)), logit_BE, None, tensor([[[1.0]], [[0.0]]]), expert_BK)
    found = loss(LossInput(tensor([[0.0]]), torch.zeros(1, dtype=torch.int64), decoded, 0, 0.0))
    assert found.loss.item() == pytest.approx((0.6 / 0.9) ** 2)
    assert own(found, "max_violation") == pytest.approx(0.5)  # loads 0, 1, 1 of a mean of 2 / 3


@pytest.mark.parametrize("gate", ["cosine"])
def test_a_gate_without_a_bias_is_refused_with_loss_free(gate: str) -> None:
    with pytest.raises(ValueError, match=f"loss_free moves the bias .* gate {gate} does not have; set model.gate"):
        TrialSpec.model_validate({"objective": {"name": "loss_free"}, "model": {"gate": gate}})


# --- expert choice ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 6), st.floats(0.05, 1), st.integers(0, 1000))
def test_each_experts_favourites_are_torchs_topk(B: int, E: int, share: float, seed: int) -> None:
    logit_BE = 20 * torch.randn(B, E, generator=torch.Generator().manual_seed(seed))
    wanted = math.ceil(B * share - 1e-6 * B)
    p_BE = torch.log_softmax(logit_BE, dim=1)
    is_taken_BE = favourites(logit_BE, share, identity)
    for e in range(E):
        least = p_BE[:, e].topk(wanted).values[-1]
        assert is_taken_BE[:, e].tolist() == (p_BE[:, e] >= least).tolist()


def test_expert_choice_by_hand() -> None:
    # Both experts take one image of the two: expert 0 image 1 (p = 0.5), expert 1 image 0 (p = 0.75).
    found = terms_of(ExpertChoice(capacity=1))
    errors = [(0.75 * 0.5) ** 2 + 1, 2 * 0.5**2]
    assert found.loss.item() == pytest.approx(sum(errors) / 2)
    assert own(found, "dispatched") == 1


def test_an_image_that_no_expert_takes_is_left_out_of_the_error() -> None:
    gate_BE = tensor([[0.5, 0.5, 0], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]).clamp(1e-300)
    image_EBP = tensor([0.2, 0.4, 0.8])[:, None, None].expand(3, 3, 1)
    zero_BZ = torch.zeros(3, 1, dtype=torch.float64)
    decoded = Decoded(Encoded(zero_BZ, zero_BZ), gate_BE.log(), image_EBP, None)
    batch = LossInput(torch.ones(3, 1, dtype=torch.float64), torch.zeros(3), decoded, 0, 0.0)
    found = loss_for(ExpertChoice(capacity=1))(batch)  # one image each: 0, 0 and 1
    blended, alone = 0.5 * 0.2 + 0.5 * 0.4, 0.8 * 0.8
    assert found.loss.item() == pytest.approx(((1 - blended) ** 2 + (1 - alone) ** 2) / 2)
    assert own(found, "dispatched") == pytest.approx(2 / 3)


# --- ReMoE ------------------------------------------------------------------------------------------------------------


def test_the_relu_router_by_hand() -> None:
    loss = loss_for(ReLURouter(top_k=2, l1_start=0.1))
    logit_BE = tensor([[0.5, -1], [0.5, 0.25]])
    decoded = Decoded(ENCODED, logit_BE, IMAGE_EBP, None)
    found = loss(LossInput(IMAGE_BP, torch.zeros(2), decoded, 0, 0.0))
    blended_BP = tensor([[0, 0], [0.75, 0.5]])
    error = (IMAGE_BP - blended_BP).square().sum(dim=1).mean().item()
    l1 = 2 / 2 * (1 * 0.5 + 0.5 * 0.125)  # E / k * share of images with a weight, times the mean weight
    assert own(found, "l1") == pytest.approx(l1)
    assert own(found, "active_experts") == 1.5
    assert found.loss.item() == pytest.approx(error + 0.1 * l1)


@pytest.mark.parametrize(("top_k", "factors"), [(1, [2, 4, 8]), (2, [0.5, 0.25, 0.125])])
def test_the_weight_of_the_l1_term_follows_the_number_of_active_experts(top_k: int, factors: list[float]) -> None:
    model = build_model(trial_with(TrialSpec(), TINY).model, (1, 28, 28), seed=0)
    loss, weights = loss_for(ReLURouter(top_k=top_k, l1_start=1, l1_factor=2)), []
    for _ in range(3):
        loss.active = tensor(1.5)
        loss.after_step(model)
        weights.append(loss.l1_weight.item())
    assert weights == factors
    loss.active = tensor(top_k + 1e-8)  # a rounding error
    loss.after_step(model)
    assert loss.l1_weight.item() == factors[-1]


# --- SMEAR ------------------------------------------------------------------------------------------------------------


def test_smear_trains_on_the_image_of_the_mean_parameters() -> None:
    merged_BP = tensor([[0.5, 0.5], [1, 0]])
    decoded = Decoded(ENCODED, GATE_BE.log(), None, None, merged_BP=merged_BP)
    found = loss_for(Smear())(LossInput(IMAGE_BP, torch.zeros(2), decoded, 0, 0.0))
    assert found.loss.item() == found.reconstruction.item() == (0.5 + 1) / 2
    trial = trial_with(TrialSpec(objective=Smear()), TINY)
    model = build_model(trial.model, (1, 28, 28), seed=0)
    made = model(torch.rand(4, 28, 28, generator=torch.Generator().manual_seed(0)), None, decodes="merged")
    weight_BE = made.logit_BE.softmax(dim=1)
    assert torch.equal(made.merged_BP, model.experts.merged(made.encoded.mu_BZ, weight_BE))
    [epoch] = fit(trial_with(trial, {"training.budget": "1 epochs"}), noise_images(), Runtime("cpu"))
    assert epoch.row["cost.flops"] == 20 * model_cost(trial.model, (1, 28, 28)).flops_train_merged


def test_smear_with_the_decoders_of_a_plug_in_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smear averages the parameters .*it is my_package\.decoders:Mine"):
        TrialSpec.model_validate({"objective": {"name": "smear"}, "model": {"decoder": "my_package.decoders:Mine"}})
