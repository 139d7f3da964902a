"""A stand-in for `training.fit` that takes milliseconds and fails when it is told to.

Its numbers depend on seed, data and spec, and each epoch's on the state after the one before, so that a wrong resume
shows in every later number.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from smoe_ray.data import Dataset, Splits
from smoe_ray.errors import DivergedError
from smoe_ray.results import TIMING_COLUMNS, read_results
from smoe_ray.spec import GridStudy, SearchStudy, TrialSpec, parse_study

Arrays = dict[str, npt.NDArray[Any]]

BASE = """
name: toy
question: does it survive?
base:
  data: {source: synthetic, classes: [eye, cat], train_per_class: 20, test_per_class: 10}
  model: {num_experts: 3, encoder: lite}
  training: {budget: 4 epochs, batch_size: 16}
"""
GRID = BASE + "seeds: [0, 1, 2, 3]\n"
SEARCH = (
    BASE
    + """
space:
  model.num_experts: {type: int, low: 1, high: 30}
  training.learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
objectives: [{metric: test.reconstruction}]
num_trials: 5
"""
)


class ToyEpoch(NamedTuple):
    """What a training gives per epoch, as `smoe_ray.training.Epoch`."""

    epoch: int
    row: dict[str, Any]
    last: bool
    checkpoint: Callable[[], Arrays]
    weights: Callable[[], Arrays]
    embeddings: Callable[[], Arrays]


@dataclass(frozen=True)
class Toy:
    """Picklable, so that worker processes can have it."""

    log: Path | None = None
    """Gets a line 'seed epoch pid' before each epoch that is really computed."""
    pause: float = 0.0
    kill_seed: int | None = None
    """The trial with this seed kills its process at epoch 2 ..."""
    kill_times: int = 0
    """... so often (counted by files beside `log`)."""
    diverge_seed: int | None = None
    raise_seed: int | None = None

    def __call__(self, trial: TrialSpec, data: Splits, checkpoint: Arrays | None) -> Iterator[ToyEpoch]:
        """Train as `smoe_ray.training.fit` would: the epochs after those of `checkpoint`."""
        epochs = trial.training.budget.amount
        done = 0 if checkpoint is None else int(checkpoint["epoch"])
        weight = np.random.default_rng(trial.seed).normal(size=8) if checkpoint is None else checkpoint["weight"]
        signal_of_data = data.train.image_BHW.mean() / 255
        for epoch in range(done + 1, epochs + 1):
            self._misbehave(trial.seed, epoch)
            time.sleep(self.pause)
            weight = np.sin(3 * weight + signal_of_data + trial.training.learning_rate + trial.model.num_experts)
            yield self._epoch(trial, data, epoch, weight, last=epoch == epochs)

    def _misbehave(self, seed: int, epoch: int) -> None:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{seed} {epoch} {os.getpid()}\n")
        if epoch != 2:
            return
        if seed == self.kill_seed:
            assert self.log is not None
            deaths = list(self.log.parent.glob("death-*"))
            if len(deaths) < self.kill_times:
                (self.log.parent / f"death-{len(deaths)}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if seed == self.diverge_seed:
            raise DivergedError("epoch 2: train.loss is nan\n(kl inf)")
        if seed == self.raise_seed:
            raise RuntimeError("the disk is on fire")

    def _epoch(self, trial: TrialSpec, data: Splits, epoch: int, weight: npt.NDArray[Any], last: bool) -> ToyEpoch:
        experts = trial.model.num_experts
        row = {
            "epoch": epoch,
            "train.loss": float(np.abs(weight).sum()) + 1 / epoch,
            "test.reconstruction": float(np.abs(weight).mean()) + 10 / epoch,
            "experts.configured": experts,
            "experts.active": 1 + epoch % experts,
            "experts.effective": 1.0 + epoch % experts,
            "experts.active_fraction": (1 + epoch % experts) / experts,
            "experts.usage": [1 / experts] * experts,
            "cost.steps": epoch,
            "cost.images": epoch * len(data.train),
            "cost.wall_s": time.monotonic(),
        }
        return ToyEpoch(
            epoch,
            row,
            last,
            checkpoint=lambda: {"epoch": np.array(epoch), "weight": weight},
            weights=lambda: {"weight": weight},
            embeddings=lambda: _embeddings(trial, data.test, weight),
        )


def _embeddings(trial: TrialSpec, test: Dataset, weight: npt.NDArray[Any]) -> Arrays:
    experts = trial.model.num_experts
    return {
        "mu": np.outer(np.arange(len(test)), np.resize(weight, trial.model.representation_dim)).astype(np.float32),
        "label": test.label_B,
        "expert": np.arange(len(test)) % experts,
        "gate": np.full((len(test), experts), 1 / experts, np.float32),
        "image": test.image_BHW,
        "reconstruction": (test.image_BHW / 255).astype(np.float16),
    }


def epochs_computed(log: Path) -> list[tuple[int, int]]:
    """(seed, epoch) of each epoch that was really computed, in order."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(seed), int(epoch)) for seed, epoch, _ in map(str.split, lines)]


def toy_grid(**changes: Any) -> GridStudy:
    """A grid of four seeds on the smallest data, with changes by path: ``toy_grid(seeds=[0])``."""
    study = parse_study(GRID, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    assert isinstance(study, GridStudy)
    return study


def toy_search(**changes: Any) -> SearchStudy:
    """A search of five trials on the same data, with changes by path: ``toy_search(num_trials=3)``."""
    study = parse_study(SEARCH, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    assert isinstance(study, SearchStudy)
    return study


def table(out: Path, study: GridStudy | SearchStudy) -> pd.DataFrame:
    """The study's results without the columns in which two runs may differ (times)."""
    return read_results(out, study.name).drop(columns=list(TIMING_COLUMNS))
