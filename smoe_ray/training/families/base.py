"""What the training loop asks of a family of models; each family has a module here that answers.

Shapes: B images, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy.typing as npt
import torch
from torch import Tensor, nn

from smoe_ray.data.dataset import Splits
from smoe_ray.training.collectives import Shard, Workers
from smoe_ray.training.images import DeviceImages


class Step(Protocol):
    """One optimizer step on a batch."""

    @property
    def model(self) -> nn.Module:
        """The model that it trains."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """All whose state a checkpoint needs, by the prefix of their arrays' names: ``model`` and others."""

    @property
    def workers(self) -> Workers:
        """Of the trial."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    @property
    def label_kind(self) -> Literal["class", "style"]:
        """Which label of its images a batch comes with."""

    def before(self, number: int, steps_total: int, images: DeviceImages) -> None:
        """Called before step `number` (from 0) of `steps_total`, with all training images."""

    def __call__(
        self, image_BHW: Tensor, label_B: Tensor, progress: float, shard: Shard | None = None
    ) -> dict[str, Tensor]:
        """Update the model; `progress` is the share of the budget that is done.

        Returns:
            Each term's mean over the shard: columns ``train.<name>``, the first of them ``loss``.
        """


class Measured(Protocol):
    """What was measured on the test images."""

    def losses(self) -> dict[str, float]:
        """What must be finite, by name: a trial in which one is not has diverged."""


class Family(Protocol):
    """A family of models, for one trial. `model` is always of that family."""

    def step(self, model: Any, optimizer: torch.optim.Optimizer, noise: torch.Generator, workers: Workers) -> Step:
        """The training step; all its random numbers come from `noise`, on whose device it runs."""

    def measure(self, model: Any, images: DeviceImages, test: DeviceImages, data: Splits, epoch: int) -> Measured:
        """Measure the model after an epoch; `images` are the training images."""

    def columns(self, measured: Any) -> dict[str, Any]:
        """Columns ``test.*``, ``experts.*`` and ``latent.*`` of an epoch; `measured` is None without evaluation."""

    def embed(self, model: Any, test: DeviceImages, data: Splits, epoch: int) -> dict[str, npt.NDArray[Any]]:
        """Arrays of ``embeddings.npz`` (`results.embeddings`)."""
