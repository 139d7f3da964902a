"""Trainings that misbehave in ways of their own; here, where the processes of an executor can import them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoe_ray.data import Splits
from smoe_ray.errors import DataError
from smoe_ray.spec import TrialSpec
from smoe_ray.study.trial_run import fit_on
from smoe_ray.testing.toy_training import Arrays, Toy, ToyEpoch


def square(number: int) -> int:
    return number**2


def refuse(number: int) -> int:
    """As a function that finds no data."""
    raise DataError(f"no data for {number}")


@dataclass(frozen=True)
class Blocks(Toy):
    """Before epoch 3 of seed 0, once, a folder takes the place of the trial's epochs."""

    out: Path = Path()

    def _misbehave(self, seed: int, epoch: int) -> None:
        if seed == 0 and epoch == 3 and not (self.out / "blocked").exists():
            (self.out / "blocked").touch()
            [file] = [
                file
                for file in self.out.glob("toy/trials/*/epochs.parquet")
                if json.loads(file.with_name("trial.json").read_text())["spec"]["seed"] == 0
            ]
            file.rename(file.with_name("aside"))
            file.mkdir()


def _unpickled() -> None:
    raise ImportError("this module cannot be imported twice")


class FailsOnArrival:
    """Pickles well and fails where it is unpickled: in the worker."""

    def __reduce__(self) -> Any:
        return _unpickled, ()

    def __call__(self, *args: Any) -> Any:
        raise AssertionError("never called")


@dataclass(frozen=True)
class Moods(Toy):
    """Worse with more experts; with some numbers of them the experts die, with others the loss is unmeasurable."""

    def _epoch(self, *args: Any, **kwargs: Any) -> ToyEpoch:
        epoch = super()._epoch(*args, **kwargs)
        experts = epoch.row["experts.configured"]
        epoch.row["test.reconstruction"] = float("nan") if experts % 4 == 0 else experts + 1 / epoch.epoch
        epoch.row["experts.active_fraction"] = epoch.row["experts.active"] / experts
        return epoch


@dataclass(frozen=True)
class RealFit:
    """The real training, with a log and pauses between its epochs."""

    log: Path
    pause: float = 0.0

    def __call__(self, trial: TrialSpec, data: Splits, checkpoint: Arrays | None) -> Iterator[Any]:
        for epoch in fit_on("cpu")(trial, data, checkpoint):
            with self.log.open("a") as file:
                file.write(f"{trial.seed} {epoch.epoch} {os.getpid()}\n")
            yield epoch
            time.sleep(self.pause)
