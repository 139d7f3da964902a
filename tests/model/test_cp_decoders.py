"""Decoders in CP form: what torch modules make of the factors, one after another; their cost; how a study writes them.

Shapes: B images, E experts, Z latent, M numbers of the initial map, R rank, P pixels.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from smoe_ray.errors import StudyError
from smoe_ray.model import model_cost
from smoe_ray.model.architectures import decoder_architecture
from smoe_ray.model.bank import CPExpertBank
from smoe_ray.spec import ImageShape, ModelSpec, TrialSpec, trial_with
from smoe_ray.spec.architectures import DECODERS
from smoe_ray.spec.decoders import CPDecoderSpec
from support.textbook_model import make_decoder

B, E, Z, R = 4, 3, 5, 2


class Factors(nn.Module):
    """Latent vector -> R numbers -> times the expert's own -> initial map -> the convolutions of all experts."""

    def __init__(self, bank: CPExpertBank, layers: str, image_shape: ImageShape) -> None:
        super().__init__()
        (first, *others), R = make_decoder(layers, Z, image_shape), bank.expert_ER.shape[1]
        self.from_latent, self.to_map = nn.Linear(Z, R), nn.Linear(R, first.out_features, bias=False)
        self.expert_ER, self.convolutions = nn.Parameter(bank.expert_ER.detach().clone()), nn.Sequential(*others)
        convolutions = (each for pair in zip(bank.conv_weights, bank.conv_biases, strict=True) for each in pair)
        values = [bank.latent_RY[:, :-1], bank.latent_RY[:, -1], bank.initial_MR, *convolutions]
        parameters = [*self.from_latent.parameters(), *self.to_map.parameters(), *self.convolutions.parameters()]
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)

    def forward(self, z_BZ: Tensor, count: int = E) -> Tensor:
        hidden_BR = self.from_latent(z_BZ)
        return torch.stack([self.convolutions(self.to_map(self.expert_ER[e] * hidden_BR)) for e in range(count)])


@pytest.mark.parametrize(("layers", "image_shape"), [("lite", (1, 12, 20)), ("lite", (3, 8, 8)), ("large", (3, 8, 12))])
def test_values_gradients_and_cost_are_those_of_the_factors(layers: str, image_shape: ImageShape) -> None:
    torch.manual_seed(0)
    bank = CPExpertBank(DECODERS[layers], image_shape, E, Z, R).double()
    factors = Factors(bank, layers, image_shape).double()
    z_BZ = torch.randn(B, Z, dtype=torch.float64, requires_grad=True)
    expected_EBP, image_EBP = factors(z_BZ), bank(z_BZ)
    torch.testing.assert_close(image_EBP, expected_EBP)
    torch.testing.assert_close(bank.chosen(z_BZ, torch.tensor([2, 0, 2, 2])), expected_EBP[[2, 0, 2, 2], range(B)])
    weight_BE = torch.rand(B, E, dtype=torch.float64).softmax(
        dim=1
    )  # the mean layer has the mean of the experts' numbers
    merged_BR = weight_BE @ factors.expert_ER * factors.from_latent(z_BZ)
    torch.testing.assert_close(bank.merged(z_BZ, weight_BE), factors.convolutions(factors.to_map(merged_BR)))
    weight_EBP = torch.randn_like(image_EBP)
    for mine, theirs in ((bank.expert_ER, factors.expert_ER), (bank.initial_MR, factors.to_map.weight), (z_BZ, z_BZ)):
        [actual] = torch.autograd.grad((image_EBP * weight_EBP).sum(), mine, retain_graph=True)
        [expected] = torch.autograd.grad((expected_EBP * weight_EBP).sum(), theirs, retain_graph=True)
        torch.testing.assert_close(actual, expected)

    cost = decoder_architecture(CPDecoderSpec(layers=layers, rank=R)).cost(image_shape, Z)
    assert cost.of(E).params == sum(parameter.numel() for parameter in bank.parameters())
    assert cost.each.params == R
    for count in (1, E):
        with FlopCounterMode(display=False) as counter:
            image = factors(z_BZ, count)
            assert counter.get_total_flops() == B * cost.of(count).flops
            image.sum().backward()
        assert counter.get_total_flops() == B * (cost.of(count).flops + cost.of(count).flops_backward)


def test_the_papers_lite_decoders_by_hand() -> None:
    """Z = 32, E = 10, R = 64 against ten of 14,249 parameters and 2 (32 * 392 + 196 * 1152 + 784 * 144) FLOPs."""
    dense, cp = (model_cost(ModelSpec(decoder=decoder), (1, 28, 28)) for decoder in ("lite", CPDecoderSpec()))
    shared = (33 * 64) + (392 * 64) + (9 * 8 * 16 + 16) + (9 * 16 + 1)
    assert dense.params_total - cp.params_total == 10 * 14_249 - (shared + 10 * 64)
    assert dense.params_active - cp.params_active == 14_249 - (shared + 64)
    assert dense.flops_soft - cp.flops_soft == 2 * (10 * 32 * 392 - (32 * 64 + 10 * 64 * 392))
    assert dense.flops_hard - cp.flops_hard == 2 * (32 * 392 - (32 * 64 + 64 * 392))
    assert dense.flops_train_expert - cp.flops_train_expert == 3 * 2 * (32 * 392 - 64 * 392)  # forward, twice backward


def test_a_name_is_short_for_a_mapping() -> None:
    spec = ModelSpec.model_validate({"decoder": "cp"})
    assert spec.decoder == CPDecoderSpec(layers="lite", rank=64)
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    trial = trial_with(TrialSpec(model=spec), {"model.decoder.rank": 8})
    assert trial.model.decoder == CPDecoderSpec(rank=8)
    assert trial_with(trial, {"model.decoder": "medium"}).model.decoder == "medium"


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ("cpp", "'cpp' is none of lite, medium, large, cp, shared; did you mean 'cp'?"),
        ({"name": "cp", "rank": 0}, "model.decoder.rank: must be at least 1 (value 0)"),
        ({"name": "cp", "rnk": 3}, "model.decoder.rnk: unknown key (value 3); did you mean 'rank'?"),
        ({"name": "cp", "layers": "cp"}, "model.decoder.layers: 'cp' is none of lite, medium, large"),
        (
            {"name": "lite", "rank": 3},
            "model.decoder: {'name': 'lite', 'rank': 3} is none of lite, medium, large, cp, shared",
        ),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(decoder: object, message: str) -> None:
    with pytest.raises(StudyError) as raised:
        trial_with(TrialSpec(), {"model.decoder": decoder})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
