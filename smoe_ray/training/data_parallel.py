"""One trial on several workers: rank 0 leads, as if it were the only one, and the others follow.

Only the leader evaluates, writes, and decides when to stop. Followers wait for its message before each epoch, so
wherever it leaves (the end, pruning, an error in an evaluation, a full disk), they leave, too. An error between
collectives cannot be broadcast: it raises `GroupBroken`, and whoever started the group must end it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy.typing as npt

from smoe_ray.data.dataset import Splits
from smoe_ray.errors import SmoeRayError
from smoe_ray.spec import TrialSpec
from smoe_ray.training.collectives import GroupBroken, WorkerGroup, Workers
from smoe_ray.training.loop import Epoch, Runtime, fit

_Checkpoint = Mapping[str, npt.NDArray[Any]] | None


class _Begin(NamedTuple):
    """Message: train the first epoch after this checkpoint."""

    checkpoint: _Checkpoint


_NEXT = "next"  # message: train another epoch
_END = None


@contextmanager
def leading(workers: Workers, device: str) -> Iterator[Callable[[TrialSpec, Splits, _Checkpoint], Iterator[Epoch]]]:
    """`fit` for rank 0, as `(trial, data, checkpoint)`; the other workers `follow` until this context is left."""

    def lead(trial: TrialSpec, data: Splits, checkpoint: _Checkpoint) -> Iterator[Epoch]:
        workers.broadcast(_Begin(checkpoint))
        for epoch in fit(trial, data, Runtime(device, checkpoint, workers)):
            yield epoch
            if not epoch.last:
                workers.broadcast(_NEXT)

    try:
        yield lead
    except GroupBroken:  # the others are in a collective, or dead: nobody receives
        raise
    except BaseException:
        workers.broadcast(_END)
        raise
    workers.broadcast(_END)


def follow(workers: WorkerGroup, trial: TrialSpec, data: Splits, device: str) -> None:
    """Train every epoch that the leader trains, until it ends.

    Raises:
        GroupBroken: a worker failed between collectives.
    """
    epochs: Iterator[Epoch] = iter(())
    while (message := workers.receive()) is not _END:
        if isinstance(message, _Begin):
            epochs = fit(trial, data, Runtime(device, message.checkpoint, workers))
        with suppress(SmoeRayError):  # the leader raises the same one (the loss diverged)
            next(epochs, None)
