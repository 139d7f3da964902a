"""Counted cost against real parameters and torch's own FLOP counter on the textbook model."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smoe_ray.model import build_model, model_cost
from smoe_ray.spec import ModelSpec
from support.textbook_model import Textbook

B = 2


@pytest.fixture(
    params=[*product(["lite", "medium"], ["lite", "medium", "large"], [3]), ("lite", "lite", 1)],
    ids=lambda param: "-".join(map(str, param)),
)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    encoder, decoder, num_experts = request.param
    hidden = (6, 4) if num_experts > 1 else ()
    return ModelSpec(encoder=encoder, decoder=decoder, num_experts=num_experts, latent_dim=5, gate_hidden=hidden)


def test_parameters(spec: ModelSpec) -> None:
    model, textbook = build_model(spec, seed=0), Textbook(spec)
    cost = model_cost(spec)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert cost.params_total == total == sum(parameter.numel() for parameter in textbook.parameters())
    expert = sum(parameter.numel() for parameter in textbook.decoders[0].parameters())
    assert cost.params_active == total - (spec.num_experts - 1) * expert


def test_flops(spec: ModelSpec) -> None:
    textbook, cost = Textbook(spec), model_cost(spec)
    image_BHW, noise_BZ = torch.rand(B, 28, 28), torch.randn(B, 5)
    for forward, flops, flops_train in (
        (textbook.hard, cost.flops_hard, cost.flops_train_hard),
        (textbook.soft, cost.flops_soft, cost.flops_train),
    ):
        with FlopCounterMode(display=False) as counter:
            reconstruction = forward(image_BHW, noise_BZ)
            assert counter.get_total_flops() == B * flops
            if forward == textbook.soft:
                reconstruction.sum().backward()
                assert counter.get_total_flops() == B * flops_train


def test_flops_of_a_hard_training_step(spec: ModelSpec) -> None:
    # The chosen expert's gradient never reaches the gate; the cross-entropy against the label does.
    textbook = Textbook(spec)
    image_BHW, noise_BZ = torch.rand(1, 28, 28), torch.randn(1, 5)
    with FlopCounterMode(display=False) as counter:
        mu_BZ, logvar_BZ = textbook.encode(image_BHW)
        z_BZ = mu_BZ + (logvar_BZ / 2).exp() * noise_BZ
        loss = textbook.decoders[0](z_BZ).sum() + torch.nn.functional.cross_entropy(
            textbook.gate(z_BZ), torch.zeros(1, dtype=torch.long)
        )
        loss.backward()
    assert counter.get_total_flops() == model_cost(spec).flops_train_hard


def test_the_papers_model_by_hand() -> None:
    """Encoder medium, decoder lite, Z = 32, gate 64-32, E = 10."""
    encoder = (9 * 1 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 128 + 128) + 2 * (6272 * 32 + 32)
    gate = (32 * 64 + 64) + (64 * 32 + 32) + (32 * 10 + 10)
    expert = (32 * 392 + 392) + (9 * 8 * 16 + 16) + (9 * 16 + 1)
    cost = model_cost(ModelSpec())
    assert cost.params_total == encoder + gate + 10 * expert
    assert cost.params_active == encoder + gate + expert
    encoder_macs = 784 * 9 * 32 + 196 * 9 * 32 * 64 + 49 * 9 * 64 * 128 + 2 * 6272 * 32
    gate_macs = 32 * 64 + 64 * 32 + 32 * 10
    expert_macs = 32 * 392 + 196 * 9 * 8 * 16 + 784 * 9 * 16
    assert cost.flops_hard == 2 * (encoder_macs + gate_macs + expert_macs)
    assert cost.flops_soft == 2 * (encoder_macs + gate_macs + 10 * expert_macs)
    assert cost.flops_train == 3 * cost.flops_soft - 2 * 784 * 9 * 32
