"""Most exciting inputs: what excites each expert most, by gradient ascent on pixels and in latent space.

*Pixels.* x = sigmoid(theta), from several starts of smooth noise. A step climbs T_e(x) / sd(T_e over the test images)
less a penalty wherever x has more ink or more total variation than nine in ten test images have (so that neither weight
has a unit, and what is drawn stays a drawing). The image is jittered by a few pixels, and its gradient blurred, both
less and less towards the end (Walker et al., Nature Neuroscience 22, 2019). The value that is kept is T_e of the image
as it is, without penalties.

*Latent space.* z = m + L u, with mean m and covariance L L^T of the test images' mu. T_e(z) is climbed from several
starts with |u| <= sqrt(Z), the prior: as far from the mean as the codes of images are on average (in root mean square).
The best start is kept. For a target that is linear in z, the optimum is u = sqrt(Z) L^T w / |L^T w|, w its gradient.

Shapes: B test images, N inputs, E experts, n of them, S starts, Z latent, I = C H W an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from smoe_ray.model import SMoEVAE
from smoe_ray.training.probe.targets import Target

STARTS = 8

_PIXEL_STEPS, _PIXEL_RATE = 200, 0.15
"""Of Adam; its rate falls to a tenth."""
_LATENT_STEPS, _LATENT_RATE = 150, 0.1
"""Length of a step along the gradient, as a share of sqrt(Z); it falls to a tenth likewise."""

_JITTER = 2
"""Pixels at the first step, of images of 28; in proportion for others."""
_BLUR = (1.5, 0.5)
"""Standard deviation of the gradient's blur at the first and at the last step, pixels likewise."""
_SMOOTHNESS, _CONTRAST = 2.0, 0.3
"""Of the noise that an image begins as: the blur's standard deviation, pixels likewise, and that of its values."""
_USUAL = 0.9
"""Quantile of the test images' ink and total variation up to which there is no penalty."""
_PENALTY = 10.0
"""Standard deviations of the target that twice the usual ink, or variation, costs."""
_LEAST = 1e-6
"""Below any ink, variation, or standard deviation of a target that counts."""
_VALUES_AT_ONCE = 2_000 * 28 * 28
"""Values of all experts' decodings of all inputs in one step: bounds memory."""


class Usual(NamedTuple):
    """What test images look like, to which exciting images are kept."""

    background: float
    """Median value."""
    ink: float
    """Mean distance of a value from the background that nine in ten images have at most."""
    variation: float
    """Mean distance of neighbouring pixels, likewise."""


class ExcitingImages(NamedTuple):
    """Images that excite each expert, from several starts."""

    image_ESI: Tensor
    value_ES: Tensor

    @property
    def best_EI(self) -> Tensor:  # noqa: N802 - named by its shape
        """Of each expert the image with the highest value."""
        best_EI: Tensor = self.image_ESI[torch.arange(len(self.value_ES)), self.value_ES.argmax(dim=1)]
        return best_EI


class ExcitingLatents(NamedTuple):
    """The latent vector that excites each expert most."""

    z_EZ: Tensor
    value_E: Tensor


def usual(image_BI: Tensor) -> Usual:
    """What images (B, C, H, W) in [0, 1] look like."""
    background = float(image_BI.median())
    ink, variation = (
        float(amount_B.quantile(_USUAL)) for amount_B in (_ink(image_BI, background), _variation(image_BI))
    )
    return Usual(background, max(ink, _LEAST), max(variation, _LEAST))


def exciting_images(model: SMoEVAE, target: Target, scale_E: Tensor, look: Usual, start_ESI: Tensor) -> ExcitingImages:
    """Climb `target` on pixels, for all experts.

    Args:
        model: in evaluation mode; its parameters ask for no gradient.
        target: what to maximise.
        scale_E: standard deviation of each expert's target over the test images.
        look: what these look like.
        start_ESI: images in (0, 1) to start from, I = C H W.
    """
    E, S = start_ESI.shape[:2]
    at_once = max(1, _VALUES_AT_ONCE // (E * S * start_ESI[0, 0].numel()))
    climbed = [
        _climb_pixels(model, target, expert_n, scale_E[expert_n], look, start_ESI[expert_n])
        for expert_n in torch.arange(E).split(at_once)
    ]
    return ExcitingImages(*map(torch.cat, zip(*climbed, strict=True)))


def noise_starts(image_shape: Sequence[int], num_experts: int, background: float, generator: torch.Generator) -> Tensor:
    """Smooth noise around the background, in (0, 1): (E, S, C, H, W)."""
    noise_NI = torch.randn(num_experts * STARTS, *image_shape, generator=generator)
    smooth_NI = _blur(noise_NI, _SMOOTHNESS * _per_28(image_shape))
    start_NI = (background + _CONTRAST * smooth_NI / smooth_NI.std()).clamp(0.02, 0.98)
    return start_NI.view(num_experts, STARTS, *image_shape)


def exciting_latents(
    model: SMoEVAE, target: Target, mu_BZ: Tensor, image_shape: Sequence[int], generator: torch.Generator
) -> ExcitingLatents:
    """Climb `target` in latent space, for all experts.

    Args:
        model: in evaluation mode; its parameters ask for no gradient.
        target: what to maximise.
        mu_BZ: of the test images.
        image_shape: theirs.
        generator: draws the starts.
    """
    E, Z = model.experts.num_experts, mu_BZ.shape[1]
    at_once = max(1, _VALUES_AT_ONCE // (E * STARTS * math.prod(image_shape)))
    prior = _Normal.of(mu_BZ)
    start_ESZ = torch.randn(E, STARTS, Z, generator=generator)
    climbed = [
        _climb_latents(model, target, expert_n, prior, start_ESZ[expert_n])
        for expert_n in torch.arange(E).split(at_once)
    ]
    return ExcitingLatents(*map(torch.cat, zip(*climbed, strict=True)))


def _climb_pixels(
    model: SMoEVAE, target: Target, expert_n: Tensor, scale_n: Tensor, look: Usual, start_nSI: Tensor
) -> tuple[Tensor, Tensor]:
    """`ExcitingImages` of some experts."""
    n, S, *image_shape = start_nSI.shape
    expert_N, scale_N = expert_n.repeat_interleave(S), scale_n.clamp_min(_LEAST).repeat_interleave(S)
    every_N, unit = torch.arange(n * S), _per_28(image_shape)

    def value(image_NI: Tensor) -> Tensor:
        return target.of_images(model, image_NI.squeeze(1))[every_N, expert_N]  # a channel alone has no axis

    theta_NI = torch.logit(start_nSI.flatten(0, 1)).requires_grad_(True)
    optimiser = torch.optim.Adam([theta_NI], lr=_PIXEL_RATE)
    rate = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, _PIXEL_STEPS)
    shifts = np.random.default_rng(0)
    for step in range(_PIXEL_STEPS):
        done = step / (_PIXEL_STEPS - 1)
        reach = round(_JITTER * unit * (1 - done))
        down, right = shifts.integers(-reach, reach, 2, endpoint=True).tolist()
        image_NI = torch.sigmoid(theta_NI)
        gain_N = value(image_NI.roll((down, right), dims=(-2, -1))) / scale_N
        loss = (_PENALTY * _excess(image_NI, look) - gain_N).sum()
        (grad_NI,) = torch.autograd.grad(loss, theta_NI)
        theta_NI.grad = _blur(grad_NI, unit * (_BLUR[0] + done * (_BLUR[1] - _BLUR[0])))
        optimiser.step()
        rate.step()
    with torch.no_grad():
        image_NI = torch.sigmoid(theta_NI)
        return image_NI.unflatten(0, (n, S)), value(image_NI).view(n, S)


def _climb_latents(
    model: SMoEVAE, target: Target, expert_n: Tensor, prior: _Normal, start_nSZ: Tensor
) -> tuple[Tensor, Tensor]:
    """`ExcitingLatents` of some experts."""
    n, S, Z = start_nSZ.shape
    expert_N, radius = expert_n.repeat_interleave(S), math.sqrt(Z)
    u_NZ = _within(radius, start_nSZ.flatten(0, 1)).requires_grad_(True)
    for step in range(_LATENT_STEPS):
        value_N = target.of_latents(model, prior.at(u_NZ), expert_N)
        (grad_NZ,) = torch.autograd.grad(value_N.sum(), u_NZ)
        length = _LATENT_RATE * radius * (1 - 0.9 * step / (_LATENT_STEPS - 1))
        with torch.no_grad():
            u_NZ.copy_(_within(radius, u_NZ + length * F.normalize(grad_NZ, dim=1)))
    with torch.no_grad():
        z_NZ = prior.at(u_NZ)
        value_n, best_n = target.of_latents(model, z_NZ, expert_N).view(n, S).max(dim=1)
        return z_NZ.view(n, S, Z)[torch.arange(n), best_n], value_n


def _within(radius: float, u_NZ: Tensor) -> Tensor:
    """The nearest vectors of at most this length."""
    length_N1 = torch.linalg.vector_norm(u_NZ, dim=1, keepdim=True)
    within_NZ: Tensor = u_NZ * (radius / length_N1.clamp_min(radius))
    return within_NZ


class _Normal(NamedTuple):
    """The normal distribution of the encoder's means."""

    mean_Z: Tensor
    root_ZZ: Tensor
    """L of the covariance L L^T."""

    @classmethod
    def of(cls, mu_BZ: Tensor) -> _Normal:
        covariance_ZZ = mu_BZ.double().t().cov()
        # Unused dimensions hardly vary: without this, rounding could make the covariance indefinite.
        covariance_ZZ = covariance_ZZ + 1e-6 * covariance_ZZ.diagonal().mean() * torch.eye(len(covariance_ZZ))
        return cls(mu_BZ.mean(dim=0), torch.linalg.cholesky(covariance_ZZ).float())

    def at(self, u_NZ: Tensor) -> Tensor:
        """The latent vector of standard normal coordinates."""
        return self.mean_Z + u_NZ @ self.root_ZZ.t()


def _excess(image_NI: Tensor, look: Usual) -> Tensor:
    """By what shares of the usual each image has too much ink, and too much variation: (N,)."""
    ink_N, variation_N = _ink(image_NI, look.background), _variation(image_NI)
    return F.relu(ink_N / look.ink - 1) + F.relu(variation_N / look.variation - 1)


def _ink(image_NI: Tensor, background: float) -> Tensor:
    """Mean distance from the background of each image (N, C, H, W): (N,)."""
    return (image_NI - background).abs().mean(dim=(1, 2, 3))


def _variation(image_NI: Tensor) -> Tensor:
    """Total variation per value of each image (N, C, H, W), down plus right: (N,)."""
    down, right = image_NI.diff(dim=2).abs(), image_NI.diff(dim=3).abs()
    return down.mean(dim=(1, 2, 3)) + right.mean(dim=(1, 2, 3))


def _blur(image_NI: Tensor, sd: float) -> Tensor:
    """Gaussian blur of each channel of (N, C, H, W); `sd` in pixels."""
    reach = max(1, round(3 * sd))
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sd) ** 2)
    weight = weight / weight.sum()
    plane_N1HW = image_NI.flatten(0, 1)[:, None]
    plane_N1HW = F.conv2d(plane_N1HW, weight.view(1, 1, -1, 1), padding=(reach, 0))
    return F.conv2d(plane_N1HW, weight.view(1, 1, 1, -1), padding=(0, reach)).view_as(image_NI)


def _per_28(image_shape: Sequence[int]) -> float:
    """Size of images (C, H, W) in units of the 28 pixels for which lengths are given here."""
    return min(image_shape[-2:]) / 28
