"""Counted cost against real parameters and torch's own FLOP counter on the textbook model."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smoe_ray.errors import StudyError
from smoe_ray.model import build_model, model_cost
from smoe_ray.model.architectures import encoder_architecture
from smoe_ray.spec import ImageShape, ModelSpec
from smoe_ray.spec.architectures import DECODERS, ENCODERS
from support.textbook_model import Textbook

B = 2


@pytest.fixture(
    params=[(1, 28, 28), (3, 28, 28), (1, 16, 16), (3, 16, 16), (1, 32, 32), (3, 32, 32), (2, 12, 20)],
    ids=lambda shape: "x".join(map(str, shape)),
)
def image_shape(request: pytest.FixtureRequest) -> ImageShape:
    shape: ImageShape = request.param
    return shape


@pytest.fixture(
    params=[*product(ENCODERS, DECODERS, [3]), ("lite", "lite", 1)],
    ids=lambda param: "-".join(map(str, param)),
)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    encoder, decoder, num_experts = request.param
    hidden = (6, 4) if num_experts > 1 else ()
    return ModelSpec(encoder=encoder, decoder=decoder, num_experts=num_experts, latent_dim=5, gate_hidden=hidden)


def test_parameters(spec: ModelSpec, image_shape: ImageShape) -> None:
    model, textbook = build_model(spec, image_shape, seed=0), Textbook(spec, image_shape)
    cost = model_cost(spec, image_shape)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert cost.params_total == total == sum(parameter.numel() for parameter in textbook.parameters())
    expert = sum(parameter.numel() for parameter in textbook.decoders[0].parameters())
    assert cost.params_active == total - (spec.num_experts - 1) * expert


def test_flops(spec: ModelSpec, image_shape: ImageShape) -> None:
    textbook, cost = Textbook(spec, image_shape), model_cost(spec, image_shape)
    image_BHW, noise_BZ = torch.rand(B, *image_shape), torch.randn(B, 5)
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


def test_flops_of_a_hard_training_step(spec: ModelSpec, image_shape: ImageShape) -> None:
    # The chosen expert's gradient never reaches the gate; the cross-entropy against the label does.
    textbook = Textbook(spec, image_shape)
    image_BHW, noise_BZ = torch.rand(1, *image_shape), torch.randn(1, 5)
    with FlopCounterMode(display=False) as counter:
        mu_BZ, logvar_BZ = textbook.encode(image_BHW)
        z_BZ = mu_BZ + (logvar_BZ / 2).exp() * noise_BZ
        loss = textbook.decoders[0](z_BZ).sum() + torch.nn.functional.cross_entropy(
            textbook.gate(z_BZ), torch.zeros(1, dtype=torch.long)
        )
        loss.backward()
    assert counter.get_total_flops() == model_cost(spec, image_shape).flops_train_hard


def test_the_papers_model_by_hand() -> None:
    """Encoder medium, decoder lite, Z = 32, gate 64-32, E = 10."""
    encoder = (9 * 1 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 128 + 128) + 2 * (6272 * 32 + 32)
    gate = (32 * 64 + 64) + (64 * 32 + 32) + (32 * 10 + 10)
    expert = (32 * 392 + 392) + (9 * 8 * 16 + 16) + (9 * 16 + 1)
    cost = model_cost(ModelSpec(), (1, 28, 28))
    assert cost.params_total == encoder + gate + 10 * expert
    assert cost.params_active == encoder + gate + expert
    encoder_macs = 784 * 9 * 32 + 196 * 9 * 32 * 64 + 49 * 9 * 64 * 128 + 2 * 6272 * 32
    gate_macs = 32 * 64 + 64 * 32 + 32 * 10
    expert_macs = 32 * 392 + 196 * 9 * 8 * 16 + 784 * 9 * 16
    assert cost.flops_hard == 2 * (encoder_macs + gate_macs + expert_macs)
    assert cost.flops_soft == 2 * (encoder_macs + gate_macs + 10 * expert_macs)
    assert cost.flops_train == 3 * cost.flops_soft - 2 * 784 * 9 * 32


def test_an_encoder_takes_images_of_any_size() -> None:
    encoder = encoder_architecture("medium")
    module = encoder.build((1, 13, 7), latent_dim=5)
    assert encoder.cost((1, 13, 7), latent_dim=5).params == sum(parameter.numel() for parameter in module.parameters())
    assert module(torch.rand(B, 13, 7)).mu_BZ.shape == (B, 5)


@pytest.mark.parametrize("shape", [(1, 30, 28), (3, 28, 30)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_size_that_a_decoder_cannot_make_is_one_line(decoder: str, shape: ImageShape) -> None:
    spec = ModelSpec(decoder=decoder)
    message = rf"model\.decoder: images are {shape[1]}x{shape[2]} pixels; this decoder needs .* multiples of 4: choose"
    with pytest.raises(StudyError, match=message):
        model_cost(spec, shape)
    with pytest.raises(StudyError, match=message):
        build_model(spec, shape, seed=0)
