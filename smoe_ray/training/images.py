"""Training and test images on the device: uint8 there as a whole when they fit, converted batch by batch."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor

from smoe_ray.data.dataset import Dataset
from smoe_ray.errors import StudyError
from smoe_ray.training.collectives import ALONE, Shard, Workers

_SHARE_OF_FREE_MEMORY = 0.5
"""A dataset that would take more than this share of the free device memory stays on the host."""


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device, else the CPU. Raises StudyError for a device that is not there or unusable."""
    if name != "cpu":
        _check_driver()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise StudyError(f"device {name!r} is none of auto, cpu, cuda, cuda:<n>")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise StudyError(f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def _check_driver() -> None:
    """Raise StudyError if there are GPUs (NVML counts them) that PyTorch cannot use, for which `auto` means the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about the same
        unusable = torch.version.cuda is not None and torch.cuda.device_count() > 0 and not torch.cuda.is_available()
    if unusable:
        needed = 580 if int(str(torch.version.cuda).partition(".")[0]) >= 13 else 525
        raise StudyError(
            f"this machine has {torch.cuda.device_count()} GPUs that PyTorch cannot use: its CUDA {torch.version.cuda} "
            f"needs NVIDIA driver {needed} or later (nvidia-smi shows yours); update the driver, or train on the CPU"
        )


class Batch(NamedTuple):
    """A worker's shard of a batch."""

    image_BHW: Tensor
    """Pixels in [0, 1]."""
    label_B: Tensor
    shard: Shard


class DeviceImages:
    """Images (uint8) of a dataset and their labels, which are classes or styles, ready to be cut into batches."""

    def __init__(self, dataset: Dataset, device: torch.device, label_kind: Literal["class", "style"] = "class") -> None:
        self.device = device
        self.image_BHW = _tensor(dataset.image_BHW)
        self.label_B = _tensor(dataset.labels(label_kind)).to(device)
        if device.type == "cuda" and self._fits():
            self.image_BHW = self.image_BHW.to(device)

    def __len__(self) -> int:
        return len(self.label_B)

    def batches(
        self, batch_size: int, steps: int, generator: torch.Generator, workers: Workers = ALONE
    ) -> Iterator[Batch]:
        """A worker's shards of the first `steps` batches of one shuffled pass. The last batch may be short."""
        order = torch.randperm(len(self), generator=generator, device=self.device)
        for batch in order.split(batch_size)[:steps]:
            shard = workers.shard(len(batch))
            chosen = batch[shard.rows]
            yield Batch(self._pixels(self.image_BHW[chosen.to(self.image_BHW.device)]), self.label_B[chosen], shard)

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass in the order of the dataset: (image_BHW in [0, 1], label_B)."""
        for start in range(0, len(self), size):
            chosen = slice(start, start + size)
            yield self._pixels(self.image_BHW[chosen]), self.label_B[chosen]

    def spread(self, most: int) -> DeviceImages:
        """These images, or of more than `most` that many at equal distances."""
        if len(self) <= most:
            return self
        rows = torch.linspace(0, len(self) - 1, most, dtype=torch.float64).long()
        some = copy.copy(self)
        some.image_BHW, some.label_B = (
            self.image_BHW[rows.to(self.image_BHW.device)],
            self.label_B[rows.to(self.device)],
        )
        return some

    def _pixels(self, image_BHW: Tensor) -> Tensor:
        return image_BHW.to(self.device, non_blocking=True).float().div_(255)

    def _fits(self) -> bool:
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.image_BHW.nbytes <= free * _SHARE_OF_FREE_MEMORY


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    """A tensor that shares the array's memory, memory-mapped or not."""
    with warnings.catch_warnings():  # torch cannot mark a tensor read-only; nothing here writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
