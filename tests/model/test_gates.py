"""Gates: what they cost, and known answers."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smoe_ray.errors import StudyError
from smoe_ray.model import ExpertBank, build_model, model_cost
from smoe_ray.model.architectures import decoder_architecture, gate_architecture
from smoe_ray.model.bank import CPExpertBank
from smoe_ray.model.gate import AttentiveGate, BatchNormGate, CosineGate, HierarchicalGate
from smoe_ray.spec import ModelSpec, TrialSpec, trial_with
from smoe_ray.spec.gates import AttentiveGateSpec, BuiltInGate

B, E, Z = 5, 6, 7
SHAPE = (1, 8, 8)


@pytest.fixture(params=get_args(BuiltInGate), ids=lambda gate: gate().name)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return ModelSpec(num_experts=E, latent_dim=Z, gate_hidden=(9, 8), encoder="lite", gate=request.param())


def test_cost(spec: ModelSpec) -> None:
    model = build_model(spec, SHAPE, seed=0)
    assert isinstance(model.gate, torch.nn.Module)
    cost = gate_architecture(spec, SHAPE).cost()
    assert cost.params == sum(parameter.numel() for parameter in model.gate.parameters())
    z_BZ = torch.randn(B, Z, requires_grad=True)
    if isinstance(spec.gate, AttentiveGateSpec):  # the experts' hidden layers go through the gate, too
        cost = cost + decoder_architecture(spec.decoder).cost(SHAPE, Z).hidden.times(E)
    with FlopCounterMode(display=False) as counter:
        logit_BE = model.logits(z_BZ)
        assert counter.get_total_flops() == B * cost.flops
        logit_BE.square().sum().backward()
    assert counter.get_total_flops() == B * (cost.flops + cost.flops_backward)
    assert logit_BE.shape == (B, E)


def test_an_expert_with_the_parts_of_another_has_its_logit(spec: ModelSpec) -> None:
    model = build_model(spec, SHAPE, seed=0)
    z_BZ = torch.randn(B, Z, generator=torch.Generator().manual_seed(0))
    for buffer in model.gate.eval().buffers():  # as different as training makes them
        buffer.uniform_(0.5, 2)
    owner = model if isinstance(spec.gate, AttentiveGateSpec) else model.gate  # it tells experts by their hidden layers
    with torch.no_grad():
        for source, target in zip(owner.parts_of(0), owner.parts_of(1), strict=True):
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


def test_the_batch_norm_gate_by_hand() -> None:
    gate = BatchNormGate(latent_dim=1, hidden=(), num_experts=2, scale=3.0)
    with torch.no_grad():
        gate.logits[0].weight.copy_(torch.tensor([[2.0], [-10.0]]))
    z_BZ = torch.tensor([[1.0], [3.0]])  # logits 2, 6 and -10, -30: means 4, -20; variances 4, 100 (8, 200 unbiased)
    torch.testing.assert_close(gate.train()(z_BZ), torch.tensor([[-3.0, 3.0], [3.0, -3.0]]), rtol=1e-4, atol=0)
    state = gate.state_dict()
    assert state.keys() == {"logits.0.weight", "mean_E", "variance_E"}
    torch.testing.assert_close(state["mean_E"], torch.tensor([0.4, -2.0]))
    torch.testing.assert_close(state["variance_E"], torch.tensor([0.9 + 0.8, 0.9 + 20.0]))
    before = {name: value.clone() for name, value in state.items()}
    alone = 3 * torch.tensor([[(2 - 0.4) / 1.7**0.5, (-10 + 2) / 20.9**0.5]])
    torch.testing.assert_close(gate(z_BZ[:1]), alone, rtol=1e-4, atol=0)  # one image has no variance
    torch.testing.assert_close(gate.eval()(z_BZ)[:1], alone, rtol=1e-4, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in gate.state_dict().items())


def test_the_attentive_gate_by_hand() -> None:
    gate = AttentiveGate(latent_dim=2, hidden=(), hidden_size=3, projection=4)
    with torch.no_grad():
        gate.query[0].weight.copy_(torch.eye(4)[:, :2])  # q = (z_0, z_1, 0, 1)
        gate.query[0].bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
        gate.key.weight.copy_(torch.eye(4)[:, :3].roll(1, dims=0))  # k = (0, h_0, h_1, h_2)
    hidden_EBM = torch.tensor([[[1.0, 2.0, 3.0]], [[-1.0, 5.0, 0.5]]])
    logit_BE = gate(torch.tensor([[7.0, 4.0]]), hidden_EBM)
    torch.testing.assert_close(logit_BE, torch.tensor([[4 * 1 + 3, 4 * -1 + 0.5]]) / 2)


@pytest.mark.parametrize("decoder", ["lite", "cp"])
def test_hidden_layers_are_what_a_decoder_begins_with(decoder: str) -> None:
    experts = build_model(ModelSpec(num_experts=2, latent_dim=1, decoder=decoder, encoder="lite"), SHAPE, 0).experts
    z_BZ = torch.tensor([[0.0], [1.0], [3.0]])
    if isinstance(experts, CPExpertBank):
        a_ER, u_MR, v_RY = experts.expert_ER, experts.initial_MR, experts.latent_RY
        weight_EM, bias_EM = (torch.stack([u_MR @ (a_R * v_R) for a_R in a_ER]) for v_R in v_RY.t())
    else:
        assert isinstance(experts, ExpertBank)
        weight_EM, bias_EM = experts.linear_weight[..., 0], experts.linear_bias
    expected_EBM = torch.stack([bias_EM, weight_EM + bias_EM, 3 * weight_EM + bias_EM], dim=1)
    torch.testing.assert_close(experts.hidden(z_BZ), expected_EBM)


def test_an_image_meets_the_hidden_layers_of_all_experts_behind_an_attentive_gate() -> None:
    """8x8 pixels: a lite expert has a map of 8 x 2 x 2; the gate is a query of 3 and keys from 32 to 3."""
    fields = {"num_experts": E, "latent_dim": Z, "gate_hidden": (), "encoder": "lite"}
    mlp, attentive = (
        model_cost(ModelSpec.model_validate(fields | {"gate": gate}), SHAPE)
        for gate in ("mlp", {"name": "attentive", "projection": 3})
    )
    gate_params, gate_flops = (Z * 3 + 3 + 32 * 3) - (Z * E + E), 2 * (Z * 3 + E * (32 * 3 + 3) - Z * E)
    assert attentive.params_total - mlp.params_total == gate_params
    assert attentive.params_active - mlp.params_active == gate_params + (E - 1) * (Z * 32 + 32)
    assert attentive.flops_soft - mlp.flops_soft == gate_flops
    assert attentive.flops_hard - mlp.flops_hard == gate_flops + (E - 1) * 2 * Z * 32
    assert mlp.flops_train_expert - attentive.flops_train_expert == 3 * 2 * Z * 32  # it is there already


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.gate": "batchnorm"}, "model.gate.name: 'batchnorm' is none of mlp, cosine, batch_norm"),
        ({"model.gate": {"name": "batch_norm", "scale": 0}}, "model.gate.scale: must be above 0"),
        ({"model.gate": "batch_norm", "resources.workers": 2}, "set resources.workers to 1 or choose another gate"),
        ({"model.gate": "attentive", "modifiers.orthogonal.weight": 1}, "the gate attentive has none"),
        ({"model.gate": "attentive", "model.decoder": "a.b:C"}, "which a plug-in (a.b:C) does not show"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(StudyError) as raised:
        trial_with(TrialSpec(), values)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


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
