"""Exciting inputs and hidden maps of models whose answers are planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smoe_ray.model import SMoEVAE, build_model
from smoe_ray.model.architectures import Encoded
from smoe_ray.model.plugin_architectures import ModuleExperts
from smoe_ray.results.probe import MOST_HIDDEN
from smoe_ray.spec import ModelSpec
from smoe_ray.training.probe import exciting, responses
from smoe_ray.training.probe.exciting import Usual, exciting_images, exciting_latents, noise_starts, usual
from smoe_ray.training.probe.responses import hidden_maps
from smoe_ray.training.probe.targets import ADVANTAGE, GATE_LOGIT, errors, lead, log_odds

SIDE, LATENT = 12, 3
NO_LIMIT = Usual(0.5, ink=100.0, variation=100.0)


class LinearEncoder(nn.Module):
    """mu = W x, W of smooth patterns."""

    def __init__(self) -> None:
        super().__init__()
        down, right = torch.meshgrid(torch.linspace(0, math.pi, SIDE), torch.linspace(0, math.pi, SIDE), indexing="ij")
        pattern = [torch.cos(right), torch.cos(down), torch.cos(down) * torch.cos(right)]
        self.weight_ZP = torch.stack([each.flatten() for each in pattern])

    def forward(self, image_NHW: Tensor) -> Encoded:
        mu_NZ = image_NHW.flatten(1) @ self.weight_ZP.t()
        return Encoded(mu_NZ, torch.zeros_like(mu_NZ))


class LinearGate(nn.Module):
    weight_EZ = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]])

    def forward(self, z_NZ: Tensor) -> Tensor:
        return z_NZ @ self.weight_EZ.t()


class Bars(nn.Module):
    """Expert 0 draws what the first latent says, expert 1 its negative: their squared distance is P (z_0 / 5)^2."""

    num_experts = 2

    def forward(self, z_NZ: Tensor) -> Tensor:
        own_NP = 0.5 + 0.1 * z_NZ[:, :1].expand(-1, SIDE * SIDE)
        return torch.stack([own_NP, 1 - own_NP])


@pytest.fixture(scope="module")
def planted() -> SMoEVAE:
    """Two experts with a linear gate over a linear encoder: the log odds of expert 0 are linear in the pixels."""
    model = build_model(ModelSpec(num_experts=2, encoder="lite", latent_dim=LATENT), (1, SIDE, SIDE), seed=0)
    model.encoder, model.gate, model.experts = LinearEncoder(), LinearGate(), Bars()
    return model.eval().requires_grad_(False)


def pixel_weight() -> Tensor:
    """Gradient of the log odds of expert 0 by the pixels."""
    return (LinearGate.weight_EZ[0] - LinearGate.weight_EZ[1]) @ LinearEncoder().weight_ZP


def climbed(model: SMoEVAE, look: Usual) -> exciting.ExcitingImages:
    start_ESI = noise_starts((1, SIDE, SIDE), 2, look.background, torch.Generator().manual_seed(0))
    scale_E = pixel_weight().norm().expand(2) / 12**0.5  # over images of independent uniform pixels
    return exciting_images(model, GATE_LOGIT, scale_E, look, start_ESI)


@pytest.fixture(scope="module")
def unlimited(planted: SMoEVAE) -> exciting.ExcitingImages:
    return climbed(planted, NO_LIMIT)


def test_the_exciting_image_reaches_the_planted_optimum(unlimited: exciting.ExcitingImages) -> None:
    weight_P = pixel_weight()
    for sign, value_S, best_I in zip((1, -1), unlimited.value_ES, unlimited.best_EI, strict=True):
        optimum = float((sign * weight_P).clamp_min(0).sum())
        assert 0.95 * optimum < float(value_S.min()) <= float(value_S.max()) <= optimum
        assert float((sign * weight_P) @ best_I.flatten()) == pytest.approx(float(value_S.max()), rel=1e-5)


def test_ink_stays_within_what_images_have(planted: SMoEVAE, unlimited: exciting.ExcitingImages) -> None:
    look = Usual(background=0.0, ink=0.1, variation=100.0)
    found = climbed(planted, look)
    ink_ES = found.image_ESI.mean(dim=(2, 3, 4))
    assert 0.08 < float(ink_ES.min()) <= float(ink_ES.max()) < 0.115
    assert (found.value_ES < unlimited.value_ES).all()


def test_variation_stays_within_what_images_have(planted: SMoEVAE) -> None:
    look = Usual(background=0.5, ink=100.0, variation=0.05)
    x = climbed(planted, look).image_ESI
    variation_ES = sum(x.diff(dim=axis).abs().mean(dim=(2, 3, 4)) for axis in (3, 4))
    assert isinstance(variation_ES, Tensor)
    assert float(variation_ES.max()) < 0.06


def test_what_images_look_like() -> None:
    image_BI = torch.zeros(100, 1, 4, 4)
    image_BI[:, :, :, 2:] = (torch.arange(100) / 100)[:, None, None, None]  # one edge, in one of three places
    found = usual(image_BI)
    assert found.background == 0.0
    assert found.ink == pytest.approx(0.5 * 0.891)
    assert found.variation == pytest.approx(0.891 / 3)
    assert usual(torch.full((3, 1, 4, 4), 0.25)).ink > 0  # it is divided by


def test_the_exciting_latent_is_the_closed_form(planted: SMoEVAE) -> None:
    mixed_ZZ = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.3, 1.0]])
    mean_Z = torch.tensor([1.0, -2.0, 0.5])
    mu_BZ = mean_Z + torch.randn(4_000, LATENT, generator=torch.Generator().manual_seed(1)) @ mixed_ZZ.t()
    found = exciting_latents(planted, GATE_LOGIT, mu_BZ, (1, SIDE, SIDE), torch.Generator().manual_seed(0))
    slope_Z = LinearGate.weight_EZ[0] - LinearGate.weight_EZ[1]
    along_Z = mu_BZ.t().cov() @ slope_Z
    step_Z = math.sqrt(LATENT) * along_Z / (slope_Z @ along_Z).sqrt()
    for sign, z_Z, value in zip((1, -1), found.z_EZ, found.value_E, strict=True):
        best_Z = mu_BZ.mean(dim=0) + sign * step_Z
        torch.testing.assert_close(z_Z, best_Z, atol=0.02, rtol=0)
        assert float(value) == pytest.approx(float(sign * slope_Z @ best_Z), rel=1e-3)


def test_the_latent_of_greatest_advantage_is_where_the_experts_images_part(planted: SMoEVAE) -> None:
    mu_BZ = torch.randn(2_000, LATENT, generator=torch.Generator().manual_seed(1))
    found = exciting_latents(planted, ADVANTAGE, mu_BZ, (1, SIDE, SIDE), torch.Generator().manual_seed(0))
    farthest = math.sqrt(LATENT) * float(mu_BZ[:, 0].std())  # from a mean of nearly 0
    assert found.z_EZ[:, 0].abs().tolist() == pytest.approx([farthest, farthest], rel=0.05)
    by_hand = SIDE**2 * (0.2 * found.z_EZ[:, 0]) ** 2
    torch.testing.assert_close(found.value_E, by_hand)


def test_leads_and_log_odds() -> None:
    assert lead(torch.tensor([[1.0, 3.0, 2.5], [4.0, 4.0, 9.0]])).tolist() == [[1.5, -2.0, -1.5], [0.0, 0.0, -5.0]]
    logit_NE = torch.tensor([[0.3, -1.0, 2.0], [200.0, 0.0, -200.0]])
    found = log_odds(logit_NE)
    torch.testing.assert_close(found[0], torch.logit(torch.softmax(logit_NE[0], dim=0)))
    assert found[1].tolist() == [200.0, -200.0, -400.0]  # where the probability rounds to 1
    torch.testing.assert_close(log_odds(logit_NE + torch.tensor([[5.0], [-3.0]])), found)


def test_errors_are_those_of_each_expert_alone() -> None:
    image_NP, decoded_ENP = torch.rand(3, 7), torch.rand(2, 3, 7)
    by_hand = [[((decoded_ENP[e, n] - image_NP[n]) ** 2).sum() for e in range(2)] for n in range(3)]
    torch.testing.assert_close(errors(image_NP, decoded_ENP), torch.tensor(by_hand))


# --- hidden maps ------------------------------------------------------------------------------------------------------


def images(count: int, side: int = 28) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)


@pytest.mark.parametrize("decoder", ["lite", "medium", {"name": "cp", "layers": "lite", "rank": 3}])
def test_hidden_maps_are_what_the_rest_of_the_decoder_reads(decoder: object) -> None:
    spec = ModelSpec.model_validate({"num_experts": 3, "encoder": "lite", "latent_dim": 4, "decoder": decoder})
    model = build_model(spec, (1, 28, 28), seed=0).eval().requires_grad_(False)
    z_BZ = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    bank = model.experts
    convolutions = [parameters[2:] for parameters in bank._parameters_of_each()]
    for expert, map_BCHW in enumerate(bank.first_maps(z_BZ)):
        x = map_BCHW
        for number, (weight, bias) in enumerate(
            zip(convolutions[expert][2::2], convolutions[expert][3::2], strict=True)
        ):
            x = torch.nn.functional.elu(x) if number else x
            if bank.layers.layers[number + 1].kind == "upsampled":
                x = torch.nn.functional.interpolate(x, scale_factor=2)
            x = torch.nn.functional.conv2d(x, weight, bias, padding=1)
        torch.testing.assert_close(torch.sigmoid(x).flatten(1), bank(z_BZ)[expert], atol=1e-5, rtol=1e-4)


def test_hidden_maps_are_averaged_over_areas() -> None:
    model = build_model(ModelSpec(num_experts=3, encoder="lite"), (1, 28, 28), seed=0).eval().requires_grad_(False)
    found = hidden_maps(model, images(5))
    assert found is not None
    assert found.kind == "16x14x14, averaged over areas to 16x4x4"
    assert found.hidden_EBH.shape == (3, 5, MOST_HIDDEN)
    mu_BZ = model.encoder(torch.from_numpy(images(5)).float() / 255).mu_BZ
    whole = list(model.experts.first_maps(mu_BZ))[2]
    corner = whole[4, 3, :4, :4].mean()  # of 14 pixels, four areas: the first has rows 0 to 3
    assert float(found.hidden_EBH[2, 4].reshape(16, 4, 4)[3, 0, 0]) == pytest.approx(float(corner), abs=1e-3)


def test_hidden_maps_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(ModelSpec(num_experts=3, encoder="lite"), (1, 28, 28), seed=0).eval().requires_grad_(False)
    monkeypatch.setattr(responses, "MOST_HIDDEN_BYTES", 2 * 3 * 5 * 70)
    found = hidden_maps(model, images(5))
    assert found is not None
    assert found.hidden_EBH.shape == (3, 5, 16 * 2 * 2)
    monkeypatch.setattr(responses, "MOST_HIDDEN_BYTES", 2 * 3 * 5 * 15)  # less than a value per channel
    assert hidden_maps(model, images(5)) is None


class Vector(nn.Module):
    """A plug-in's decoder, whose hidden layer is a vector."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def hidden(self, z_BZ: Tensor) -> Tensor:
        return self.sign * z_BZ.repeat(1, 200)


def test_hidden_layers_of_plug_ins_are_their_own(planted: SMoEVAE) -> None:
    assert hidden_maps(planted, images(5, SIDE)) is None
    model = build_model(ModelSpec(num_experts=2, encoder="lite", latent_dim=LATENT), (1, SIDE, SIDE), seed=0)
    model.encoder, model.experts = LinearEncoder(), ModuleExperts([Vector(1), Vector(-1)])
    found = hidden_maps(model, images(5, SIDE))
    assert found is not None
    assert found.kind == "256 means over neighbours of 600"
    assert found.hidden_EBH.shape == (2, 5, 256)
    np.testing.assert_array_equal(found.hidden_EBH[0], -found.hidden_EBH[1])
