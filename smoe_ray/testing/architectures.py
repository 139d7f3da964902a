"""The contracts of encoders and of decoders.

Subclass one in a test module and name the architecture::

    class TestPerceptron(EncoderContract):
        @pytest.fixture
        def encoder(self) -> PluginEncoder:
            return PluginEncoder(name="my_package.layers:Perceptron", hidden=16)

Images are 28x28 grey; override the fixture `image_shape` for any others, such as ``(3, 32, 32)``.

Shapes: B images, E experts, Z latent, C channels, H W pixels, P = C * H * W.
"""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from smoe_ray.model.architectures import decoder_architecture, encoder_architecture
from smoe_ray.spec import ImageShape, PluginDecoder, PluginEncoder
from smoe_ray.spec.decoders import DecoderWithFields

B, E, Z = 5, 3, 4

Decoder = str | DecoderWithFields | PluginDecoder


class _ArchitectureContract:
    @pytest.fixture
    def image_shape(self) -> ImageShape:
        """(C, H, W) of the images."""
        return (1, 28, 28)

    @pytest.fixture
    def images(self, image_shape: ImageShape) -> Tensor:
        """Noise in [0, 1]: (B, H, W) where `image_shape` has one channel, else (B, C, H, W)."""
        shape = image_shape[1:] if image_shape[0] == 1 else image_shape
        return torch.rand(B, *shape, generator=torch.Generator().manual_seed(0))

    @pytest.fixture
    def latents(self) -> Tensor:
        """Latent vectors."""
        return torch.randn(B, Z, generator=torch.Generator().manual_seed(0))


class EncoderContract(_ArchitectureContract):
    """What every encoder must do; subclass it and override `encoder` (see the module)."""

    @pytest.fixture
    def encoder(self) -> str | PluginEncoder:
        """The encoder under test, as `model.encoder` has it."""
        raise NotImplementedError("override the fixture encoder")

    @pytest.fixture
    def module(self, encoder: str | PluginEncoder, image_shape: ImageShape) -> nn.Module:
        """The encoder with weights of its own, not in training."""
        return _seeded(encoder_architecture(encoder), image_shape, Z)

    def test_each_image_has_a_posterior(self, module: nn.Module, images: Tensor) -> None:
        """Mean and log variance, (B, Z), finite."""
        for output in module(images):
            assert output.shape == (B, Z)
            assert output.isfinite().all()

    def test_images_do_not_depend_on_one_another(self, module: nn.Module, images: Tensor) -> None:
        """Outside training, a batch gives what its images give one by one."""
        for whole, part in zip(module(images), module(images[:2]), strict=True):
            torch.testing.assert_close(whole[:2], part, rtol=1e-4, atol=1e-5)

    def test_every_weight_is_trained(self, module: nn.Module, images: Tensor) -> None:
        """A gradient reaches each parameter."""
        _check_gradients(module, sum(output.square().sum() for output in module.train()(images)))

    def test_weights_follow_the_seed_and_cost_what_is_said(
        self, encoder: str | PluginEncoder, module: nn.Module, image_shape: ImageShape
    ) -> None:
        """Built again under the same seed, each weight is the same; the cost has all parameters and some FLOPs."""
        again = _seeded(encoder_architecture(encoder), image_shape, Z).state_dict()
        assert all(torch.equal(value, again[name]) for name, value in module.state_dict().items())
        cost = encoder_architecture(encoder).cost(image_shape, Z)
        assert cost.params == sum(parameter.numel() for parameter in module.parameters())
        assert min(cost.flops, cost.flops_backward) > 0


class DecoderContract(_ArchitectureContract):
    """What every decoder must do; subclass it and override `decoder` (see the module)."""

    @pytest.fixture
    def decoder(self) -> Decoder:
        """The decoder under test, as `model.decoder` has it."""
        raise NotImplementedError("override the fixture decoder")

    @pytest.fixture
    def experts(self, decoder: Decoder, image_shape: ImageShape) -> nn.Module:
        """E experts with weights of their own, not in training."""
        return _seeded(decoder_architecture(decoder), image_shape, E, Z)

    def test_each_expert_makes_images(self, experts: nn.Module, latents: Tensor, image_shape: ImageShape) -> None:
        """In [0, 1], and no two experts the same."""
        image_EBP = experts(latents)
        assert image_EBP.shape == (E, B, math.prod(image_shape))
        assert image_EBP.min() >= 0
        assert image_EBP.max() <= 1
        assert not torch.equal(image_EBP[0], image_EBP[1])

    def test_the_chosen_expert_makes_what_it_makes_among_all(self, experts: nn.Module, latents: Tensor) -> None:
        """Whatever images the others get; one gets none."""
        expert_B = torch.tensor([2, 0, 2, 2, 0])
        expected_BP = experts(latents)[expert_B, torch.arange(B)]
        torch.testing.assert_close(cast(Any, experts).chosen(latents, expert_B), expected_BP, rtol=1e-4, atol=1e-5)

    def test_every_weight_is_trained(self, experts: nn.Module, latents: Tensor) -> None:
        """A gradient reaches each parameter."""
        _check_gradients(experts, experts.train()(latents).square().sum())

    def test_an_expert_with_the_parts_of_another_decodes_as_it(self, experts: nn.Module, latents: Tensor) -> None:
        """What `Experts.parts_of` names is all that tells one expert from another."""
        before_EBP, parts_of = experts(latents), cast(Any, experts).parts_of
        with torch.no_grad():
            for source, target in zip(parts_of(0), parts_of(1), strict=True):
                target.value.copy_(source.value)
        after_EBP = experts(latents)
        assert torch.equal(after_EBP[1], after_EBP[0])
        assert torch.equal(after_EBP[[0, 2]], before_EBP[[0, 2]])

    def test_cost_is_that_of_the_experts(self, decoder: Decoder, experts: nn.Module, image_shape: ImageShape) -> None:
        """All parameters, and some FLOPs of each."""
        cost = decoder_architecture(decoder).cost(image_shape, Z)
        assert cost.of(E).params == sum(parameter.numel() for parameter in experts.parameters())
        assert min(cost.each.flops, cost.each.flops_backward) > 0


def _seeded(architecture: Any, *arguments: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cast(nn.Module, architecture.build(*arguments)).eval()


def _check_gradients(module: nn.Module, loss: Any) -> None:
    loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
