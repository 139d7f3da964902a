"""The contrastive family: its loss, views, gate, cost, training and read-outs, against known answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smoe_ray.data import Splits, load_splits
from smoe_ray.errors import StudyError
from smoe_ray.model import ContrastiveMoE, build_model, model_cost
from smoe_ray.model.families.contrastive_conv import Gated
from smoe_ray.spec import Contrastive, ContrastiveModelSpec, ImageShape, TrialSpec, trial_with
from smoe_ray.training.augment import augment
from smoe_ray.training.loop import Epoch, Runtime, fit
from smoe_ray.training.objectives.contrastive import load, nt_xent
from smoe_ray.training.read_out import knn_accuracy, linear_accuracy
from support.contrastive_study import contrastive_study

TRIAL = contrastive_study().base
SMALL = ContrastiveModelSpec(num_experts=3, experts_per_image=2, widths=(4, 6, 8), moe_stage=1, projection=(6, 4))
UNCHANGED: dict[str, Any] = {"crop_area": 1, "flip": 0, "jitter": 0, "grayscale": 0}


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return load_splits(TRIAL.data, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def epochs(splits: Splits) -> list[tuple[Epoch, dict[str, np.ndarray]]]:
    return [(epoch, epoch.checkpoint()) for epoch in fit(TRIAL, splits, Runtime("cpu"))]


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_nt_xent_of_two_images_by_hand() -> None:
    """Each view meets its partner, at cosine 1, and both views of the other image, at 0."""
    views = torch.eye(2).repeat(2, 1)
    assert nt_xent(views, 0.5).item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 2)))
    assert nt_xent(torch.ones(6, 4) / 2, 0.5).item() == pytest.approx(math.log(5))  # at chance


def test_the_load_is_the_chance_to_be_chosen_again() -> None:
    torch.manual_seed(0)
    logit_BE, deviation_BE = torch.randn(4, 3), torch.rand(4, 3) + 0.5
    noisy_BE = logit_BE + torch.randn(4, 3) * deviation_BE
    weight_BK, expert_BK = torch.softmax(noisy_BE, dim=1).topk(2, dim=1)
    found = load(Gated(logit_BE, noisy_BE, deviation_BE, expert_BK, weight_BK))
    chance_BE = torch.empty(4, 3)
    for expert in range(3):  # its own noise is drawn anew, that of the others stays
        anew_NBE = noisy_BE.expand(20_000, 4, 3).clone()
        anew_NBE[..., expert] = logit_BE[:, expert] + torch.randn(20_000, 4) * deviation_BE[:, expert]
        chance_BE[:, expert] = (anew_NBE.topk(2, dim=2).indices == expert).any(dim=2).float().mean(dim=0)
    load_E = chance_BE.mean(dim=0)
    assert found.item() == pytest.approx((load_E.var(correction=0) / load_E.mean() ** 2).item(), abs=2e-3)


# --- views ------------------------------------------------------------------------------------------------------------


def _views(image_BCHW: torch.Tensor, seed: int = 0, **spec: Any) -> torch.Tensor:
    return augment(image_BCHW, Contrastive(**spec), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_has_parameters_of_its_own_from_the_generator(channels: int) -> None:
    image = torch.rand(1, channels, 9, 8, generator=torch.Generator().manual_seed(1)).repeat(5, 1, 1, 1)
    views = _views(image)
    assert torch.equal(views, _views(image))
    assert not torch.equal(views, _views(image, seed=1))
    assert all(not torch.allclose(views[0], other) for other in views[1:])
    assert views.min() >= 0
    assert views.max() <= 1


def test_views_are_what_the_spec_says() -> None:
    image = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(_views(image, **UNCHANGED), image)
    torch.testing.assert_close(_views(image, **UNCHANGED | {"flip": 1}), image.flip(3))
    grey = _views(image, **UNCHANGED | {"grayscale": 1})
    torch.testing.assert_close(
        grey, torch.einsum("c,bchw->bhw", torch.tensor([0.299, 0.587, 0.114]), image)[:, None].expand(6, 3, 8, 8)
    )
    # Of a ramp, a crop keeps the share of the range that its width is of the image's.
    ramp = torch.linspace(0, 1, 64).expand(200, 1, 64, 64)
    widths = _views(ramp, **UNCHANGED | {"crop_area": 0.25}).amax(dim=(1, 2, 3)) - _views(
        ramp, **UNCHANGED | {"crop_area": 0.25}
    ).amin(dim=(1, 2, 3))
    assert 0.25**0.5 / (4 / 3) ** 0.5 - 0.02 <= widths.min() < 0.55
    assert 0.95 < widths.max() <= 1


# --- the network ------------------------------------------------------------------------------------------------------


def test_every_live_expert_the_gate_and_its_noise_learn() -> None:
    model = build_model(SMALL, (3, 8, 8), seed=0)
    views = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    feature_BZ, gated = model(views, torch.randn(32, 3, generator=torch.Generator().manual_seed(0)))
    assert set(gated.expert_BK.flatten().tolist()) == {0, 1, 2}
    (nt_xent(model.projected(feature_BZ), 0.5) + load(gated)).backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_renamed_experts_make_the_same_representations() -> None:
    model = build_model(SMALL, (1, 9, 7), seed=0).eval()
    order = [2, 0, 1]
    other = build_model(SMALL, (1, 9, 7), seed=1).eval()
    state = model.state_dict()
    experts = f"stages.{SMALL.moe_stage - 1}.stages."
    renamed = {
        key
        if not key.startswith(experts)
        else f"{experts}{order.index(int(key.removeprefix(experts)[0]))}{key.removeprefix(experts)[1:]}": value
        for key, value in state.items()
    }
    for layer in ("logit", "noise"):
        renamed |= {f"gate.{layer}.{kind}": state[f"gate.{layer}.{kind}"][order] for kind in ("weight", "bias")}
    other.load_state_dict(renamed)
    images = torch.rand(5, 9, 7)
    ours, theirs = model(images), other(images)
    torch.testing.assert_close(ours.feature_BZ, theirs.feature_BZ)
    assert torch.tensor(order)[theirs.gated.expert_BK].equal(ours.gated.expert_BK)


def test_an_expert_alone_with_an_image_of_one_pixel_trains() -> None:
    model = build_model(SMALL.model_copy(update={"experts_per_image": 1}), (1, 2, 2), seed=0)
    assert torch.isfinite(model(torch.rand(2, 2, 2)).feature_BZ).all()


@pytest.mark.parametrize(
    ("spec", "shape"),
    [(ContrastiveModelSpec(num_experts=4), (3, 32, 32)), (SMALL, (1, 15, 20))],
)
def test_the_cost_is_that_of_torchs_counter(spec: ContrastiveModelSpec, shape: ImageShape) -> None:
    model, cost = build_model(spec, shape, seed=0), model_cost(spec, shape)
    assert sum(value.numel() for value in model.parameters()) == cost.params_total
    views = torch.rand(2, *shape)
    with FlopCounterMode(display=False) as trained:
        feature_BZ, gated = model(views, torch.randn(2, spec.num_experts))
        assert gated.deviation_BE is not None
        (model.projected(feature_BZ).sum() + gated.deviation_BE.sum()).backward()
    assert trained.get_total_flops() == cost.flops_train_hard
    with torch.no_grad(), FlopCounterMode(display=False) as passed:
        model.eval()(views[:1])
    assert passed.get_total_flops() == cost.flops_hard
    assert cost.params_active < cost.params_total


# --- read-outs --------------------------------------------------------------------------------------------------------


def test_read_outs_of_features_that_tell_the_class_and_of_those_that_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(300) % 3
    told = torch.eye(3)[label] + 0.1 * torch.randn(300, 3, generator=generator)
    noise = torch.randn(300, 4, generator=generator)
    noise[:, 3] = 5  # a dead unit
    for accuracy in (linear_accuracy, knn_accuracy):
        assert accuracy(told[:200], label[:200], told[200:], label[200:]) == 1
        assert accuracy(noise[:200], label[:200], noise[200:], label[200:]) == pytest.approx(1 / 3, abs=0.12)
    rare = torch.cat([label[:30] % 2, torch.full((170,), 2)])  # features that tell nothing leave the commonest class
    silent = torch.ones(200, 4)
    assert linear_accuracy(silent, rare, silent, torch.full((200,), 2)) == 1


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_goes_on_from_a_checkpoint_bit_for_bit(
    splits: Splits, epochs: list[tuple[Epoch, dict[str, np.ndarray]]]
) -> None:
    (_, half), (whole, _) = epochs
    [resumed] = fit(TRIAL, splits, Runtime("cpu", half))
    first, second = whole.weights(), resumed.weights()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    timed = {"cost.wall_s", "cost.images_per_s"}
    assert {key: value for key, value in resumed.row.items() if key not in timed} == {
        key: value for key, value in whole.row.items() if key not in timed
    }


def test_a_row_has_what_the_family_has_and_nothing_else(
    epochs: list[tuple[Epoch, dict[str, np.ndarray]]], splits: Splits
) -> None:
    epoch = epochs[-1][0]
    row, model = epoch.row, build_model(TRIAL.model, splits.train.image_shape, seed=9).eval()
    assert isinstance(model, ContrastiveMoE)
    assert row["train.loss"] == pytest.approx(
        row["train.contrastive"] + TRIAL.objective.balance_weight * (row["train.balance"] + row["train.load"])
    )
    assert (
        row["cost.flops"] == 2 * len(splits.train) * model_cost(TRIAL.model, splits.train.image_shape).flops_train_hard
    )
    stored = epoch.embeddings()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in epoch.weights().items()})
    with torch.inference_mode():
        own = model(torch.from_numpy(np.array(splits.test.image_BHW)).float() / 255)
        train_NZ = model(torch.from_numpy(np.array(splits.train.image_BHW)).float() / 255).feature_BZ
    np.testing.assert_allclose(stored["mu"], own.feature_BZ.numpy(), rtol=1e-4, atol=1e-5)
    assert np.array_equal(stored["expert"], stored["gate"].argmax(axis=1))
    assert row["experts.usage"] == (np.bincount(stored["expert"], minlength=2) / len(splits.test)).tolist()
    assert "reconstruction" not in stored
    labels = [torch.from_numpy(np.array(each.label_B)) for each in (splits.train, splits.test)]
    assert row["test.linear_accuracy"] == linear_accuracy(train_NZ, labels[0], own.feature_BZ, labels[1])
    fresh = build_model(TRIAL.model, splits.train.image_shape, TRIAL.seed).eval()
    with torch.inference_mode():
        before = [
            fresh(torch.from_numpy(np.array(each.image_BHW)).float() / 255).feature_BZ
            for each in (splits.train, splits.test)
        ]
    assert row["test.linear_accuracy_untrained"] == linear_accuracy(before[0], labels[0], before[1], labels[1])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"objective": {"name": "likelihood"}},
            "model.family contrastive is trained by the objective contrastive (it is",
        ),
        ({"model": {"family": "smoe_vae"}}, "the objective contrastive trains no decoders: set model to {family:"),
        ({"model.decoder": "lite"}, "model.decoder: unknown key (value 'lite'); valid here: experts_per_image"),
        ({"model.moe_stage": 4}, "moe_stage is 4, and the 3 widths make 2 stages"),
        ({"model.experts_per_image": 3}, "experts_per_image is 3, more than num_experts, which is 2"),
        ({"resources.workers": 2}, "model.family contrastive has no resources.workers above 1"),
        ({"modifiers.revival": {}}, "model.family contrastive has no modifiers"),
        ({"training.compile": True}, "model.family contrastive has no training.compile"),
        ({"model.family": "nearest"}, "model.family: 'nearest' is none of smoe_vae, contrastive"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_line(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(StudyError) as refused:
        trial_with(TRIAL, changes)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_first_family_is_not_written() -> None:
    assert "family" not in TrialSpec().model_dump()["model"]
    named = trial_with(TrialSpec(), {"model": {"family": "smoe_vae", "num_experts": 10}})
    assert named == TrialSpec()
    assert named.identity() == TrialSpec().identity()
