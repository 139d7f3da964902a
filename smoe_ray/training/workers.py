"""The data-parallel workers of a trial: what of a batch is whose, and what they tell one another.

Every worker draws order and latent noise of the *whole* batch from the same streams, and computes on its shard of it.
So the random numbers do not depend on how many workers there are, and N of them train the model that one would train.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_PATIENCE = timedelta(days=1)
"""How long the others wait while the first worker measures, writes, and asks whether to go on."""


class Shard(NamedTuple):
    """The part of a batch that one worker computes on."""

    rows: slice
    counted: int
    """Images that count: all in `rows`, or none where a worker without images of its own computes on another's."""
    batch: int
    """Images of the whole batch."""

    @property
    def share(self) -> float:
        """What part of the batch this is."""
        return self.counted / self.batch


class GroupBroken(BaseException):
    """A worker failed while the others wait for it in a collective: none can go on, so the whole group has to end.

    No `Exception`, so that nobody takes it for a failure of the trial: a new group takes the trial up where it is.
    """


class Workers:
    """The workers that train one model together, as one of them sees them. This one is alone."""

    rank = 0
    count = 1

    def shard(self, batch: int) -> Shard:
        """This worker's part of a batch of so many images; parts differ in size by one image at most."""
        first, end = (batch * rank // self.count for rank in (self.rank, self.rank + 1))
        if first == end:  # fewer images than workers: the collectives need it nevertheless
            return Shard(slice(0, 1), 0, batch)
        return Shard(slice(first, end), end - first, batch)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass leaves the mean gradient over workers."""
        return model

    def mean(self, value: Tensor, share: float | Tensor) -> Tensor:  # noqa: ARG002
        """Mean over the batch of a mean over each shard; `share` is the shard's part of the batch.

        Its gradient is that of the own shard, unweighted: the caller weighs its whole loss by `count * share`, whose
        mean over workers is the gradient for the batch.
        """
        return value

    def sum(self, value: Tensor) -> Tensor:
        """Sum over workers, without gradient."""
        return value

    def together(self) -> AbstractContextManager[None]:
        """Around what all workers do together. Raises GroupBroken for an Exception inside."""
        return nullcontext()

    def tell(self, message: Any) -> None:
        """From the first worker to all others, which are in `hear`."""


ALONE = Workers()


class WorkerGroup(Workers):
    """The workers of torch's default process group; every one of them makes this object at the same time."""

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._talk = dist.new_group(backend="gloo", timeout=_PATIENCE)

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

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise GroupBroken(f"worker {self.rank} of {self.count}: {type(error).__name__}: {error}") from error

    def together(self) -> AbstractContextManager[None]:
        """See `Workers.together`."""
        return self._together()

    def tell(self, message: Any) -> None:
        """See `Workers.tell`."""
        dist.broadcast_object_list([message], src=0, group=self._talk)

    def hear(self) -> Any:
        """What the first worker tells."""
        heard = [None]
        dist.broadcast_object_list(heard, src=0, group=self._talk)
        return heard[0]
