"""The SMoE-VAE as a textbook writes it: a torch module per layer, a decoder per expert. What `smoe_ray` must equal.

The layers of the paper's architectures are written out here; those of any other row of the tables follow the row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from smoe_ray.model import ExpertBank
from smoe_ray.spec import ImageShape, ModelSpec
from smoe_ray.spec.architectures import DECODERS, ENCODERS, LayerShapes

GREY = (1, 28, 28)
ACTIVATIONS = {"relu": nn.ReLU, "elu": nn.ELU}


def further_stages(image_shape: ImageShape) -> int:
    """How many stages `medium` and `large` have beyond the paper's: one for 33 to 64 pixels, two for 65 to 128."""
    return sum(min(image_shape[1:]) > side for side in (32, 64))


def make_decoder(name: str, latent_dim: int, image_shape: ImageShape = GREY) -> nn.Sequential:
    colours, more = image_shape[0], further_stages(image_shape)

    def conv(c_in: int, c_out: int) -> nn.Module:
        return nn.Conv2d(c_in, c_out, 3, padding=1)

    def double() -> nn.Module:
        return nn.Upsample(scale_factor=2, mode="nearest")

    def transposed(c_in: int, c_out: int) -> nn.Module:
        return nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)

    def seed(channels: int, scale: int) -> list[nn.Module]:
        height, width = image_shape[1] // scale, image_shape[2] // scale
        return [nn.Linear(latent_dim, channels * height * width), nn.Unflatten(1, (channels, height, width))]

    def repeated(stage: Callable[[], list[nn.Module]]) -> list[nn.Module]:
        return [module for _ in range(more) for module in stage()]

    layers = {
        "lite": lambda: [*seed(8, 4), double(), conv(8, 16), nn.ELU(), double(), conv(16, colours)],
        "medium": lambda: [
            *seed(32, 4 * 2**more),
            *(double(), conv(32, 64), nn.ELU()),
            *repeated(lambda: [double(), conv(64, 64), nn.ELU()]),
            *(double(), conv(64, 32), nn.ELU()),
            conv(32, colours),
        ],
        "large": lambda: [
            *seed(128, 4 * 2**more),
            *(transposed(128, 64), nn.ReLU()),
            *repeated(lambda: [transposed(64, 64), nn.ReLU()]),
            *(transposed(64, 32), nn.ReLU()),
            nn.ConvTranspose2d(32, colours, 3, stride=1, padding=1),
        ],
    }.get(name, lambda: decoder_by_table(name, latent_dim, image_shape))()
    return nn.Sequential(*layers, nn.Sigmoid(), nn.Flatten())


def decoder_by_table(name: str, latent_dim: int, image_shape: ImageShape) -> list[nn.Module]:
    initial = DECODERS[name].initial_shape(image_shape)
    first, *others = map(layer_by_table, DECODERS[name].shapes(image_shape))
    activated = [module for layer in others for module in (ACTIVATIONS[DECODERS[name].activation](), *layer)]
    return [nn.Linear(latent_dim, math.prod(initial)), nn.Unflatten(1, initial), *first, *activated]


def layer_by_table(shapes: LayerShapes) -> list[nn.Module]:
    (kind, _, kernel, stride), (c_in, *_), (c_out, *_) = shapes
    if kind == "transposed":
        return [nn.ConvTranspose2d(c_in, c_out, kernel, stride=stride, padding=1)]
    convolution = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=1)
    return [nn.Upsample(scale_factor=2, mode="nearest"), convolution] if kind == "upsampled" else [convolution]


def make_features(name: str, image_shape: ImageShape = GREY) -> tuple[nn.Sequential, int]:
    """The encoder below its heads, and how many features it gives."""
    colours, more = image_shape[0], further_stages(image_shape)

    def places(halvings: int) -> int:
        return math.prod(-(-side // 2**halvings) for side in image_shape[1:])  # rounded up

    if name == "lite":
        convolutions = [nn.Conv2d(colours, 16, 3, stride=2, padding=1), nn.ELU(), nn.Conv2d(16, 8, 3, 2, 1), nn.ELU()]
        return nn.Sequential(*convolutions, nn.Flatten()), 8 * places(2)
    if name == "medium":
        convolutions = [nn.Conv2d(colours, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()]
        convolutions += [nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.ReLU()]
        for _ in range(more):
            convolutions += [nn.Conv2d(128, 128, 3, stride=2, padding=1), nn.ReLU()]
        return nn.Sequential(*convolutions, nn.Flatten()), 128 * places(2 + more)
    layers = ENCODERS[name].shapes(image_shape)
    activation = ACTIVATIONS[ENCODERS[name].activation]
    modules = [module for layer in layers for module in (*layer_by_table(layer), activation())]
    return nn.Sequential(*modules, nn.Flatten()), math.prod(layers[-1].after)


class Textbook(nn.Module):
    """Encoder, gate and a list of decoders; parameters in the order encoder, mu, logvar, gate, decoders."""

    def __init__(self, spec: ModelSpec, image_shape: ImageShape = GREY) -> None:
        super().__init__()
        self.features, features = make_features(spec.encoder, image_shape)
        self.mu, self.logvar = nn.Linear(features, spec.latent_dim), nn.Linear(features, spec.latent_dim)
        sizes = (spec.latent_dim, *spec.gate_hidden)
        hidden = [layer for n_in, n_out in pairwise(sizes) for layer in (nn.Linear(n_in, n_out), nn.ReLU())]
        self.gate = nn.Sequential(*hidden, nn.Linear(sizes[-1], spec.num_experts))
        self.decoders = nn.ModuleList(
            make_decoder(spec.decoder, spec.latent_dim, image_shape) for _ in range(spec.num_experts)
        )

    def encode(self, image_BHW: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(image_BHW.unsqueeze(1) if image_BHW.ndim == 3 else image_BHW)
        return self.mu(features), self.logvar(features)

    def soft(self, image_BHW: Tensor, noise_BZ: Tensor) -> Tensor:
        """Gate-weighted blend of all decoders: (B, P)."""
        mu_BZ, logvar_BZ = self.encode(image_BHW)
        z_BZ = mu_BZ + (logvar_BZ / 2).exp() * noise_BZ
        gate_BE = self.gate(z_BZ).softmax(dim=1)
        blended = torch.zeros(())
        for e, decoder in enumerate(self.decoders):
            blended = blended + gate_BE[:, e : e + 1] * decoder(z_BZ)
        return blended

    def hard(self, image_BHW: Tensor, noise_BZ: Tensor) -> Tensor:
        """The argmax expert of each image, one image after another: (B, P)."""
        mu_BZ, logvar_BZ = self.encode(image_BHW)
        z_BZ = mu_BZ + (logvar_BZ / 2).exp() * noise_BZ
        expert_B = self.gate(z_BZ).argmax(dim=1)
        return torch.cat([self.decoders[int(e)](z[None]) for e, z in zip(expert_B, z_BZ, strict=True)])


def merged_decoder(decoders: nn.ModuleList, weight_E: Tensor, z_BZ: Tensor) -> Tensor:
    """Images (B, P) of one decoder whose parameters are the weighted mean of those of all."""
    flat_EN = torch.stack([parameters_to_vector(decoder.parameters()) for decoder in decoders])
    shapes = {name: parameter.shape for name, parameter in decoders[0].named_parameters()}
    parts = (weight_E[None] @ flat_EN)[0].split([shape.numel() for shape in shapes.values()])
    means = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    image_BP: Tensor = functional_call(decoders[0], means, z_BZ)
    return image_BP


def bank_parameters(bank: ExpertBank) -> list[nn.Parameter]:
    """Stacked parameters in the order of a textbook decoder's own."""
    convolutions = zip(bank.conv_weights, bank.conv_biases, strict=True)
    return [bank.linear_weight, bank.linear_bias, *(parameter for pair in convolutions for parameter in pair)]


@torch.no_grad()
def copy_to_bank(decoders: nn.ModuleList, bank: ExpertBank) -> None:
    per_expert = [list(decoder.parameters()) for decoder in decoders]
    for stacked, parts in zip(bank_parameters(bank), zip(*per_expert, strict=True), strict=True):
        stacked.copy_(torch.stack(parts))
