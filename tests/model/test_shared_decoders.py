"""Decoders beside a shared one: what two banks make, one by one; their cost; a trial.

Shapes: B images, E experts, Z latent, P pixels.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from smoe_ray.model.architectures import decoder_architecture
from smoe_ray.model.bank import ExpertBank, SharedExpertBank
from smoe_ray.spec import ImageShape, ModelSpec, TrialSpec, trial_with
from smoe_ray.spec.architectures import DECODERS
from smoe_ray.spec.decoders import SharedDecoderSpec
from smoe_ray.testing.objectives import TINY, noise_images
from smoe_ray.training import Runtime, fit
from support.textbook_model import make_decoder

B, E, Z = 4, 3, 5


@pytest.mark.parametrize(("layers", "image_shape"), [("lite", (1, 12, 20)), ("large", (3, 8, 12))])
def test_an_image_is_the_mean_of_both(layers: str, image_shape: ImageShape) -> None:
    torch.manual_seed(0)
    bank = SharedExpertBank(DECODERS[layers], image_shape, E, Z).double()
    own = ExpertBank(DECODERS[layers], image_shape, E, Z).double()
    own.load_state_dict({name: value for name, value in bank.state_dict().items() if not name.startswith("shared.")})
    z_BZ = torch.randn(B, Z, dtype=torch.float64)
    expected_EBP = (own(z_BZ) + bank.shared(z_BZ)) / 2
    torch.testing.assert_close(bank(z_BZ), expected_EBP)
    torch.testing.assert_close(bank.chosen(z_BZ, torch.tensor([2, 0, 2, 2])), expected_EBP[[2, 0, 2, 2], range(B)])
    sure_BE = torch.eye(E, dtype=torch.float64)[[2, 0, 2, 2]]  # the mean of one expert's parameters alone
    torch.testing.assert_close(bank.merged(z_BZ, sure_BE), expected_EBP[[2, 0, 2, 2], range(B)])
    torch.testing.assert_close(bank.hidden(z_BZ), own.hidden(z_BZ))

    cost = decoder_architecture(SharedDecoderSpec(layers=layers)).cost(image_shape, Z)
    assert cost.of(E).params == sum(parameter.numel() for parameter in bank.parameters())
    assert cost.shared == cost.each


@pytest.mark.parametrize("count", [1, E])
def test_the_shared_decoder_costs_once_for_an_image(count: int) -> None:
    """By torch's counter of the decoders as they are defined."""
    decoders = [nn.Sequential(*make_decoder("large", Z, (1, 28, 28))) for _ in range(count + 1)]
    cost = decoder_architecture(SharedDecoderSpec(layers="large")).cost((1, 28, 28), Z).of(count)
    with FlopCounterMode(display=False) as counter:
        total = torch.stack([decoder(torch.randn(B, Z, requires_grad=True)) for decoder in decoders]).sum()
        assert counter.get_total_flops() == B * cost.flops
        total.backward()
    assert counter.get_total_flops() == B * (cost.flops + cost.flops_backward)


def test_what_is_shared_is_learnt_from_every_image() -> None:
    """With the fine-grained, bias-balanced routing of its source: two experts an image beside the shared one."""
    changes = {"model.decoder": "shared", "objective": {"name": "loss_free", "top_k": 2}}
    trial = trial_with(TrialSpec(), TINY | changes)
    assert trial.model.decoder == SharedDecoderSpec(layers="lite")
    assert ModelSpec.model_validate_json(trial.model.model_dump_json()) == trial.model
    first, *_, last = (epoch.row for epoch in fit(trial, noise_images(), Runtime("cpu")))
    assert last["train.reconstruction"] < first["train.reconstruction"]
    assert last["cost.params_total"] - last["cost.params_active"] == 2 * _of_one(trial)


def _of_one(trial: TrialSpec) -> int:
    """Parameters of one lite decoder: of E = 3, an image meets one and the shared one."""
    return decoder_architecture("lite").cost((1, 28, 28), trial.model.latent_dim).each.params
