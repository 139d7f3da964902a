"""Estimated memory against tensors that autograd keeps, and against the peaks of processes that train."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from smoe_ray.model.architectures import decoder_architecture, encoder_architecture
from smoe_ray.model.cost import model_cost
from smoe_ray.model.memory import PROCESS_BYTES, trial_memory
from smoe_ray.spec import ImageShape, TrialSpec, trial_with
from smoe_ray.spec.architectures import ENCODERS

Z, B = 5, 64


def kept_numbers(module: nn.Module, run: Callable[[], Any]) -> int:
    """Numbers in the storages that autograd keeps of a forward pass, parameters aside."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    for parameter in module.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    assert result is not None  # what it refers to must live until all is counted
    return sum(kept.values())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64)], ids=str)
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_keeps_what_it_says(name: str, shape: ImageShape) -> None:
    architecture = encoder_architecture(name)
    module, image = architecture.build(shape, Z), torch.rand(B, *shape)
    assert isinstance(module, nn.Module)
    expected = B * architecture.activations(shape, Z).kept
    assert kept_numbers(module, lambda: module(image)) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=str)
@pytest.mark.parametrize("name", ["medium", "large"])
def test_experts_keep_what_they_say(name: str, shape: ImageShape) -> None:
    architecture, E = decoder_architecture(name), 2
    module, z_BZ = architecture.build(shape, E, Z), torch.rand(B, Z, requires_grad=True)
    assert isinstance(module, nn.Module)
    one = architecture.activations(shape, Z)
    assert kept_numbers(module, lambda: module(z_BZ)) == pytest.approx(E * (B * one.kept + one.fixed), rel=0.1)


def bytes_of(**changes: Any) -> int:
    paths = {key.replace("__", "."): value for key, value in changes.items()}
    return trial_memory(trial_with(TrialSpec(), paths), (1, 28, 28), 1000, 100).peak


def test_more_of_anything_takes_more_memory() -> None:
    base = bytes_of()
    assert base > PROCESS_BYTES
    assert bytes_of(model__num_experts=20) > base
    assert bytes_of(training__batch_size=256) > base
    assert bytes_of(model__decoder="medium") > base
    assert bytes_of(training__precision="bf16") < base
    assert bytes_of(routing="supervised") < base
    assert bytes_of(resources__workers=4) < base
    assert bytes_of(training__batch_size=1000) == bytes_of(training__batch_size=9999)  # there are 1000 images


def test_a_parameter_takes_its_value_its_gradient_and_two_moments() -> None:
    shape, trial = (1, 28, 28), TrialSpec()
    found = trial_memory(trial, shape, 1000, 100)
    assert found.states == 4 * 4 * model_cost(trial.model, shape).params_total
    assert found.data == 1100 * 28 * 28
    assert found.peak == PROCESS_BYTES + found.trial > PROCESS_BYTES + found.states + found.data + found.training


@pytest.mark.slow
def test_estimates_are_within_a_quarter_of_measured_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    program = importlib.import_module("memory")
    for configuration in program.CONFIGURATIONS:
        measured, estimated = program.measure(configuration), program.estimate(configuration)
        assert estimated == pytest.approx(measured.growth, rel=0.25), configuration
        assert measured.process == pytest.approx(PROCESS_BYTES, rel=0.25)
