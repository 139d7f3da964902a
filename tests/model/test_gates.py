"""Gates: what they cost, and known answers."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smoe_ray.model import build_model
from smoe_ray.model.architectures import gate_architecture
from smoe_ray.model.gate import CosineGate, HierarchicalGate
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


def test_the_cosine_gate_measures_angles() -> None:
    gate = CosineGate(latent_dim=2, hidden=(), num_experts=3, projection=2, scale=4.0)
    with torch.no_grad():
        gate.projection[0].weight.copy_(torch.eye(2))
        gate.projection[0].bias.zero_()
        gate.expert_ED.copy_(torch.tensor([[5.0, 0.0], [0.0, 0.1], [-1.0, -1.0]]))
        logit_BE = gate(torch.tensor([[3.0, 0.0], [1.0, 1.0]]))
    half = 0.5**0.5
    torch.testing.assert_close(logit_BE, 4 * torch.tensor([[1.0, 0.0, -half], [half, half, -1.0]]))


def test_the_hierarchical_gate_multiplies_the_probabilities_of_its_two_layers() -> None:
    gate = HierarchicalGate(latent_dim=1, hidden=(), num_experts=6, groups=2)
    group_G, within_GL = torch.tensor([0.6, 0.4]), torch.tensor([[0.3, 0.4, 0.3], [0.1, 0.8, 0.1]])
    with torch.no_grad():
        gate.both[0].weight.zero_()
        # Each layer's logits are free up to a constant: the experts of a group say nothing about the group.
        gate.both[0].bias.copy_(torch.cat([group_G.log() + 3, within_GL[0].log() + 5, within_GL[1].log() - 7]))
        logit_E = gate(torch.zeros(1, 1))[0]
    torch.testing.assert_close(logit_E.exp(), (group_G[:, None] * within_GL).flatten())
    torch.testing.assert_close(logit_E.softmax(dim=0), logit_E.exp())
    assert logit_E.argmax() == 4  # 0.32 in the less probable group; descending greedily would give expert 1 with 0.24


def test_groups_of_unequal_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"set num_experts to a multiple of 4 \(it is 6\)"):
        ModelSpec(num_experts=6, gate={"name": "hierarchical", "groups": 4})
