"""Random views of images, for contrastive training.

Ours rather than torchvision.transforms.v2, which draws one set of parameters per call, so that all images of a batch
would be cropped and coloured alike, and draws it from torch's global generator. Here each image has its own, the batch
is changed as a whole on its device, and all of it comes from the trial's own generator.

Shapes: B images, C channels, H W pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from smoe_ray.spec import Contrastive

_JITTERED = 0.8
"""Share of the views whose colours are jittered (arXiv:2002.05709, appendix A)."""
_ASPECT = 4 / 3
"""Crops are 3:4 to 4:3 (the same place), or as far from square as an image has room for."""
_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


def augment(image_BCHW: Tensor, spec: Contrastive, generator: torch.Generator) -> Tensor:
    """One random view of each image: cropped and resized, mirrored, its colours jittered, or grey.

    Args:
        image_BCHW: pixels in [0, 1]. Images of three channels are red, green and blue; of others, only brightness and
            contrast change.
        spec: how strongly.
        generator: on the device of the images; as many numbers are drawn for any `spec`.

    Returns:
        Views of the same shape, in [0, 1].
    """
    drawn_BN = torch.rand(len(image_BCHW), 11, generator=generator, device=image_BCHW.device)
    return _recoloured(_cropped(image_BCHW, spec, drawn_BN[:, :5]), spec, drawn_BN[:, 5:]).clamp(0, 1)


def _cropped(image_BCHW: Tensor, spec: Contrastive, drawn_B5: Tensor) -> Tensor:
    area_B, aspect_B, x_B, y_B, flip_B = drawn_B5.t()
    area_B = spec.crop_area + (1 - spec.crop_area) * area_B
    most_B = -area_B.log() / 2  # stretched by more, the crop would be larger than the image
    stretch_B = torch.exp(((aspect_B - 0.5) * math.log(_ASPECT)).clamp(-most_B, most_B))  # root of the aspect
    width_B, height_B = area_B.sqrt() * stretch_B, area_B.sqrt() / stretch_B
    mirror_B = 1 - 2 * (flip_B < spec.flip).float()
    none_B = torch.zeros_like(width_B)
    # From a view's coordinates to the image's, both from -1 to 1.
    across_B3 = torch.stack([width_B * mirror_B, none_B, (1 - width_B) * (2 * x_B - 1)], dim=1)
    down_B3 = torch.stack([none_B, height_B, (1 - height_B) * (2 * y_B - 1)], dim=1)
    grid = F.affine_grid(torch.stack([across_B3, down_B3], dim=1), list(image_BCHW.shape), align_corners=False)
    cropped_BCHW: Tensor = F.grid_sample(image_BCHW, grid, padding_mode="border", align_corners=False)
    return cropped_BCHW


def _recoloured(image_BCHW: Tensor, spec: Contrastive, drawn_B6: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue are linear in a pixel's colour: one matrix and one offset per image."""
    is_colour = image_BCHW.shape[1] == 3
    factors_B4 = 1 + spec.jitter * (2 * drawn_B6[:, :4] - 1) * (drawn_B6[:, 4:5] < _JITTERED)
    brightness_B, contrast_B, saturation_B, hue_B = factors_B4.t()
    luma_C = image_BCHW.new_tensor(_LUMA if is_colour else [1 / image_BCHW.shape[1]] * image_BCHW.shape[1])
    mean_B = brightness_B * torch.einsum("bchw,c->b", image_BCHW, luma_C) / image_BCHW[0, 0].numel()
    offset_B = (1 - contrast_B) * mean_B
    scaled_BCHW: Tensor = image_BCHW * (brightness_B * contrast_B).view(-1, 1, 1, 1) + offset_B.view(-1, 1, 1, 1)
    if not is_colour:
        return scaled_BCHW
    saturation_B = torch.where(drawn_B6[:, 5] < spec.grayscale, 0, saturation_B)
    turn_B = (hue_B - 1) * (math.pi / 2)  # jitter / 4 of a full turn
    # What differs from grey is kept, turned about the grey axis (Rodrigues' formula) and scaled.
    grey = luma_C.expand(3, 3)
    axis = image_BCHW.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    eye = torch.eye(3, device=image_BCHW.device)
    turn_B33 = eye + torch.sin(turn_B).view(-1, 1, 1) * axis + (1 - torch.cos(turn_B)).view(-1, 1, 1) * (axis @ axis)
    chroma_B33 = (eye - grey) @ turn_B33 @ (eye - grey)
    colour_B33 = grey + saturation_B.view(-1, 1, 1) * chroma_B33
    coloured_BCHW: Tensor = torch.einsum("bdc,bchw->bdhw", colour_B33, scaled_BCHW)
    return coloured_BCHW
