"""Measuring a trained model: against each image by itself, and usage by hand.

Shapes: B images, E experts, Z latent, C channels, H W pixels, P = C * H * W.
"""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from smoe_ray.analysis import routing
from smoe_ray.columns import EXPERTS, TEST, names_of
from smoe_ray.data import Dataset, Splits
from smoe_ray.model import SMoEVAE, build_model, model_cost
from smoe_ray.spec import Blend, EvaluationSpec, ModelSpec, TrialSpec, trial_with
from smoe_ray.training import Epoch, Runtime, fit
from smoe_ray.training import evaluate as evaluating
from smoe_ray.training.evaluate import Evaluation, embed, evaluate, psnr
from smoe_ray.training.images import DeviceImages
from smoe_ray.training.objectives.errors import error_of

CPU = torch.device("cpu")
TRIAL = trial_with(
    TrialSpec(),
    {
        "model.encoder": "lite",
        "model.num_experts": 4,
        "model.latent_dim": 6,
        "training.batch_size": 10,
        "training.learning_rate": 0.01,
        "training.budget": "12 epochs",
        "objective.lambda_balance": 800,
        "evaluation.every": 5,
    },
)


@pytest.fixture(scope="module")
def epochs(splits: Splits) -> list[Epoch]:
    return list(fit(TRIAL, splits, Runtime(device="cpu")))


@pytest.fixture(scope="module")
def model(epochs: list[Epoch]) -> SMoEVAE:
    """Trained so far that several experts are in use."""
    model = build_model(TRIAL.model, (1, 28, 28), seed=99)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in epochs[-1].weights().items()})
    return model.eval()


@torch.no_grad()
def one_by_one(model: SMoEVAE, splits: Splits) -> dict[str, Any]:
    """Hard and soft error, KL and expert of each test image, computed by itself from z = mu."""
    hard, soft, kl, experts, oracle, similarity, entropy = [], [], [], [], [], [], []
    for image in splits.test.image_BHW:
        x_P = torch.from_numpy(image / 255).float().flatten()
        mu_BZ, logvar_BZ = model.encoder(x_P.view(1, 28, 28))
        gate_E = model.gate(mu_BZ)[0].softmax(dim=0)
        image_EP = model.experts(mu_BZ)[:, 0]
        expert = int(gate_E.argmax())
        hard.append(float(((image_EP[expert] - x_P) ** 2).sum()))
        soft.append(float(((sum(p * image for p, image in zip(gate_E, image_EP, strict=True)) - x_P) ** 2).sum()))
        kl.append(float(0.5 * (mu_BZ**2 + logvar_BZ.exp() - 1 - logvar_BZ).sum()))
        experts.append(expert)
        oracle.append(min(float(((image_P - x_P) ** 2).sum()) for image_P in image_EP))
        similarity.append(np.mean([float(F.cosine_similarity(a, b, dim=0)) for a, b in combinations(image_EP, 2)]))
        entropy.append(float(-(gate_E * gate_E.log()).sum()))
    means = {"hard": hard, "soft": soft, "kl": kl, "oracle": oracle, "similarity": similarity, "entropy": entropy}
    return {name: np.mean(values) for name, values in means.items()} | {"experts": np.array(experts)}


def test_the_last_row_is_the_model_measured_image_by_image(epochs: list[Epoch], model: SMoEVAE, splits: Splits) -> None:
    row, alone = epochs[-1].row, one_by_one(model, splits)
    assert row["test.reconstruction"] == pytest.approx(alone["hard"], rel=1e-5)
    assert row["test.reconstruction_soft"] == pytest.approx(alone["soft"], rel=1e-5)
    assert row["test.kl"] == pytest.approx(alone["kl"], rel=1e-5)
    counts = np.bincount(alone["experts"], minlength=4)
    assert np.count_nonzero(counts) > 1  # else argmax would not be tested
    assert abs(alone["hard"] - alone["soft"]) > 0.01
    assert row["experts.usage"] == pytest.approx(counts / 21)
    assert row["experts.active"] == np.count_nonzero(counts)
    assert row["experts.max_share"] == pytest.approx(counts.max() / 21)
    assert row["test.reconstruction_oracle"] == pytest.approx(alone["oracle"], rel=1e-5)
    assert row["test.regret"] == pytest.approx(alone["hard"] - alone["oracle"], rel=1e-4)
    assert alone["hard"] - alone["oracle"] > 0.01
    assert row["experts.similarity"] == pytest.approx(alone["similarity"], rel=1e-5)
    assert row["experts.gate_entropy"] == pytest.approx(alone["entropy"], rel=1e-5)
    agreement = routing(alone["experts"], splits.test.label_B, 4, splits.class_names).agreement
    assert row["experts.nmi"] == pytest.approx(agreement.nmi)


def test_the_gate_is_held_to_the_labels_only_where_it_routes_by_them(model: SMoEVAE, splits: Splits) -> None:
    right = np.mean(one_by_one(model, splits)["experts"] == splits.test.label_B)
    assert measure(model, splits, routed_by_B=splits.test.label_B).usage()["label_accuracy"] == pytest.approx(right)
    assert measure(model, splits).usage()["label_accuracy"] is None


def test_one_expert_has_no_regret_and_nothing_to_be_similar_to(splits: Splits) -> None:
    alone = measure(build_model(ModelSpec(num_experts=1, encoder="lite"), splits.test.image_shape, seed=0), splits)
    assert (alone.regret, alone.gate_entropy, alone.usage()["max_violation"]) == (0, 0, 0)
    assert alone.oracle == pytest.approx(alone.reconstruction, rel=1e-6)
    assert alone.usage()["similarity"] is None


def test_every_says_which_epochs_are_measured(epochs: list[Epoch]) -> None:
    measured = [epoch.row["epoch"] for epoch in epochs if epoch.row["test.reconstruction"] is not None]
    assert measured == [5, 10, 12]  # the last always
    for epoch in epochs:
        optional = {name: epoch.row[name] for name in names_of("smoe_vae", (*TEST, *EXPERTS))}
        assert optional.pop("experts.configured") == 4
        assert optional.pop("experts.label_accuracy") is None
        assert len(optional) >= 8
        assert {value is None for value in optional.values()} == {epoch.epoch not in measured}


def test_usage_by_hand() -> None:
    usage = Evaluation(0, 0, 0, (0.5, 0.25, 0.25, 0.0)).usage()
    expected = {
        "configured": 4,
        "active": 3,
        "effective": pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4))),
        "active_fraction": 0.75,
        "max_share": 0.5,
        "max_violation": 1.0,
        "load_low": pytest.approx(0.3),  # of 0, 1, 1 and 2: at rank 0.3
        "load_high": pytest.approx(1.7),
        "usage": [0.5, 0.25, 0.25, 0.0],
    }
    assert usage | expected == usage  # and any statistic that a later column brings
    assert Evaluation(0, 0, 0, (0.0, 1.0)).usage()["effective"] == 1
    assert Evaluation(0, 0, 0, (0.1,) * 10).usage()["effective"] == pytest.approx(10)


def measure(
    model: SMoEVAE, splits: Splits, seed: int = 0, epoch: int = 1, routed_by_B: np.ndarray | None = None, **spec: Any
) -> Evaluation:
    images = DeviceImages(splits.test, CPU)
    return evaluate(model, images, EvaluationSpec(**spec), seed=seed, epoch=epoch, routed_by_B=routed_by_B)


@pytest.mark.parametrize(
    ("mean_squared_error", "decibels"), [(1, 0), (0.1, 10), (1e-3, 30), (0.25, 6.0205999), (0, 138.4738)]
)
def test_psnr_by_hand(mean_squared_error: float, decibels: float) -> None:
    assert psnr(mean_squared_error) == pytest.approx(decibels)


def test_a_diverged_model_has_no_finite_psnr() -> None:
    assert math.isnan(psnr(math.nan))
    assert psnr(math.inf) == -math.inf


@pytest.mark.parametrize("gating", ["hard", "soft"])
def test_losses_are_of_the_likelihood_and_the_psnr_is_of_the_squared_error(
    model: SMoEVAE, splits: Splits, gating: str
) -> None:
    images, spec = DeviceImages(splits.test, CPU), EvaluationSpec(gating=gating)
    squared, cross_entropy = (
        evaluate(model, images, spec, error_of(Blend(likelihood=name)), seed=0, epoch=1).losses()
        for name in ("gaussian", "bernoulli")
    )
    assert squared["psnr"] == cross_entropy["psnr"] == pytest.approx(-10 * math.log10(squared["reconstruction"] / 784))
    assert squared["per_value"] == squared["reconstruction"] / 784
    x_BP = torch.from_numpy(splits.test.image_BHW / 255).float().flatten(1)
    with torch.no_grad():
        mu_BZ, _ = model.encoder(x_BP.view(-1, 28, 28))
        gate_BE, y_EBP = model.gate(mu_BZ).softmax(dim=1), model.experts(mu_BZ)
    soft_BP = torch.einsum("be,ebp->bp", gate_BE, y_EBP).clamp(0, 1)
    hard_BP = y_EBP[gate_BE.argmax(dim=1), torch.arange(len(x_BP))]
    hard, soft = (F.binary_cross_entropy(y, x_BP, reduction="sum").item() / len(x_BP) for y in (hard_BP, soft_BP))
    assert cross_entropy["reconstruction_soft"] == pytest.approx(soft, rel=1e-5)
    assert cross_entropy["reconstruction"] == pytest.approx(hard if gating == "hard" else soft, rel=1e-5)


def test_soft_gating_reports_the_blend(model: SMoEVAE, splits: Splits) -> None:
    hard, soft = measure(model, splits), measure(model, splits, gating="soft")
    assert soft.reconstruction == soft.reconstruction_soft == hard.reconstruction_soft
    assert soft.usage_E == hard.usage_E


def test_a_latent_sample_is_fixed_by_seed_and_epoch(model: SMoEVAE, splits: Splits) -> None:
    first = measure(model, splits, latent="sample")
    assert measure(model, splits, latent="sample") == first
    others = [measure(model, splits, latent="sample", seed=1), measure(model, splits, latent="sample", epoch=2)]
    losses = {first.reconstruction, measure(model, splits).reconstruction, *(other.reconstruction for other in others)}
    assert len(losses) == 4
    assert {other.kl for other in others} == {first.kl}


@torch.no_grad()
def test_a_latent_sample_has_the_posteriors_mean_and_variance(splits: Splits) -> None:
    model = build_model(TRIAL.model, (1, 28, 28), seed=0)
    model.encoder.logvar.bias.copy_(torch.linspace(-4, 2, 6))  # a fresh model's variances are all near one
    drawn = []
    model.gate.register_forward_pre_hook(lambda module, z: drawn.append(z[0]))
    many = dataclasses.replace(splits.test, image_BHW=np.repeat(splits.test.image_BHW[:1], 2000, axis=0))
    many = dataclasses.replace(many, label_B=np.zeros(2000, dtype=np.int64))
    evaluate(model, DeviceImages(many, CPU), EvaluationSpec(latent="sample"), seed=0, epoch=1)
    mu_BZ, logvar_BZ = model.encoder(torch.from_numpy(splits.test.image_BHW[:1] / 255).float())
    z_BZ = torch.cat(drawn)
    deviation_Z = (logvar_BZ[0] / 2).exp()
    assert len(z_BZ) == 2000
    assert ((z_BZ.mean(dim=0) - mu_BZ[0]) / deviation_Z).abs().max() < 0.11  # five standard errors
    assert (z_BZ.std(dim=0) / deviation_Z - 1).abs().max() < 0.08


def test_chunks_do_not_matter(model: SMoEVAE, splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(model, splits)
    monkeypatch.setattr(evaluating, "IMAGES_AT_ONCE", 8)
    parts = measure(model, splits)
    assert parts.losses() == pytest.approx(whole.losses(), rel=1e-5)
    assert parts.usage_E == whole.usage_E


def test_embeddings_are_what_the_model_makes_of_each_image(epochs: list[Epoch], model: SMoEVAE, splits: Splits) -> None:
    arrays = epochs[-1].embeddings()
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "mu": ((21, 6), "float32"),
        "gate": ((21, 4), "float32"),
        "expert": ((21,), "int64"),
        "label": ((21,), "int64"),
        "image": ((21, 28, 28), "uint8"),
        "reconstruction": ((21, 28, 28), "float16"),
    }
    assert np.array_equal(arrays["expert"], one_by_one(model, splits)["experts"])
    assert np.array_equal(arrays["expert"], arrays["gate"].argmax(axis=1))
    assert np.allclose(arrays["gate"].sum(axis=1), 1)
    assert np.array_equal(arrays["label"], splits.test.label_B)
    assert np.array_equal(arrays["image"], splits.test.image_BHW)
    errors = ((arrays["reconstruction"].astype(float) - arrays["image"] / 255) ** 2).sum(axis=(1, 2))
    assert errors.mean() == pytest.approx(epochs[-1].row["test.reconstruction"], rel=1e-3)


@pytest.mark.parametrize("shape", [(16, 24), (3, 16, 24)], ids=["grey", "colour"])
def test_images_may_have_any_shape_that_the_decoders_make(shape: tuple[int, ...]) -> None:
    train, test = (
        Dataset(np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 2)
        for count in (20, 7)
    )
    trial = trial_with(TRIAL, {"training.budget": "2 epochs"})
    epoch = list(fit(trial, Splits(train, test, ("a", "b"), "0" * 64), Runtime(device="cpu")))[-1]
    arrays = epoch.embeddings()
    assert arrays["reconstruction"].shape == arrays["image"].shape == (7, *shape)
    errors = (arrays["reconstruction"].astype(float) - arrays["image"] / 255) ** 2
    assert epoch.row["test.reconstruction"] == pytest.approx(errors.reshape(7, -1).sum(axis=1).mean(), rel=1e-3)
    image_shape = (3, 16, 24) if len(shape) == 3 else (1, 16, 24)
    assert epoch.row["test.per_value"] == epoch.row["test.reconstruction"] / math.prod(image_shape)
    assert epoch.row["test.psnr"] == pytest.approx(-10 * math.log10(errors.mean()), rel=1e-3)
    assert epoch.row["cost.params_total"] == model_cost(trial.model, image_shape).params_total


def test_embeddings_carry_style_and_parameters(model: SMoEVAE, splits: Splits) -> None:
    style_B, parameter_BP = np.arange(21), np.full((21, 2), np.nan, dtype=np.float32)
    drawn = dataclasses.replace(splits.test, style_B=style_B, parameter_BP=parameter_BP)
    arrays = embed(model, DeviceImages(drawn, CPU), drawn, EvaluationSpec(), seed=0, epoch=1)
    assert np.array_equal(arrays["style"], style_B)
    assert np.array_equal(arrays["parameter"], parameter_BP, equal_nan=True)


def test_measuring_leaves_no_gradient_and_no_change(model: SMoEVAE, splits: Splits) -> None:
    before: dict[str, Tensor] = {name: value.clone() for name, value in model.state_dict().items()}
    measure(model, splits, latent="sample")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@torch.no_grad()
def test_latent_dimensions_are_active_where_mu_varies(splits: Splits) -> None:
    model = build_model(TRIAL.model, (1, 28, 28), seed=0)
    model.encoder.mu.weight[2:] = 0.0  # mu is a constant there
    model.encoder.mu.weight[:2] *= 20
    measured = measure(model, splits)
    mu_BZ, _ = model.encoder(torch.from_numpy(splits.test.image_BHW / 255).float())
    assert measured.mu_variance_Z == pytest.approx(mu_BZ.double().numpy().var(axis=0), rel=1e-4, abs=1e-12)
    assert measured.latent() == {"configured": 6, "active": 2, "kl": pytest.approx(measured.kl / 6)}


@pytest.mark.parametrize(
    ("variance_Z", "active"),
    [((0.0, 0.0), 0), ((0.01, 0.0100001), 1), ((0.0099, 5.0), 1), ((1.0, 1.0), 2), ((float("0.01"),) * 2, 0)],
)
def test_active_latents_by_hand(variance_Z: tuple[float, ...], active: int) -> None:
    latent = Evaluation(0, 0, 3.0, (1.0,), variance_Z).latent()
    assert latent == {"configured": 2, "active": active, "kl": 1.5}


def test_one_test_image_has_no_variance(model: SMoEVAE, splits: Splits) -> None:
    one = dataclasses.replace(splits.test, image_BHW=splits.test.image_BHW[:1], label_B=splits.test.label_B[:1])
    measured = evaluate(model, DeviceImages(one, CPU), EvaluationSpec(), seed=0, epoch=1)
    assert measured.mu_variance_Z == (0.0,) * 6
