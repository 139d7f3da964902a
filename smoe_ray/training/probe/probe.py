"""All that a probe measures of one model, as the arrays of its file (`smoe_ray.results.probe`).

Shapes: B test images, E experts, H values of a hidden map, T targets, S starts, K best test images, Z latent, N
stimuli, I = C H W an image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoe_ray.data.controlled_sketches import controlled_sketches
from smoe_ray.model import SMoEVAE
from smoe_ray.spec import DrawingColours, ImageShape
from smoe_ray.training.probe.exciting import (
    ExcitingImages,
    ExcitingLatents,
    exciting_images,
    exciting_latents,
    noise_starts,
    usual,
)
from smoe_ray.training.probe.responses import Responses, hidden_maps, latents, pixels, responses
from smoe_ray.training.probe.targets import TARGETS, Target, lead, log_odds
from smoe_ray.training.rng import Stream, random_stream

BEST_IMAGES = 16
"""Test images that are named per expert and target."""

_IMAGES_OF_LOOK = 2_000
"""Test images from which is taken what they look like."""

Arrays = dict[str, npt.NDArray[Any]]


class Probed(NamedTuple):
    """What was measured."""

    arrays: Arrays
    hidden: str | None
    """What the hidden maps are, in words; None where the experts show none."""
    ink: DrawingColours
    """Colours of the stimuli."""


def probe_model(model: SMoEVAE, image_BHW: npt.NDArray[np.uint8], ink: DrawingColours | None, seed: int) -> Probed:
    """Measure a model on test images, on stimuli of its own, and on inputs that excite its experts.

    The same numbers for the same seed and number of threads.

    Args:
        model: of two or more experts, in evaluation mode; its parameters ask for no gradient.
        image_BHW: test images: (B, H, W), or (B, C, H, W).
        ink: colours of drawings; None: the test images' background tells which.
        seed: of the starts of exciting inputs. The stimuli are the same for every model of such images, so that curves
            can be compared.
    """
    channels, height, width = (1, *image_BHW.shape[1:])[-3:]
    shape = (channels, height, width)
    on_images = responses(model, image_BHW)
    hidden = hidden_maps(model, image_BHW)
    if ink is None:
        ink = "white_on_black" if np.median(image_BHW) < 128 else "black_on_white"
    arrays = {
        "logit": on_images.logit_BE,
        "error": on_images.error_BE,
        "expert": on_images.logit_BE.argmax(axis=1),
        **({} if hidden is None else {"hidden": hidden.hidden_EBH}),
        **_tuning(model, shape, ink),
        **_excitation(model, image_BHW, shape, on_images, seed),
    }
    return Probed(arrays, None if hidden is None else hidden.kind, ink)


def _tuning(model: SMoEVAE, image_shape: ImageShape, ink: DrawingColours) -> Arrays:
    sketches = controlled_sketches(image_shape, ink)
    on_sketches = responses(model, sketches.image)
    return {
        "stimulus_image": sketches.image,
        "stimulus_parameter": sketches.parameter,
        "stimulus_value": sketches.value,
        "stimulus_repeat": sketches.repeat,
        "stimulus_logit": on_sketches.logit_BE,
        "stimulus_error": on_sketches.error_BE,
    }


def _excitation(
    model: SMoEVAE, image_BHW: npt.NDArray[np.uint8], image_shape: ImageShape, on_images: Responses, seed: int
) -> Arrays:
    """`_of_target` of each target, stacked."""
    some_BI = pixels(image_BHW[:: max(1, len(image_BHW) // _IMAGES_OF_LOOK)]).view(-1, *image_shape)
    look = usual(some_BI)
    random = random_stream(torch.device("cpu"), seed, Stream.PROBE)
    start_ESI = noise_starts(image_shape, model.experts.num_experts, look.background, random)
    mu_BZ = latents(model, image_BHW)
    logit_BE, error_BE = map(torch.from_numpy, on_images)
    of_images = {"gate_logit": log_odds(logit_BE), "advantage": lead(error_BE)}
    parts = []
    for target in TARGETS:
        value_BE = of_images[target.name]
        images = exciting_images(model, target, value_BE.std(dim=0), look, start_ESI)
        codes = exciting_latents(model, target, mu_BZ, image_shape, random)
        parts.append(_of_target(model, target, value_BE, images, codes))
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def _of_target(
    model: SMoEVAE, target: Target, value_BE: Tensor, images: ExcitingImages, codes: ExcitingLatents
) -> Arrays:
    best_BE = value_BE.argsort(dim=0, descending=True, stable=True)[:BEST_IMAGES]
    E = len(codes.value_E)
    own_EI = model.experts(codes.z_EZ)[torch.arange(E), torch.arange(E)]
    image_ESI = images.image_ESI.squeeze(2)
    return {
        "data_image": best_BE.t().numpy(),
        "data_value": value_BE.gather(0, best_BE).t().numpy(),
        "exciting_image": image_ESI.half().numpy(),
        "exciting_value": images.value_ES.numpy(),
        "exciting_latent": codes.z_EZ.numpy(),
        "exciting_latent_value": codes.value_E.numpy(),
        "exciting_decoded": own_EI.view(E, *image_ESI.shape[2:]).half().numpy(),
        "cross": target.of_images(model, images.best_EI.squeeze(1)).numpy(),
    }
