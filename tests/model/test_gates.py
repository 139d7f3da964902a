"""Gates: what they cost, and known answers."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smoe_ray.model import build_model
from smoe_ray.model.architectures import gate_architecture
from smoe_ray.model.gate import CosineGate
from smoe_ray.spec import ModelSpec
from smoe_ray.spec.gates import BuiltInGate

B, Z = 5, 7


@pytest.fixture(params=get_args(BuiltInGate), ids=lambda gate: gate().name)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return ModelSpec(num_experts=6, latent_dim=Z, gate_hidden=(9, 8), encoder="lite", gate=request.param())


def test_cost(spec: ModelSpec) -> None:
    gate = build_model(spec, (1, 8, 8), seed=0).gate
    assert isinstance(gate, torch.nn.Module)
    cost = gate_architecture(spec).cost()
    assert cost.params == sum(parameter.numel() for parameter in gate.parameters())
    z_BZ = torch.randn(B, Z, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        logit_BE = gate(z_BZ)
        assert counter.get_total_flops() == B * cost.flops
        logit_BE.square().sum().backward()
    assert counter.get_total_flops() == B * (cost.flops + cost.flops_backward)
    assert logit_BE.shape == (B, 6)


def test_an_expert_with_the_parts_of_another_has_its_logit(spec: ModelSpec) -> None:
    model = build_model(spec, (1, 8, 8), seed=0)
    z_BZ = torch.randn(B, Z, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for source, target in zip(model.gate.parts_of(0), model.gate.parts_of(1), strict=True):
            target.value.copy_(source.value)
        logit_BE = model.logits(z_BZ)
    torch.testing.assert_close(logit_BE[:, 1], logit_BE[:, 0])
    assert not torch.equal(logit_BE[:, 2], logit_BE[:, 0])


def test_the_cosine_gate_measures_angles() -> None:
    gate = CosineGate(latent_dim=2, hidden=(), num_experts=3, projection=2, scale=4.0)
    with torch.no_grad():
        gate.projection[0].weight.copy_(torch.eye(2))
        gate.projection[0].bias.zero_()
        gate.expert_ED.copy_(torch.tensor([[5.0, 0.0], [0.0, 0.1], [-1.0, -1.0]]))
        logit_BE = gate(torch.tensor([[3.0, 0.0], [1.0, 1.0]]))
    half = 0.5**0.5
    torch.testing.assert_close(logit_BE, 4 * torch.tensor([[1.0, 0.0, -half], [half, half, -1.0]]))
