"""One trial on several workers: the first leads, as if it were alone, and the others follow.

The leader alone measures, writes, and decides when to end. The others wait for its word before each epoch, so wherever
it leaves (the end, a reason to stop, an error in an evaluation, a full disk), they leave, too. Only an error in the
midst of what all do together leaves them in a collective: `GroupBroken` then asks whoever started the group to end it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy.typing as npt

from smoe_ray.data.dataset import Splits
from smoe_ray.errors import SmoeRayError
from smoe_ray.spec import TrialSpec
from smoe_ray.training.loop import Epoch, Runtime, fit
from smoe_ray.training.workers import GroupBroken, WorkerGroup, Workers

_Checkpoint = Mapping[str, npt.NDArray[Any]] | None


class _Begin(NamedTuple):
    """Train the first epoch after this checkpoint."""

    checkpoint: _Checkpoint


_NEXT = "next"  # train another epoch
_END = None


@contextmanager
def leading(workers: Workers, device: str) -> Iterator[Callable[[TrialSpec, Splits, _Checkpoint], Iterator[Epoch]]]:
    """`fit` for the first worker, as `(trial, data, checkpoint)`; the others `follow` until this context is left."""

    def lead(trial: TrialSpec, data: Splits, checkpoint: _Checkpoint) -> Iterator[Epoch]:
        workers.tell(_Begin(checkpoint))
        for epoch in fit(trial, data, Runtime(device, checkpoint, workers)):
            yield epoch
            if not epoch.last:
                workers.tell(_NEXT)

    try:
        yield lead
    except GroupBroken:  # the others are in a collective, or gone: nobody listens
        raise
    except BaseException:
        workers.tell(_END)
        raise
    workers.tell(_END)


def follow(workers: WorkerGroup, trial: TrialSpec, data: Splits, device: str) -> None:
    """Train beside the leader until it is done.

    Raises:
        GroupBroken: training cannot go on together.
    """
    epochs: Iterator[Epoch] = iter(())
    while (word := workers.hear()) is not _END:
        if isinstance(word, _Begin):
            epochs = fit(trial, data, Runtime(device, word.checkpoint, workers))
        with suppress(SmoeRayError):  # the leader meets the same one (the loss diverged), and tells the world
            next(epochs, None)
