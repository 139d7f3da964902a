"""Encoders and decoders that plug-ins bring, as architectures; costs are counted by torch.

A plug-in is a class of modules, made as ``cls(spec, image_shape, latent_dim)``, with `Spec`, the pydantic model of its
parameters. An encoder's `forward` maps images in [0, 1], (B, H, W) or (B, C, H, W), to `Encoded`; a decoder's maps
latent vectors (B, Z) to images in [0, 1] of any shape with B * P numbers. Each expert is a decoder of its own.

Shapes: B images, E experts, Z latent, C channels, H W pixels, P = C * H * W.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from smoe_ray import plugins
from smoe_ray.errors import PluginError
from smoe_ray.model.architectures import Activations, ComponentCost, Encoded, Encoder, Experts, ExpertsCost, Part
from smoe_ray.spec import ImageShape, PluginDecoder, PluginEncoder


class PluginEncoderArchitecture:
    """`EncoderArchitecture` of a plug-in.

    Raises:
        PluginError, StudyError: from every method: it cannot be imported, fails, or refuses its parameters.
    """

    def __init__(self, reference: PluginEncoder) -> None:
        self._reference = reference

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ComponentCost:
        """See `EncoderArchitecture.cost`."""
        module, output, cost, _ = self._measured(image_shape, latent_dim)
        shapes = [tuple(each.shape) for each in output] if isinstance(output, tuple) else output
        if not isinstance(output, Encoded) or shapes != [(1, latent_dim)] * 2:
            raise PluginError(
                f"plug-in {self._reference.plugin}: {type(module).__name__}.forward gives {_described(output)}, not "
                f"smoe_ray.model.Encoded with two tensors of shape (B, {latent_dim})"
            )
        return cost

    def activations(self, image_shape: ImageShape, latent_dim: int) -> Activations:
        """See `EncoderArchitecture.activations`."""
        return self._measured(image_shape, latent_dim).activations

    def build(self, image_shape: ImageShape, latent_dim: int) -> Encoder:
        """See `EncoderArchitecture.build`."""
        return _made(self._reference, image_shape, latent_dim)

    def _measured(self, image_shape: ImageShape, latent_dim: int) -> _Measured:
        image = torch.zeros(1, *(image_shape[1:] if image_shape[0] == 1 else image_shape))
        return _measured(self._reference, image_shape, latent_dim, image)


class PluginDecoderArchitecture:
    """`DecoderArchitecture` of a plug-in. Raises as `PluginEncoderArchitecture`."""

    def __init__(self, reference: PluginDecoder) -> None:
        self._reference = reference

    def cost(self, image_shape: ImageShape, latent_dim: int) -> ExpertsCost:
        """See `DecoderArchitecture.cost`."""
        module, output, cost, _ = self._measured(image_shape, latent_dim)
        if not isinstance(output, Tensor) or output.numel() != math.prod(image_shape):
            raise PluginError(
                f"plug-in {self._reference.plugin}: {type(module).__name__}.forward gives {_described(output)}, not a "
                f"tensor of B images of {math.prod(image_shape)} pixels"
            )
        return ExpertsCost(ComponentCost(0, 0, 0), cost)

    def activations(self, image_shape: ImageShape, latent_dim: int) -> Activations:
        """See `DecoderArchitecture.activations`."""
        return self._measured(image_shape, latent_dim).activations

    def build(self, image_shape: ImageShape, num_experts: int, latent_dim: int) -> Experts:
        """See `DecoderArchitecture.build`."""
        return ModuleExperts([_made(self._reference, image_shape, latent_dim) for _ in range(num_experts)])

    def _measured(self, image_shape: ImageShape, latent_dim: int) -> _Measured:
        return _measured(self._reference, image_shape, latent_dim, torch.zeros(1, latent_dim, requires_grad=True))


class ModuleExperts(nn.Module):
    """Experts that are modules of their own, run one after another."""

    def __init__(self, decoders: list[nn.Module]) -> None:
        super().__init__()
        self.num_experts = len(decoders)
        self.decoders = nn.ModuleList(decoders)

    def forward(self, z_BZ: Tensor) -> Tensor:
        """Every expert's decoding of every latent vector: image_EBP."""
        return torch.stack([decoder(z_BZ).flatten(1) for decoder in self.decoders])

    def chosen(self, z_BZ: Tensor, expert_B: Tensor) -> Tensor:
        """Each latent vector decoded by its own expert alone: image_BP. Images are grouped by expert, one pass each."""
        order_B = torch.argsort(expert_B)
        groups = order_B.split(torch.bincount(expert_B, minlength=self.num_experts).tolist())
        pairs = zip(groups, self.decoders, strict=True)
        image_BP = torch.cat([decoder(z_BZ[group]).flatten(1) for group, decoder in pairs if len(group)])
        return torch.empty_like(image_BP).index_copy(0, order_B, image_BP)

    def parts_of(self, expert: int) -> list[Part]:
        """One expert's parameters and buffers, each a tensor of its own."""
        decoder = self.decoders[expert]
        return [Part(tensor, ...) for tensor in (*decoder.parameters(), *decoder.buffers())]


def _made(reference: PluginEncoder | PluginDecoder, image_shape: ImageShape, latent_dim: int) -> nn.Module:
    plugin, spec = reference.resolve()
    with plugins.blaming():
        module = plugin.target(spec, image_shape, latent_dim)
    if not isinstance(module, nn.Module):
        raise PluginError(f"plug-in {plugin.name}: {type(module).__name__} is no torch.nn.Module")
    return module


class _Measured(NamedTuple):
    module: nn.Module
    output: Any
    """What it makes of an input of one image."""
    cost: ComponentCost
    activations: Activations


def _measured(
    reference: PluginEncoder | PluginDecoder, image_shape: ImageShape, latent_dim: int, given: Tensor
) -> _Measured:
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4  # in float32
        return tensor

    with torch.random.fork_rng(devices=[]):
        module = _made(reference, image_shape, latent_dim).eval()
        with plugins.blaming():
            with FlopCounterMode(display=False) as forward, saved_tensors_hooks(keep, lambda tensor: tensor):
                output = module(given)
            results = [each for each in (output if isinstance(output, tuple) else (output,)) if _has_gradient(each)]
            for each in results:
                keep(each)
            with FlopCounterMode(display=False) as backward:
                sum((each.sum() for each in results), torch.zeros(())).backward() if results else None
    params = sum(parameter.numel() for parameter in module.parameters())
    for tensor in (*module.parameters(), *module.buffers()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    sizes = sorted(kept.values())
    return _Measured(
        module,
        output,
        ComponentCost(params, forward.get_total_flops(), backward.get_total_flops()),
        Activations(kept=sum(sizes), widest=sum(sizes[-2:])),
    )


def _has_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _described(output: Any) -> str:
    return f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
