"""Encoders and decoders of plug-ins: built, counted, trained and resumed like the built-in ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from smoe_ray import plugins
from smoe_ray.errors import PluginError
from smoe_ray.model import build_model, model_cost
from smoe_ray.model.architectures import decoder_architecture, encoder_architecture
from smoe_ray.spec import ModelSpec
from support.plugin_packages import importable, write_package

SOURCE = """
import math
from pydantic import BaseModel
from torch import nn
from smoe_ray.model import Encoded


class Encoder(nn.Module):
    class Spec(BaseModel):
        hidden: int = 6

    def __init__(self, spec, image_shape, latent_dim):
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), spec.hidden))
        self.mu = nn.Linear(spec.hidden, latent_dim)
        self.logvar = nn.Linear(spec.hidden, latent_dim)

    def forward(self, image_BHW):
        return Encoded(self.mu(self.hidden(image_BHW)), self.logvar(self.hidden(image_BHW)))


class Decoder(nn.Sequential):
    class Spec(BaseModel):
        pass

    def __init__(self, spec, image_shape, latent_dim):
        super().__init__(nn.Linear(latent_dim, math.prod(image_shape)), nn.Sigmoid())
"""
SHAPE = (1, 12, 20)
PIXELS = 12 * 20
Z, HIDDEN, E = 3, 6, 4
SPEC = ModelSpec.model_validate(
    {
        "encoder": "layers.of:Encoder",
        "decoder": "layers.of:Decoder",
        "latent_dim": Z,
        "num_experts": E,
        "gate_hidden": [],
    }
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(plugins.ALLOWED, "layers")
    with importable(tmp_path, "layers"):
        yield tmp_path


def test_the_cost_is_that_of_the_layers(folder: Path) -> None:
    write_package(folder, "layers", {"of": SOURCE})
    cost = model_cost(SPEC, SHAPE)
    encoder = PIXELS * HIDDEN + HIDDEN + 2 * (HIDDEN * Z + Z)
    gate = Z * E + E
    expert = Z * PIXELS + PIXELS
    assert (cost.params_total, cost.params_active) == (encoder + gate + E * expert, encoder + gate + expert)
    # The hidden layer is applied twice, as it is written.
    shared = 2 * (2 * PIXELS * HIDDEN + 2 * HIDDEN * Z + Z * E)
    assert (cost.flops_hard, cost.flops_soft) == (shared + 2 * Z * PIXELS, shared + E * 2 * Z * PIXELS)
    # Backward: the weights' and the input's gradient of each layer, but no one asks for the images'.
    images = 2 * 2 * PIXELS * HIDDEN
    assert cost.flops_train == 3 * cost.flops_soft - images
    assert cost.flops_train_hard == 3 * cost.flops_hard - images


def test_its_memory_is_what_autograd_keeps(folder: Path) -> None:
    write_package(folder, "layers", {"of": SOURCE})
    # The hidden layer is applied twice; what comes out counts as well.
    assert encoder_architecture(SPEC.encoder).activations(SHAPE, Z).kept == PIXELS + 2 * HIDDEN + 2 * Z
    # Of a decoder: the latent vector, and the image, which the sigmoid keeps.
    assert decoder_architecture(SPEC.decoder).activations(SHAPE, Z).kept == Z + PIXELS


def test_the_model_is_made_of_them(folder: Path) -> None:
    write_package(folder, "layers", {"of": SOURCE})
    model = build_model(SPEC, SHAPE, seed=3)
    assert sum(parameter.numel() for parameter in model.parameters()) == model_cost(SPEC, SHAPE).params_total
    image_BHW = torch.rand(5, 12, 20)
    decoded = model(image_BHW, None)
    hard = model(image_BHW, None, decodes="chosen")
    assert decoded.image_EBP.shape == (E, 5, PIXELS)
    expected = decoded.image_EBP[decoded.logit_BE.argmax(dim=1), torch.arange(5)]
    torch.testing.assert_close(hard.chosen_BP, expected)
    first, second = (decoder[0].weight for decoder in list(model.experts.decoders)[:2])
    assert not torch.equal(first, second)
    again = build_model(SPEC, SHAPE, seed=3).state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in model.state_dict().items())


def test_counting_leaves_the_random_numbers_alone(folder: Path) -> None:
    write_package(folder, "layers", {"of": SOURCE})
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    model_cost(SPEC, SHAPE)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("replaced", "by", "expected"),
    [
        ("return Encoded(", "return (", "Encoder.forward gives tuple, not smoe_ray.model.Encoded"),
        ("nn.Linear(spec.hidden, latent_dim)", "nn.Linear(spec.hidden, 7)", "two tensors of shape (B, 3)"),
        ("nn.Linear(latent_dim, math.prod(image_shape))", "nn.Linear(latent_dim, 9)",
         "Decoder.forward gives a tensor of shape (1, 9), not a tensor of B images of 240 pixels"),
        ("return Encoded(", "return Encoded(1 / 0, ", "of.py:19: ZeroDivisionError: division by zero"),
        ("class Decoder(nn.Sequential)", "class Decoder", "layers.of:Decoder failed at "),
    ],
)  # fmt: skip
def test_a_wrong_module_is_one_line(folder: Path, replaced: str, by: str, expected: str) -> None:
    assert replaced in SOURCE
    write_package(folder, "layers", {"of": SOURCE.replace(replaced, by)})
    with pytest.raises(PluginError) as raised:
        model_cost(SPEC, SHAPE)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)
