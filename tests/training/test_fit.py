"""The training loop: budgets, seeds, resuming, divergence, options."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smoe_ray.columns import EPOCHS, names_of
from smoe_ray.data import Dataset, Splits
from smoe_ray.errors import DivergedError, StudyError
from smoe_ray.model import build_model, model_cost
from smoe_ray.results import TIMING_COLUMNS
from smoe_ray.spec import Likelihood, Supervised, TrialSpec, trial_with
from smoe_ray.training import Epoch, Runtime, epochs_done, fit
from smoe_ray.training.images import DeviceImages, resolve_device
from smoe_ray.training.objectives import LossInput, Terms, loss_for
from smoe_ray.training.objectives.likelihood import LikelihoodLoss
from support.specs import tiny

Row = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def run(trial: TrialSpec, data: Splits, checkpoint: Arrays | None = None) -> tuple[list[Row], Arrays]:
    """All rows without their timings, and the final weights."""
    rows, weights = [], {}
    for epoch in fit(trial, data, Runtime(device="cpu", checkpoint=checkpoint)):
        rows.append(timeless(epoch.row))
        weights = epoch.weights() if epoch.last else {}
    return rows, weights


def timeless(row: Row) -> Row:
    assert row.keys() >= set(TIMING_COLUMNS)
    return {name: value for name, value in row.items() if name not in TIMING_COLUMNS}


def equal(first: Arrays, second: Arrays) -> bool:
    assert first.keys() == second.keys()
    assert first
    return all(np.array_equal(first[name], second[name]) for name in first)


# --- budgets and rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "steps", "images"),
    [
        ("1 epoch", [4], [50]),
        ("3 epochs", [4, 8, 12], [50, 100, 150]),
        ("1 step", [1], [16]),
        ("4 steps", [4], [50]),
        ("6 steps", [4, 6], [50, 82]),
        ("8 steps", [4, 8], [50, 100]),
    ],
)
@pytest.mark.parametrize("routing", ["unsupervised", "supervised"])
def test_budgets_and_what_they_cost(
    routing: str, budget: str, steps: list[int], images: list[int], splits: Splits
) -> None:
    trial = tiny(routing=routing, training__budget=budget)
    epochs = list(fit(trial, splits, Runtime(device="cpu")))
    assert (
        [epoch.epoch for epoch in epochs] == [epoch.row["epoch"] for epoch in epochs] == list(range(1, len(steps) + 1))
    )
    assert [epoch.last for epoch in epochs] == [False] * (len(steps) - 1) + [True]
    assert [epoch.row["cost.steps"] for epoch in epochs] == steps
    assert [epoch.row["cost.images"] for epoch in epochs] == images
    cost = model_cost(trial.model, (1, 28, 28))
    an_image = cost.flops_train if routing == "unsupervised" else cost.flops_train_hard
    assert [epoch.row["cost.flops"] for epoch in epochs] == [an_image * count for count in images]
    for epoch in epochs:
        assert set(epoch.row) == set(names_of("smoe_vae", EPOCHS))
        assert epoch.row["cost.params_total"] == cost.params_total
        assert epoch.row["cost.params_active"] == cost.params_active
        assert epoch.row["experts.configured"] == 3
        assert epoch.row["cost.wall_s"] > 0
        assert epoch.row["cost.images_per_s"] > 0


def test_epochs_and_as_many_steps_train_alike(splits: Splits) -> None:
    rows, weights = run(tiny(training__budget="2 epochs"), splits)
    same_rows, same_weights = run(tiny(training__budget="8 steps"), splits)
    assert rows == same_rows
    assert equal(weights, same_weights)


def test_a_batch_may_hold_more_than_all_images(splits: Splits) -> None:
    rows, _ = run(tiny(training__batch_size=1000), splits)
    assert [(row["cost.steps"], row["cost.images"]) for row in rows] == [(1, 50), (2, 100), (3, 150)]


def test_batches_are_one_shuffled_pass(splits: Splits) -> None:
    images = DeviceImages(splits.train, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    first, second = (list(images.batches(16, 4, generator)) for _ in range(2))
    assert [len(batch.label_B) for batch in first] == [16, 16, 16, 2]
    pixels = np.concatenate([batch.image_BHW.numpy() for batch in first])
    assert pixels.dtype == np.float32
    assert not np.array_equal(pixels, np.concatenate([batch.image_BHW.numpy() for batch in second]))
    place = {image.tobytes(): i for i, image in enumerate(splits.train.image_BHW)}
    order = [place[image.tobytes()] for image in np.rint(pixels * 255).astype(np.uint8)]
    assert sorted(order) == list(range(50))
    assert order != list(range(50))
    labels = np.concatenate([batch.label_B.numpy() for batch in first])
    assert np.array_equal(labels, splits.train.label_B[order])
    assert np.array_equal(pixels, splits.train.image_BHW[order].astype(np.float32) / 255)


def test_train_columns_are_means_over_images_not_batches(splits: Splits) -> None:
    # With weights that hardly move, the short last batch (2 of 50 images) must weigh 2/50 and not 1/4. The KL term
    # needs no noise; and no three images have the same.
    trial = tiny(training__learning_rate=1e-12, training__budget="1 epoch")
    image_BHW = np.linspace(0, 255, 50).astype(np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
    row = run(trial, dataclasses.replace(splits, train=Dataset(image_BHW, splits.train.label_B)))[0][0]
    with torch.no_grad():
        mu_BZ, logvar_BZ = build_model(trial.model, (1, 28, 28), trial.seed).encoder(
            torch.from_numpy(image_BHW).float() / 255
        )
    kl_B = 0.5 * (mu_BZ**2 + logvar_BZ.exp() - 1 - logvar_BZ).sum(dim=1)
    assert kl_B.std() > 0.1 * kl_B.mean()
    assert row["train.kl"] == pytest.approx(float(kl_B.mean()), rel=1e-5)


def test_annealing_goes_from_the_first_step_to_the_last_resumed_or_not(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    forward = LikelihoodLoss.forward

    def spy(loss: LikelihoodLoss, batch: LossInput) -> Any:
        seen.append(float(batch.progress))
        return forward(loss, batch)

    monkeypatch.setattr(LikelihoodLoss, "forward", spy)
    trial = tiny(training__budget="9 steps")  # 4 + 4 + 1
    epochs = fit(trial, splits, Runtime(device="cpu"))
    checkpoint = next(epochs).checkpoint()
    assert seen == pytest.approx([step / 8 for step in range(4)])
    list(epochs)
    assert seen == pytest.approx([step / 8 for step in range(9)])
    seen.clear()
    run(trial, splits, checkpoint)
    assert seen == pytest.approx([step / 8 for step in range(4, 9)])


def test_the_loss_falls_and_the_terms_add_up(splits: Splits) -> None:
    for changes in ({"objective__name": "blend"}, {"objective__name": "likelihood"}, {"routing": "supervised"}):
        trial = tiny(training__budget="20 epochs", training__learning_rate=0.01, evaluation__every=20, **changes)
        rows, _ = run(trial, splits)
        assert rows[-1]["train.reconstruction"] < 0.8 * rows[0]["train.reconstruction"]
        for row in rows:
            expected = row["train.reconstruction"] + 0.01 * row["train.kl"]
            if isinstance(trial.objective, Supervised):
                expected += row["train.cross_entropy"]
            else:
                expected += trial.objective.lambda_balance / 128 * row["train.balance"]
                assert row["train.cross_entropy"] == 0
            if trial.objective.name == "blend":
                expected += 400 / 128 * row["train.entropy"]
            assert row["train.loss"] == pytest.approx(expected, rel=1e-5)
    assert rows[-1]["train.cross_entropy"] < 0.9 * rows[0]["train.cross_entropy"]


# --- seeds and global state -------------------------------------------------------------------------------------------


def test_a_seed_fixes_everything(splits: Splits) -> None:
    trial = tiny(evaluation__latent="sample")
    rows, weights = run(trial, splits)
    again_rows, again_weights = run(trial, splits)
    assert rows == again_rows
    assert equal(weights, again_weights)
    other_rows, other_weights = run(trial_with(trial, {}).model_copy(update={"seed": 1}), splits)
    assert rows != other_rows
    assert not any(np.array_equal(weights[name], other_weights[name]) for name in weights)


def test_global_generators_are_neither_used_nor_moved(splits: Splits) -> None:
    trial = tiny(evaluation__latent="sample")
    rows, weights = run(trial, splits)
    torch.manual_seed(123)
    state, numpys = torch.get_rng_state(), str(np.random.get_state())
    run(trial, splits)
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state()) == numpys
    perturbed = []
    for epoch in fit(trial, splits, Runtime(device="cpu")):
        perturbed.append(timeless(epoch.row))
        torch.rand(7)
        np.random.default_rng()
        final = epoch.weights()
    assert perturbed == rows
    assert equal(final, weights)


@pytest.mark.parametrize(
    "changes", [{"evaluation__every": 3}, {"evaluation__latent": "sample"}, {"evaluation__gating": "soft"}], ids=str
)
def test_measuring_does_not_change_training(changes: dict[str, Any], splits: Splits) -> None:
    assert equal(run(tiny(), splits)[1], run(tiny(**changes), splits)[1])


def test_two_interleaved_trials_do_not_touch_each_other(splits: Splits) -> None:
    alone = [run(tiny(objective__name=name), splits)[0] for name in ("blend", "expected")]
    both = [fit(tiny(objective__name=name), splits, Runtime(device="cpu")) for name in ("blend", "expected")]
    rows = [[timeless(epoch.row) for epoch in pair] for pair in zip(*both, strict=True)]
    assert rows == [list(pair) for pair in zip(*alone, strict=True)]


# --- resuming ---------------------------------------------------------------------------------------------------------

VARIANTS = {  # `ObjectiveContract` resumes every objective
    "sampled": {"objective__name": "expected", "evaluation__latent": "sample"},
    "steps": {"training__budget": "14 steps"},
    "batch_norm": {"model__gate": "batch_norm", "training__batch_size": 49},  # the last batch has one image
    "attentive, cp": {"model__gate": "attentive", "model__decoder": "cp", "objective__name": "switch"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_resuming_after_any_epoch_ends_in_the_same_bits(variant: str, splits: Splits) -> None:
    check_resuming(tiny(**({"training__budget": "4 epochs"} | VARIANTS[variant])), splits)


@pytest.mark.parametrize(
    "changes",
    [*({"objective__name": name} for name in ("blend", "expected", "likelihood")), {"routing": "supervised"}],
    ids=str,
)
def test_a_colour_trial_learns_and_resumes_in_the_same_bits(changes: dict[str, Any], colour_splits: Splits) -> None:
    rows = check_resuming(tiny(training__budget="4 epochs", training__learning_rate=0.01, **changes), colour_splits)
    assert rows[-1]["train.reconstruction"] < 0.8 * rows[0]["train.reconstruction"]
    assert rows[-1]["cost.params_total"] == model_cost(tiny().model, (3, 16, 24)).params_total


def check_resuming(trial: TrialSpec, splits: Splits) -> list[Row]:
    """Resume a trial of four epochs after each of them; the rows of the uninterrupted one."""
    rows, checkpoints, weights, embeddings = [], [], {}, {}
    for epoch in fit(trial, splits, Runtime(device="cpu")):
        rows.append(timeless(epoch.row))
        checkpoints.append(epoch.checkpoint())
        weights, embeddings = epoch.weights(), epoch.embeddings()
    assert [epochs_done(checkpoint) for checkpoint in checkpoints] == [1, 2, 3, 4]
    for done, checkpoint in enumerate(checkpoints[:-1], start=1):
        before = {name: array.copy() for name, array in checkpoint.items()}
        resumed = list(through_a_file(trial, splits, checkpoint))
        assert [row for row, _ in resumed] == rows[done:]
        assert equal(resumed[-1][1].weights(), weights)
        assert equal(resumed[-1][1].embeddings(), embeddings)
        assert equal(checkpoint, before)  # continuing from a checkpoint does not write into it
    assert list(fit(trial, splits, Runtime(device="cpu", checkpoint=checkpoints[-1]))) == []
    return rows


class CountingLoss(LikelihoodLoss):
    """A loss with state and a term of its own."""

    steps: torch.Tensor

    def __init__(self, spec: Likelihood) -> None:
        super().__init__(spec)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, batch: LossInput) -> Terms:
        self.steps += 1
        terms = super().forward(batch)
        return terms._replace(loss=terms.loss * self.steps, own={"steps": self.steps.clone()})


def test_state_of_a_loss_is_in_the_checkpoint_and_its_own_term_a_column(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("smoe_ray.training.families.smoe_vae"), "loss_for", CountingLoss)
    epochs = [(epoch.row, epoch.checkpoint(), epoch.weights()) for epoch in fit(tiny(), splits, Runtime("cpu"))]
    means = [(16 * (1 + 2 + 3) + 2 * 4) / 50, (16 * (5 + 6 + 7) + 2 * 8) / 50, (16 * (9 + 10 + 11) + 2 * 12) / 50]
    assert [row["train.steps"] for row, _, _ in epochs] == pytest.approx(means)
    assert [float(checkpoint["loss/steps"]) for _, checkpoint, _ in epochs] == [4, 8, 12]
    (_, first, _), (row, last, weights) = epochs[0], epochs[-1]
    *_, resumed = through_a_file(tiny(), splits, first)
    assert resumed[0] == timeless(row)
    assert equal(resumed[1].weights(), weights)
    assert equal(resumed[1].checkpoint(), last)


def through_a_file(trial: TrialSpec, splits: Splits, checkpoint: Arrays) -> list[tuple[Row, Epoch]]:
    """Continue from a checkpoint that was written and read without pickles, as another process would."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **checkpoint)  # type: ignore[arg-type]
    file.seek(0)
    arrays = dict(np.load(file, allow_pickle=False))
    return [(timeless(epoch.row), epoch) for epoch in fit(trial, splits, Runtime(device="cpu", checkpoint=arrays))]


def test_checkpoints_are_plain_arrays_of_their_own(splits: Splits) -> None:
    epochs = fit(tiny(), splits, Runtime(device="cpu"))
    epoch = next(epochs)
    checkpoint, weights = epoch.checkpoint(), epoch.weights()
    for name, array in checkpoint.items():
        assert type(array) is np.ndarray, name
        assert array.dtype.kind in "fiu", name
    assert equal(
        {name.removeprefix("model/"): a for name, a in checkpoint.items() if name.startswith("model/")}, weights
    )
    assert weights.keys() == build_model(tiny().model, (1, 28, 28), 0).state_dict().keys()
    copies = {name: array.copy() for name, array in checkpoint.items()}
    next(epochs)  # trains on, in place
    assert equal(checkpoint, copies)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_divergence_names_epoch_and_terms(splits: Splits) -> None:
    # 1e19 drives the logarithm of the variance, and with it the KL term, out of range within an epoch.
    epochs = fit(tiny(training__learning_rate=1e19), splits, Runtime(device="cpu"))
    with pytest.raises(DivergedError, match=r"the loss diverged in epoch 1: loss (nan|inf), reconstruction ") as caught:
        next(epochs)
    for term in ("kl", "balance", "entropy"):
        assert f", {term} " in str(caught.value)
    assert "try a smaller training.learning_rate" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_divergence_seen_only_by_the_evaluation_is_divergence(splits: Splits) -> None:
    # The only step's loss is still that of the fresh model; its update is what breaks it.
    trial = tiny(training__learning_rate=1e30, training__budget="1 step")
    with pytest.raises(DivergedError, match=r"epoch 1: reconstruction .*, kl (nan|inf)"):
        run(trial, splits)


def test_supervised_routing_needs_an_expert_a_class(splits: Splits) -> None:
    trial = tiny(routing="supervised", model__num_experts=4)
    with pytest.raises(StudyError, match=r"set model\.num_experts to 3 \(it is 4\)"):
        next(fit(trial, splits, Runtime(device="cpu")))


@pytest.mark.parametrize("device", ["cuda:99", "cudda", "tpu"])
def test_a_device_that_is_not_there_is_one_line(device: str, splits: Splits) -> None:
    with pytest.raises(StudyError, match=f"device '{device}'") as caught:
        next(fit(tiny(), splits, Runtime(device=device)))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_cuda_auto_is_the_cpu_and_cuda_an_error(splits: Splits) -> None:
    with pytest.raises(StudyError, match="device 'cuda' is not there: this machine has 0 CUDA devices"):
        next(fit(tiny(), splits, Runtime(device="cuda")))
    automatic = [timeless(epoch.row) for epoch in fit(tiny(), splits)]
    assert automatic == run(tiny(), splits)[0]


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_a_driver_that_is_too_old_for_pytorch_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As PyTorch answers then: NVML counts the GPU, CUDA refuses to start.
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match=r"its CUDA 13\.0 needs NVIDIA driver 580 or later \(nvidia-smi shows yours\)"):
        resolve_device(name)
    assert resolve_device("cpu").type == "cpu"


def test_memory_mapped_read_only_images_train_alike(splits: Splits, tmp_path: Path) -> None:
    def mapped(dataset: Dataset, name: str) -> Dataset:
        np.save(tmp_path / f"{name}.npy", dataset.image_BHW)
        np.save(tmp_path / f"{name}_label.npy", dataset.label_B)
        image_BHW = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        assert not image_BHW.flags.writeable
        return Dataset(image_BHW, np.load(tmp_path / f"{name}_label.npy", mmap_mode="r"))

    on_disk = dataclasses.replace(splits, train=mapped(splits.train, "train"), test=mapped(splits.test, "test"))
    rows, weights = run(tiny(), on_disk)
    assert rows == run(tiny(), splits)[0]
    assert equal(weights, run(tiny(), splits)[1])


# --- numerical options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"routing": "supervised", "objective__likelihood": "bernoulli"}, {"model__decoder": "medium"}],
    ids=str,
)
def test_bf16_follows_fp32_within_a_few_percent(changes: dict[str, Any], splits: Splits) -> None:
    trial = tiny(training__learning_rate=3e-3, **changes)
    full, _ = run(trial, splits)
    half, weights = run(trial_with(trial, {"training.precision": "bf16"}), splits)
    assert full != half  # it does run in another precision
    for expected, actual in zip(full, half, strict=True):
        for name in ("train.loss", "train.reconstruction", "test.reconstruction"):
            assert actual[name] == pytest.approx(expected[name], rel=0.03)
    assert all(array.dtype == np.float32 for array in weights.values())


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The .grad attribute:UserWarning"
)  # torch's compiler's
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"routing": "supervised"},
        {"objective__name": "blend"},
        {"objective__likelihood": "bernoulli"},
        {"objective__error_scale": 30.0},
        {"objective__name": "loss_free"},
        {"objective__name": "relu", "objective__l1_start": 1.0},
    ],
    ids=str,
)
def test_compiled_training_follows_eager(changes: dict[str, Any], splits: Splits) -> None:
    trial = tiny(**changes)
    eager, _ = run(trial, splits)
    compiled, _ = run(trial_with(trial, {"training.compile": True}), splits)
    for expected, actual in zip(eager, compiled, strict=True):
        for name, value in expected.items():
            if name.startswith(("train.", "test.")):
                assert actual[name] == pytest.approx(value, rel=1e-3, abs=1e-5)


# --- gradients --------------------------------------------------------------------------------------------------------


def test_supervised_reconstruction_never_reaches_the_gate(splits: Splits) -> None:
    model = build_model(tiny().model, (1, 28, 28), 0)
    image_BHW = torch.from_numpy(splits.train.image_BHW[:8]).float() / 255
    label_B = torch.from_numpy(splits.train.label_B[:8])
    decoded = model(image_BHW, torch.zeros(8, 6), decodes="chosen")
    terms = loss_for(Supervised())(LossInput(image_BHW.flatten(1), label_B, decoded, beta=0.01, progress=0))
    gate, encoder = list(model.gate.parameters()), list(model.encoder.parameters())
    of_reconstruction = torch.autograd.grad(terms.reconstruction, gate, retain_graph=True, allow_unused=True)
    assert of_reconstruction == (None,) * len(gate)
    for term, parameters in itertools.product((terms.cross_entropy, terms.loss), (gate, encoder[:1])):
        assert all(grad.abs().max() > 0 for grad in torch.autograd.grad(term, parameters, retain_graph=True))
    assert torch.autograd.grad(terms.reconstruction, encoder[0])[0].abs().max() > 0
