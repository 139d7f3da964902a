"""The training loop: a generator that yields one value per epoch, reports to nobody and writes nothing.

Shapes: B images, E experts, Z latent, H W pixels, P = H * W.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor

from smoe_ray.data.dataset import Dataset, Splits
from smoe_ray.errors import DivergedError, StudyError
from smoe_ray.model import build_model, model_cost
from smoe_ray.model.cost import flops_of_training
from smoe_ray.spec import TrialSpec, check_experts_per_label
from smoe_ray.training import checkpoint
from smoe_ray.training.collectives import ALONE, Workers
from smoe_ray.training.families import Step, family_of
from smoe_ray.training.images import Batch, DeviceImages, resolve_device
from smoe_ray.training.rng import Stream, random_stream

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Runtime:
    """What a trial runs on; the spec does not say and the numbers do not depend on it (but for rounding)."""

    device: str = "auto"
    """``auto`` (the first CUDA device, else the CPU), ``cpu``, ``cuda`` or ``cuda:<n>``."""
    checkpoint: Mapping[str, npt.NDArray[Any]] | None = None
    """State to continue from, as `Epoch.checkpoint` gave it; None starts at the beginning."""
    workers: Workers = ALONE
    """Data-parallel workers, each in a process of its own with the same arguments. Only rank 0 evaluates: use its rows
    and embeddings."""


class Epoch(NamedTuple):
    """Result of one epoch. The callables give the state as it is now: call them before asking for the next epoch."""

    epoch: int
    """Number of the epoch, from 1."""
    row: dict[str, Any]
    """One row of epochs.parquet; see docs/metrics.md. Test columns are None in epochs without evaluation."""
    last: bool
    checkpoint: Callable[[], Arrays]
    """Model, state of loss and modifiers, optimizer and generators: enough to continue to bit-identical weights on the
    same machine."""
    weights: Callable[[], Arrays]
    embeddings: Callable[[], Arrays]
    """Latent vector, gate, expert and reconstruction of each test image."""


def fit(trial: TrialSpec, data: Splits, runtime: Runtime = Runtime()) -> Iterator[Epoch]:
    """Train one trial.

    Args:
        trial: everything that decides the numbers.
        data: training and test images.
        runtime: device, a checkpoint to continue from, and other workers.

    Yields:
        One `Epoch` for each pass over the training images (the last may be cut short by a budget in steps), beginning
        after those that the checkpoint holds.

    Raises:
        StudyError: the trial cannot run on this data.
        DivergedError: a term of the loss became NaN or infinite; the message has the epoch and the terms.
        GroupBroken: this worker or another one failed between collectives.
    """
    if trial.weights == "imported":
        raise StudyError(
            "weights: imported ones are not trained: use 'smoe-ray import-checkpoint', or set weights to trained"
        )
    _check_labels(trial, data)
    workers = runtime.workers
    with workers.guard_collectives():
        device = resolve_device(runtime.device)
        model = build_model(trial.model, data.train.image_shape, trial.seed).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=trial.training.learning_rate, fused=True)
        shuffling, noise = generators = (
            random_stream(device, trial.seed, Stream.SHUFFLING),
            random_stream(device, trial.seed, Stream.LATENT_NOISE),
        )
        family = family_of(trial)
        step = family.step(model, optimizer, noise, workers)
        done = 0
        if runtime.checkpoint is not None:
            done = checkpoint.restore(runtime.checkpoint, step.modules, optimizer, generators)
        images = DeviceImages(data.train, device, step.label_kind)
        test = DeviceImages(data.test, device)
    steps_per_epoch = math.ceil(len(data.train) / trial.training.batch_size)
    steps_total = trial.training.budget.steps(steps_per_epoch)
    epochs_total = trial.training.budget.epochs(steps_per_epoch)
    counts = _Counts(trial, data.train, steps_per_epoch)
    for epoch in range(done + 1, epochs_total + 1):
        started = time.perf_counter()
        first_step = (epoch - 1) * steps_per_epoch
        steps = min(steps_per_epoch, steps_total - first_step)
        with workers.guard_collectives():
            batches = images.batches(trial.training.batch_size, steps, shuffling, workers)
            terms = _train_epoch(step, batches, images, first_step, steps_total)
        _refuse_divergence(epoch, terms)
        trained = time.perf_counter()
        last = epoch == epochs_total
        measured = None
        if workers.rank == 0 and (last or epoch % trial.evaluation.every == 0):
            measured = family.measure(model, images, test, data, epoch)
            _refuse_divergence(epoch, measured.losses())
        row = {
            "epoch": epoch,
            **{f"train.{name}": value for name, value in terms.items()},
            **family.columns(measured),
            **counts.columns(first_step + steps),
            "cost.wall_s": time.perf_counter() - started,
            "cost.images_per_s": counts.images(first_step, first_step + steps) / (trained - started),
        }
        yield Epoch(
            epoch,
            row,
            last,
            checkpoint=partial(checkpoint.take, epoch, step.modules, optimizer, generators),
            weights=partial(checkpoint.weights, model),
            embeddings=partial(family.embed, model, test, data, epoch),
        )


def measure(trial: TrialSpec, data: Splits, weights: Mapping[str, Tensor], device: str = "auto") -> Iterator[Epoch]:
    """The last epoch of a trial whose weights come from elsewhere: they are measured as `fit` measures its own.

    Args:
        trial: its training says how the weights were made, from which epoch and cost follow.
        data: training and test images; the training images are counted alone.
        weights: a state dict of the trial's model.
        device: as of `Runtime`.

    Yields:
        One `Epoch`, without columns of training and time.

    Raises:
        StudyError: the trial cannot run on this data.
        DivergedError: a test column is NaN or infinite.
    """
    _check_labels(trial, data)
    family, on = family_of(trial), resolve_device(device)
    model = build_model(trial.model, data.train.image_shape, trial.seed).to(on)
    model.load_state_dict(weights)
    test = DeviceImages(data.test, on)
    steps_per_epoch = math.ceil(len(data.train) / trial.training.batch_size)
    steps = trial.training.budget.steps(steps_per_epoch)
    epoch = trial.training.budget.epochs(steps_per_epoch)
    measured = family.measure(model, DeviceImages(data.train, on), test, data, epoch)
    _refuse_divergence(epoch, measured.losses())
    row = {
        "epoch": epoch,
        **family.columns(measured),
        **_Counts(trial, data.train, steps_per_epoch).columns(steps),
    }
    yield Epoch(
        epoch,
        row,
        last=True,
        checkpoint=dict,  # there is no next epoch
        weights=partial(checkpoint.weights, model),
        embeddings=partial(family.embed, model, test, data, epoch),
    )


def _train_epoch(
    step: Step, batches: Iterator[Batch], images: DeviceImages, first_step: int, steps_total: int
) -> dict[str, float]:
    """Train on the batches of `images`; means of the terms over images, those of all workers."""
    step.model.train()
    sums = torch.zeros((), dtype=torch.float64, device=step.device)
    names: list[str] = []
    count = 0
    for number, (image_BHW, label_B, shard) in enumerate(batches, start=first_step):
        step.before(number, steps_total, images)
        terms = step(image_BHW, label_B, number / max(1, steps_total - 1), shard)
        names = list(terms)
        # No .item() here: on a GPU it would wait for the device at every step.
        sums = sums + torch.stack(list(terms.values())).double() * shard.counted
        count += shard.batch
    return dict(zip(names, (step.workers.sum(sums) / count).tolist(), strict=True))


def _refuse_divergence(epoch: int, terms: Mapping[str, float]) -> None:
    if all(math.isfinite(value) for value in terms.values()):
        return
    listed = ", ".join(f"{name} {value:.6g}" for name, value in terms.items())
    raise DivergedError(f"the loss diverged in epoch {epoch}: {listed}; try a smaller training.learning_rate")


def _check_labels(trial: TrialSpec, data: Splits) -> None:
    """Raise StudyError where routing by label needs another number of experts for this data."""
    styled = data.train.style_B is not None and data.test.style_B is not None
    check_experts_per_label(trial, len(data.class_names), len(data.style_names) if styled else 0)


class _Counts:
    """Columns of cost that follow from the spec and the number of steps done."""

    def __init__(self, trial: TrialSpec, train: Dataset, steps_per_epoch: int) -> None:
        self.cost = model_cost(trial.model, train.image_shape)
        self.flops_image = flops_of_training(self.cost, trial.objective)
        self.train_images, self.steps_per_epoch = len(train), steps_per_epoch
        self.batch_size = trial.training.batch_size

    def images(self, first_step: int, end_step: int) -> int:
        """Images trained on in steps [first_step, end_step)."""
        return self._images_until(end_step) - self._images_until(first_step)

    def columns(self, steps: int) -> dict[str, Any]:
        images = self._images_until(steps)
        return {
            "cost.params_total": self.cost.params_total,
            "cost.params_active": self.cost.params_active,
            "cost.flops": float(images * self.flops_image),
            "cost.images": images,
            "cost.steps": steps,
        }

    def _images_until(self, step: int) -> int:
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs * self.train_images + min(rest * self.batch_size, self.train_images)
