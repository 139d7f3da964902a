"""Counted cost against real parameters and torch's own FLOP counter on the textbook model."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from smoe_ray.errors import StudyError
from smoe_ray.model import build_model, model_cost
from smoe_ray.model.architectures import encoder_architecture
from smoe_ray.spec import MAX_SIDE, MIN_SIDE, ImageShape, ModelSpec
from smoe_ray.spec.architectures import DECODERS, ENCODERS
from support.textbook_model import GREY, Textbook, merged_decoder

B = 2


SIDES = [(channels, side, side) for side in (16, 28, 32, 64) for channels in (1, 3)]


@pytest.fixture(params=[*SIDES, (2, 12, 20), (1, 80, 96)], ids=lambda shape: "x".join(map(str, shape)))
def image_shape(request: pytest.FixtureRequest) -> ImageShape:
    shape: ImageShape = request.param
    return shape


@pytest.fixture(
    params=[*((name, "lite", 3) for name in ENCODERS), *(("lite", name, 3) for name in DECODERS), ("lite", "lite", 1)],
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


@pytest.mark.parametrize("decoder", DECODERS)
def test_flops_of_a_training_step_with_merged_parameters(decoder: str) -> None:
    spec = ModelSpec(encoder="lite", decoder=decoder, num_experts=3, latent_dim=5, gate_hidden=())
    textbook = Textbook(spec)
    with FlopCounterMode(display=False) as counter:
        mu_BZ, logvar_BZ = textbook.encode(torch.rand(1, *GREY[1:]))
        z_BZ = mu_BZ + (logvar_BZ / 2).exp() * torch.randn(1, 5)
        merged_decoder(textbook.decoders, textbook.gate(z_BZ).softmax(dim=1)[0], z_BZ).sum().backward()
    assert counter.get_total_flops() == model_cost(spec, GREY).flops_train_merged


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


@pytest.mark.parametrize(("side", "stages"), [(8, 2), (32, 2), (33, 3), (64, 3), (65, 4), (128, 4)])
def test_medium_and_large_have_a_stage_for_each_doubling_above_32_pixels(side: int, stages: int) -> None:
    for shape in ((1, side, 128), (1, 128, side)):  # of the smaller side
        for name in ("medium", "large"):
            assert DECODERS[name].scale(shape) == 2**stages
        halvings = [one for one in ENCODERS["medium"].shapes(shape) if one.layer.stride == 2]
        assert len(halvings) == stages
        assert DECODERS["lite"].scale(shape) == 4
        assert len(ENCODERS["lite"].shapes(shape)) == 2


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("shape", [(1, 13, 7), (3, 37, 128)], ids=str)
def test_an_encoder_takes_images_of_any_size(encoder: str, shape: ImageShape) -> None:
    architecture = encoder_architecture(encoder)
    module = architecture.build(shape, latent_dim=5)
    assert architecture.cost(shape, latent_dim=5).params == sum(parameter.numel() for parameter in module.parameters())
    assert module(torch.rand(B, *shape)).mu_BZ.shape == (B, 5)


@pytest.mark.parametrize(
    ("decoder", "shape", "nearest"),
    [
        ("lite", (1, 30, 28), "28x28 and 32x28"),
        ("lite", (3, 66, 9), "64x8 and 68x12"),
        ("medium", (3, 28, 30), "28x28 and 28x32"),
        ("medium", (1, 36, 36), "32x32 and 40x40"),
        ("large", (3, 33, 40), "32x40 and 40x40"),  # 32 pixels take two stages, 33 take three
        ("large", (3, 66, 66), "64x64 and 80x80"),
        ("large", (3, 127, 9), "124x8 and 128x12"),
        ("lite", (1, 6, 6), "8x8"),  # nothing below 8 pixels
    ],
)
def test_a_size_that_a_decoder_cannot_make_is_one_line(decoder: str, shape: ImageShape, nearest: str) -> None:
    spec = ModelSpec(decoder=decoder)
    size = f"{shape[1]}x{shape[2]}"
    message = rf"model\.decoder: images are {size} pixels, .*; nearest to that it can make {nearest}: resize the images"
    with pytest.raises(StudyError, match=message) as raised:
        model_cost(spec, shape)
    assert "\n" not in str(raised.value)
    with pytest.raises(StudyError, match=message):
        build_model(spec, shape, seed=0)


@given(st.sampled_from(list(DECODERS)), st.integers(MIN_SIDE, MAX_SIDE), st.integers(MIN_SIDE, MAX_SIDE))
@settings(max_examples=10)
def test_the_sizes_named_by_a_refusal_can_be_made(decoder: str, height: int, width: int) -> None:
    try:
        DECODERS[decoder].initial_shape((3, height, width))
    except StudyError as error:
        sizes = [tuple(map(int, size.split("x"))) for size in re.findall(r"\d+x\d+", str(error))]
        (_, smaller, larger) = sizes
        assert smaller[0] <= height <= larger[0]
        assert smaller[1] <= width <= larger[1]
        for size in (smaller, larger):
            assert MIN_SIDE <= min(size) <= max(size) <= MAX_SIDE
            DECODERS[decoder].initial_shape((3, *size))
    else:
        assert all(side % 4 == 0 for side in (height, width))
