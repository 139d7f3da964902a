"""What every expert does with every image: hidden map, gate logit and error, routed to it or not.

Shapes: B images, E experts, H kept values of a hidden map, C h w a map, P values of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from smoe_ray.model import SMoEVAE
from smoe_ray.model.bank import Bank
from smoe_ray.model.plugin_architectures import ModuleExperts
from smoe_ray.results.probe import MOST_HIDDEN
from smoe_ray.training.evaluate import IMAGES_AT_ONCE
from smoe_ray.training.probe.targets import errors

MOST_HIDDEN_BYTES = 2**28
"""Of the hidden maps of all experts on all images."""


class Responses(NamedTuple):
    """Of every expert to every image, with z = mu."""

    logit_BE: npt.NDArray[np.float32]
    error_BE: npt.NDArray[np.float32]
    """Squared error of the expert alone, summed over the values of the image."""


class HiddenMaps(NamedTuple):
    """Hidden maps of every expert on every image."""

    hidden_EBH: npt.NDArray[np.float16]
    kind: str
    """What they are, in words."""


@torch.inference_mode()
def responses(model: SMoEVAE, image_BHW: npt.NDArray[np.uint8]) -> Responses:
    """Gate logits and errors of the experts on images (uint8)."""
    chunks = [_respond(model, chunk) for chunk in _chunks(image_BHW)]
    logit_BE, error_BE = (torch.cat(parts).numpy() for parts in zip(*chunks, strict=True))
    return Responses(logit_BE, error_BE)


def _respond(model: SMoEVAE, image_BI: Tensor) -> tuple[Tensor, Tensor]:
    mu_BZ = model.encoder(image_BI).mu_BZ
    return model.logits(mu_BZ), errors(image_BI.flatten(1), model.experts(mu_BZ))


@torch.no_grad()
def latents(model: SMoEVAE, image_BHW: npt.NDArray[np.uint8]) -> Tensor:
    """mu_BZ of images (uint8)."""
    return torch.cat([model.encoder(chunk).mu_BZ for chunk in _chunks(image_BHW)])


@torch.inference_mode()
def hidden_maps(model: SMoEVAE, image_BHW: npt.NDArray[np.uint8]) -> HiddenMaps | None:
    """Hidden maps of all experts on images, each in at most `MOST_HIDDEN` values; None where the experts show none, or
    where even one value per channel would take more than `MOST_HIDDEN_BYTES`.

    Of the decoders of this package, the map behind the first convolution and its activation: before these, all experts'
    maps are affine in one and the same latent vector, so that a linear read-out finds the same in each. Of a plug-in's,
    what its ``hidden`` gives.
    """
    maps_of = _maps_of(model)
    if maps_of is None:
        return None
    num_experts, num_images = model.experts.num_experts, len(image_BHW)
    sample = next(iter(maps_of(model.encoder(pixels(image_BHW[:1])).mu_BZ)))
    most = min(MOST_HIDDEN, MOST_HIDDEN_BYTES // (2 * num_experts * num_images))
    pool, size, kind = _pooling(tuple(sample.shape[1:]), most)
    if not size:
        return None
    hidden_EBH = np.empty((num_experts, num_images, size), np.float16)
    start = 0
    for chunk in _chunks(image_BHW):
        here = slice(start, start := start + len(chunk))
        for expert, map_B in enumerate(maps_of(model.encoder(chunk).mu_BZ)):
            hidden_EBH[expert, here] = pool(map_B).half().numpy()
    return HiddenMaps(hidden_EBH, kind)


def _maps_of(model: SMoEVAE) -> Callable[[Tensor], Iterable[Tensor]] | None:
    """From latent vectors to the hidden map of one expert after another, or None."""
    if isinstance(model.experts, Bank):
        return model.experts.first_maps
    if isinstance(model.experts, ModuleExperts) and all(hasattr(each, "hidden") for each in model.experts.decoders):
        decoders: list[Any] = list(model.experts.decoders)
        return lambda z_BZ: (decoder.hidden(z_BZ) for decoder in decoders)
    return None


def _pooling(shape: tuple[int, ...], most: int) -> tuple[Callable[[Tensor], Tensor], int, str]:
    """How a map becomes at most `most` values: the function from (B, *shape) to (B, H), H, and both in words."""
    whole = int(np.prod(shape))
    what = "x".join(map(str, shape))
    if whole <= most:
        return partial(torch.flatten, start_dim=1), whole, what
    if len(shape) != 3:
        return _evenly(most), most, f"{most} means over neighbours of {what}"
    channels, height, width = shape
    side = max((side for side in range(1, min(height, width) + 1) if channels * side**2 <= most), default=0)
    pooled = f"{what}, averaged over areas to {channels}x{side}x{side}"
    return lambda x: F.adaptive_avg_pool2d(x, side).flatten(1), channels * side**2, pooled


def _evenly(size: int) -> Callable[[Tensor], Tensor]:
    return lambda x: F.adaptive_avg_pool1d(x.flatten(1), size)


def _chunks(image_BHW: npt.NDArray[np.uint8]) -> Iterator[Tensor]:
    for start in range(0, len(image_BHW), IMAGES_AT_ONCE):
        yield pixels(image_BHW[start : start + IMAGES_AT_ONCE])


def pixels(image_BHW: npt.NDArray[Any]) -> Tensor:
    """Images (uint8) as numbers in [0, 1]."""
    return torch.from_numpy(np.array(image_BHW)).float().div_(255)
