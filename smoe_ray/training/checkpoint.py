"""The state of a trial as flat named arrays (no pickles), and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Arrays = dict[str, npt.NDArray[Any]]


def weights(model: nn.Module) -> Arrays:
    """A module's parameters and buffers by name, copied to the host."""
    return {name: _array(value) for name, value in model.state_dict().items()}


def take(
    epoch: int,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    generators: tuple[torch.Generator, ...],
) -> Arrays:
    """Everything that the next epoch depends on, copied to the host. `modules` by the prefix of their arrays' names."""
    arrays = {f"{part}/{name}": value for part, module in modules.items() for name, value in weights(module).items()}
    for number, state in optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer/{number}/{name}": _array(value) for name, value in state.items()}
    arrays |= {f"generator/{i}": _array(generator.get_state()) for i, generator in enumerate(generators)}
    arrays["epoch"] = np.array([epoch], dtype=np.int64)
    return arrays


def epochs_done(arrays: Mapping[str, npt.NDArray[Any]]) -> int:
    """How many epochs a checkpoint holds."""
    return int(arrays["epoch"][0])


def restore(
    arrays: Mapping[str, npt.NDArray[Any]],
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    generators: tuple[torch.Generator, ...],
) -> int:
    """Put a checkpoint's state into freshly built objects of the same trial; returns the epochs that it holds."""
    for part, module in modules.items():
        module.load_state_dict({name: torch.tensor(arrays[f"{part}/{name}"]) for name in module.state_dict()})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, array in arrays.items():
        if key.startswith("optimizer/"):
            _, number, name = key.split("/")
            state.setdefault(int(number), {})[name] = _laid_out_like(parameters[int(number)], torch.tensor(array))
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for i, generator in enumerate(generators):
        generator.set_state(torch.tensor(arrays[f"generator/{i}"]))
    return epochs_done(arrays)


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A fused optimizer walks through parameter and state side by side in memory: their strides must be the same."""
    return torch.empty_like(parameter, device="cpu").copy_(value) if value.shape == parameter.shape else value


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    return tensor.detach().to("cpu", copy=True).contiguous().numpy()
