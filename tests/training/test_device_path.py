"""A training step on an accelerator, traced without one: no tensor on another device, and no copy to the host.

The parameters are fake tensors on torch's `meta` device: torch computes shapes and devices, but no numbers. It refuses
operands on different devices, and what depends on a number (`.item()`, `.tolist()`, a tensor's truth). For fake `cuda`
tensors the backward pass would need a CUDA build; to a training step, what is not `cpu` is an accelerator. Left out is
supervised routing, which groups images by expert on the host, once per step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from smoe_ray.model import build_model, lite_decoders
from smoe_ray.spec import TrialSpec, trial_with
from smoe_ray.training.families.smoe_vae import TrainingStep

DEVICE = torch.device("meta")


class CopyToHostError(Exception):
    """A tensor of the accelerator was copied to the host."""


class NoCopyToHost(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in args if isinstance(value, Tensor)]
        if isinstance(result, Tensor) and result.device.type == "cpu" and any(t.device == DEVICE for t in tensors):
            raise CopyToHostError(str(func))
        return result


@contextmanager
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none on `meta`
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    lite_decoders._corner_weights.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True), NoCopyToHost():
        yield
    lite_decoders._corner_weights.cache_clear()


def step_on_the_accelerator(
    monkeypatch: pytest.MonkeyPatch, gate_does: Callable[[Tensor], Tensor] = lambda z_BZ: z_BZ, **changes: Any
) -> Iterator[Tensor]:
    """The terms of a loss, and every gradient, after a step with `gate_does` before the gate."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    trial = trial_with(TrialSpec(), {"model.num_experts": 3} | changes)
    model = build_model(trial.model, (1, 28, 28), seed=0)
    with accelerator(monkeypatch):
        for module in model.modules():
            for name, value in module.named_parameters(recurse=False):
                fake = torch.empty_strided(value.size(), value.stride(), device=DEVICE)
                module.register_parameter(name, nn.Parameter(fake))
        gate = model.gate
        model.gate = nn.Sequential()
        model.gate.forward = lambda z_BZ: gate(gate_does(z_BZ))  # type: ignore[method-assign]
        optimizer = torch.optim.SGD([*model.parameters(), *gate.parameters()])  # fused Adam refuses `meta`
        step = TrainingStep(trial, model, optimizer, torch.Generator())
        step.device = DEVICE
        terms = step(torch.rand(4, 28, 28, device=DEVICE), torch.zeros(4, dtype=torch.long, device=DEVICE), 0.5)
        yield from terms.values()
        for parameter in [*model.parameters(), *gate.parameters()]:
            assert parameter.grad is not None
            yield parameter.grad


@pytest.mark.parametrize("encoder", ["lite", "medium"])
@pytest.mark.parametrize("decoder", ["lite", "medium", "large"])
def test_every_architecture_trains_on_the_accelerator_alone(
    encoder: str, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = step_on_the_accelerator(monkeypatch, model__encoder=encoder, model__decoder=decoder)
    assert {value.device for value in values} == {DEVICE}


@pytest.mark.parametrize(
    "objective",
    [{"name": "blend", "gating": "hard"}, {"name": "expected"}, {"name": "likelihood"}],
    ids=lambda objective: objective["name"],
)
def test_every_objective_trains_on_the_accelerator_alone(
    objective: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {value.device for value in step_on_the_accelerator(monkeypatch, objective=objective)} == {DEVICE}


@pytest.mark.parametrize(
    ("gate_does", "error"),
    [
        (lambda z_BZ: z_BZ * z_BZ.sum().item(), DataDependentOutputException),
        (lambda z_BZ: z_BZ * z_BZ.sum(dim=0).tolist()[0], DataDependentOutputException),
        (lambda z_BZ: z_BZ.cpu().to(DEVICE), CopyToHostError),
        (lambda z_BZ: z_BZ + torch.ones(z_BZ.shape), RuntimeError),
    ],
    ids=["item", "tolist", "cpu", "mixed devices"],
)
def test_the_trace_finds(
    gate_does: Callable[[Tensor], Tensor], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error):
        list(step_on_the_accelerator(monkeypatch, gate_does))
