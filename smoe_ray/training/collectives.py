"""Batch sharding and collectives across data-parallel workers.

Every worker draws the order and the latent noise of the *global* batch from identically seeded generators, and computes
on its shard of it. So the random numbers do not depend on the number of workers, and N of them train the model that one
would train.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_BROADCAST_TIMEOUT = timedelta(days=1)
"""How long followers wait for a message while the leader evaluates, writes, and asks whether to go on."""


class Shard(NamedTuple):
    """The part of a batch that one worker computes on."""

    rows: slice
    counted: int
    """Images that count: all in `rows`, or none where the batch has fewer images than there are workers."""
    batch: int
    """Images of the global batch."""

    @property
    def share(self) -> float:
        """This shard's fraction of the batch."""
        return self.counted / self.batch


class GroupBroken(BaseException):
    """A worker failed while the others wait for it in a collective: none can continue, so the whole group must end.

    Not an `Exception`, so that it is never recorded as a failure of the trial: a new group resumes the trial.
    """


class Workers:
    """The data-parallel workers of a trial, seen from one of them. This class is a single worker without others."""

    rank = 0
    count = 1

    def shard(self, batch: int) -> Shard:
        """This worker's shard of a batch of `batch` images; shard sizes differ by one image at most."""
        first, end = (batch * rank // self.count for rank in (self.rank, self.rank + 1))
        if first == end:  # fewer images than workers: it must still take part in the collectives
            return Shard(slice(0, 1), 0, batch)
        return Shard(slice(first, end), end - first, batch)

    def wrap(self, model: nn.Module) -> nn.Module:
        """A model whose backward pass leaves the mean gradient over workers."""
        return model

    def mean(self, value: Tensor, share: float | Tensor) -> Tensor:  # noqa: ARG002
        """Mean over the global batch of `value`, a mean over this shard; `share` is the shard's fraction of the batch.

        Its gradient is that of this worker's shard, unweighted: the caller weighs its whole loss by `count * share`, so
        that the mean gradient over workers is the gradient of the global batch.
        """
        return value

    def sum(self, value: Tensor) -> Tensor:
        """Sum over workers, without gradient."""
        return value

    def of_leader(self, value: Tensor) -> Tensor:
        """Rank 0's value, on every worker, without gradient; the others' may be overwritten in place."""
        return value

    def guard_collectives(self) -> AbstractContextManager[None]:
        """Encloses code with collectives. Raises GroupBroken for any Exception inside."""
        return nullcontext()

    def broadcast(self, message: Any) -> None:
        """Send a picklable object from rank 0 to all others, which call `receive`."""


ALONE = Workers()


class WorkerGroup(Workers):
    """The workers of torch's default process group. The constructor is a collective: every worker calls it."""

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._messages = dist.new_group(backend="gloo", timeout=_BROADCAST_TIMEOUT)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model in `DistributedDataParallel`; weights keep their names in the model itself."""
        device = next(model.parameters()).device
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)

    def mean(self, value: Tensor, share: float | Tensor) -> Tensor:
        """See `Workers.mean`."""
        own = value.detach()
        total = own * share
        dist.all_reduce(total)
        return value + (total - own)

    def sum(self, value: Tensor) -> Tensor:
        """See `Workers.sum`."""
        dist.all_reduce(value)
        return value

    def of_leader(self, value: Tensor) -> Tensor:
        """See `Workers.of_leader`."""
        dist.broadcast(value, src=0)
        return value

    def guard_collectives(self) -> AbstractContextManager[None]:
        """See `Workers.guard_collectives`."""
        return self._guard_collectives()

    @contextmanager
    def _guard_collectives(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise GroupBroken(f"worker {self.rank} of {self.count}: {type(error).__name__}: {error}") from error

    def broadcast(self, message: Any) -> None:
        """See `Workers.broadcast`."""
        dist.broadcast_object_list([message], src=0, group=self._messages)

    def receive(self) -> Any:
        """The next message that rank 0 broadcasts."""
        received = [None]
        dist.broadcast_object_list(received, src=0, group=self._messages)
        return received[0]
