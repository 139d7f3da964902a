"""Models and checkpoints in the layout of the paper's released code, from plain torch modules, one per layer, and
evaluated without any of the package's code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

ENCODERS: dict[str, tuple[Any, list[tuple[int, int]]]] = {
    "medium": (F.relu, [(32, 1), (64, 2), (128, 2)]),
    "lite": (F.elu, [(16, 2), (8, 2)]),
}
"""Activation; channels and stride of each 3x3 convolution."""
CHANNELS = {"lite": [8, 16, 1], "medium": [32, 64, 32, 1], "large": [128, 64, 32, 1]}


def plain_model(
    num_experts: int, encoder: str = "medium", decoder: str = "lite", latent_dim: int = 32
) -> nn.ModuleDict:
    """A model with random weights, its parts named as the released code names them."""
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {}
    before = 1
    for number, (channels, stride) in enumerate(ENCODERS[encoder][1], 1):
        layers[f"conv{number}"] = nn.Conv2d(before, channels, 3, stride, padding=1)
        before = channels
    for head in ("mu", "logvar"):
        layers[f"fc_{head}"] = nn.Linear(before * 49, latent_dim)
    sizes = [latent_dim, 64, 32, num_experts]
    gate = {f"fc{n}": nn.Linear(sizes[n - 1], sizes[n]) for n in (1, 2, 3)}
    return nn.ModuleDict(
        {
            "encoder": nn.ModuleDict(layers),
            "decoders": nn.ModuleList([_expert(decoder, latent_dim) for _ in range(num_experts)]),
            "gating_network": nn.ModuleDict(gate),
        }
    )


def _expert(decoder: str, latent_dim: int) -> nn.ModuleDict:
    channels = CHANNELS[decoder]
    layers: dict[str, nn.Module] = {"fc": nn.Linear(latent_dim, channels[0] * 49)}
    for number in range(1, len(channels)):
        sizes = channels[number - 1], channels[number]
        if decoder == "large":
            layers[f"conv_transpose{number}"] = nn.ConvTranspose2d(
                *sizes, *((4, 2) if number < 3 else (3, 1)), padding=1
            )
        else:
            layers[f"conv{number}"] = nn.Conv2d(*sizes, 3, padding=1)
    return nn.ModuleDict(layers)


@torch.inference_mode()
def run_plainly(model: nn.ModuleDict, image_BHW: Tensor, encoder: str, decoder: str) -> tuple[Tensor, Tensor, Tensor]:
    """Latent mean, chosen expert and its reconstruction of images in [0, 1], z = mu."""
    parts: Any = model
    activation, convolutions = ENCODERS[encoder]
    x = image_BHW[:, None]
    for number in range(1, len(convolutions) + 1):
        x = activation(parts["encoder"][f"conv{number}"](x))
    mu_BZ = parts["encoder"]["fc_mu"](x.flatten(1))
    gate = parts["gating_network"]
    expert_B = gate["fc3"](F.relu(gate["fc2"](F.relu(gate["fc1"](mu_BZ))))).argmax(dim=1)
    decoded = [_decode(parts["decoders"][int(e)], z[None], decoder) for z, e in zip(mu_BZ, expert_B, strict=True)]
    return mu_BZ, expert_B, torch.cat(decoded)[:, 0]


def _decode(expert: Any, z_BZ: Tensor, decoder: str) -> Tensor:
    x = expert["fc"](z_BZ).view(-1, CHANNELS[decoder][0], 7, 7)
    last = len(CHANNELS[decoder]) - 1
    for number in range(1, last + 1):
        if decoder == "large":
            x = expert[f"conv_transpose{number}"](x)
        else:
            x = F.interpolate(x, scale_factor=2, mode="nearest") if number <= 2 else x
            x = expert[f"conv{number}"](x)
        if number < last:
            x = F.relu(x) if decoder == "large" else F.elu(x)
    return torch.sigmoid(x)


def write_released(file: Path, num_experts: int, **sizes: Any) -> nn.ModuleDict:
    """Save a checkpoint as the released code does; the model in it."""
    model = plain_model(num_experts, **sizes)
    torch.save(model.state_dict(), file)
    return model
