"""Measuring a model on the fixed test set.

Shapes: B images, E experts, Z latent, C channels, H W pixels, P = C * H * W. Images are (B, H, W) where they have one
channel, else (B, C, H, W).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoe_ray.data.dataset import Dataset
from smoe_ray.model import SMoEVAE
from smoe_ray.model.memory import IMAGES_AT_ONCE as IMAGES_AT_ONCE
from smoe_ray.spec import EvaluationSpec
from smoe_ray.training.images import DeviceImages
from smoe_ray.training.objectives.errors import SQUARED_ERROR, PixelError, squared_error
from smoe_ray.training.objectives.terms import blend, expert_errors, kl_divergence
from smoe_ray.training.rng import Stream, random_stream

ACTIVE_VARIANCE = 0.01
"""A latent dimension is active if its mu varies more than this over the images: arXiv:1509.00519, section 5.2."""


class ExpertUse(NamedTuple):
    """How evenly and how surely images are routed, in any family of models."""

    usage_E: tuple[float, ...]
    """Share of the images that each expert is the argmax of."""
    gate_entropy: float
    """Entropy of an image's gate probabilities, nats."""
    nmi: float
    """Normalised mutual information of argmax expert and class; NaN where all images are of one class."""

    def columns(self) -> dict[str, Any]:
        """Columns ``experts.<name>`` of the results, by name."""
        active = sum(share > 0 for share in self.usage_E)
        entropy = -sum(share * math.log(share) for share in self.usage_E if share > 0)
        load_E = np.array(self.usage_E) * len(self.usage_E)
        low, high = np.quantile(load_E, (0.1, 0.9)).tolist()
        return {
            "configured": len(self.usage_E),
            "active": active,
            "effective": math.exp(entropy),
            "active_fraction": active / len(self.usage_E),
            "max_share": max(self.usage_E),
            "max_violation": float(load_E.max()) - 1,
            "load_low": low,
            "load_high": high,
            "gate_entropy": self.gate_entropy,
            "nmi": _none_if_nan(self.nmi),
            "usage": list(self.usage_E),
        }


def expert_use(logit_BE: Tensor, label_B: Tensor) -> ExpertUse:
    """How images of these gate logits and classes are routed."""
    E, expert_B = logit_BE.shape[1], logit_BE.argmax(dim=1)
    log_gate_BE = torch.log_softmax(logit_BE.double(), dim=1)
    return ExpertUse(
        tuple((torch.bincount(expert_B, minlength=E).double() / len(expert_B)).tolist()),
        float(-(log_gate_BE.exp() * log_gate_BE).sum(dim=1).mean()),
        _nmi(_counts(expert_B, label_B, E)),
    )


class Evaluation(NamedTuple):
    """Means over the test images, and the share of the images that each expert is the argmax of."""

    reconstruction: float
    """The likelihood's error, summed over the values of an image, under the gating that the spec asks for (hard by
    default)."""
    reconstruction_soft: float
    """The same for the gate-weighted blend of all experts."""
    kl: float
    usage_E: tuple[float, ...]
    mu_variance_Z: tuple[float, ...] = ()
    """Variance of each dimension of mu over the images (divided by their number, so that one image has 0)."""
    squared_error: float = 0.0
    """As `reconstruction`, whatever the likelihood."""
    num_values: int = 1
    """Of an image: C * H * W."""
    oracle: float = 0.0
    """Error of the expert that is best for each image."""
    regret: float = 0.0
    """Error of the argmax expert above that of the best one."""
    gate_entropy: float = 0.0
    """Entropy of an image's gate probabilities, nats."""
    similarity: float = math.nan
    """Cosine similarity of two experts' reconstructions of the same image; NaN for a single expert."""
    label_accuracy: float = math.nan
    """Share of the images whose argmax expert has the number of their label; NaN where routing is not by label."""
    nmi: float = math.nan
    """Normalised mutual information of argmax expert and class; NaN where all images are of one class."""

    def losses(self) -> dict[str, float]:
        """Columns ``test.<name>`` of the results, by name."""
        return {
            "reconstruction": self.reconstruction,
            "reconstruction_soft": self.reconstruction_soft,
            "reconstruction_oracle": self.oracle,
            "regret": self.regret,
            "per_value": self.reconstruction / self.num_values,
            "psnr": psnr(self.squared_error / self.num_values),
            "kl": self.kl,
        }

    def usage(self) -> dict[str, Any]:
        """Columns ``experts.<name>`` of the results, by name: how evenly and how surely images are routed."""
        return {
            **ExpertUse(self.usage_E, self.gate_entropy, self.nmi).columns(),
            "similarity": _none_if_nan(self.similarity),
            "label_accuracy": _none_if_nan(self.label_accuracy),
        }

    def latent(self) -> dict[str, Any]:
        """Columns ``latent.<name>`` of the results, by name: how much of the latent vector is in use."""
        return {
            "configured": len(self.mu_variance_Z),
            "active": sum(variance > ACTIVE_VARIANCE for variance in self.mu_variance_Z),
            "kl": self.kl / len(self.mu_variance_Z),
        }


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio of values in [0, 1], dB: at most 138, where float32 resolves no smaller error."""
    return -10 * math.log10(max(mean_squared_error, float(np.finfo(np.float32).eps) ** 2))


@torch.inference_mode()
def evaluate(
    model: SMoEVAE,
    test: DeviceImages,
    spec: EvaluationSpec,
    error: PixelError = SQUARED_ERROR,
    *,
    seed: int,
    epoch: int,
    routed_by_B: npt.NDArray[np.int64] | None = None,
) -> Evaluation:
    """Measure the losses (in units of `error`) and the usage of experts on the test set.

    Hard gating runs the chosen expert of each image alone. A latent sample is the same for the same seed and epoch, so
    that a resumed trial draws what an uninterrupted one draws. `routed_by_B`: the label of each image,
    class or style, where training routes by it.
    """
    model.eval()
    noise = random_stream(test.device, seed, Stream.EVALUATION, epoch)
    z_chunks, expert_chunks, mu_chunks, label_chunks = [], [], [], []
    soft_2 = torch.zeros(2, dtype=torch.float64, device=test.device)
    routing_4 = torch.zeros(4, dtype=torch.float64, device=test.device)
    kl = torch.zeros((), dtype=torch.float64, device=test.device)
    for image_BHW, label_B in test.chunks(IMAGES_AT_ONCE):
        encoded = model.encoder(image_BHW)
        z_BZ = _latent(encoded.mu_BZ, encoded.logvar_BZ, spec.latent, noise)
        logit_BE = model.logits(z_BZ)
        image_EBP = model.experts(z_BZ)
        blended_BP = blend(torch.softmax(logit_BE, dim=1), image_EBP)
        soft_2 = soft_2 + _sums(error, image_BHW.flatten(1), blended_BP)
        routing_4 = routing_4 + _routing_sums(error, image_BHW.flatten(1), logit_BE, image_EBP)
        kl = kl + kl_divergence(encoded).double().sum()
        mu_chunks.append(encoded.mu_BZ)
        z_chunks.append(z_BZ)
        expert_chunks.append(logit_BE.argmax(dim=1))
        label_chunks.append(label_B)
    expert_B = torch.cat(expert_chunks)
    shown_2 = soft_2 if spec.gating == "soft" else _hard_sums(error, model, test, torch.cat(z_chunks), expert_B)
    usage_E = torch.bincount(expert_B, minlength=model.experts.num_experts).double()
    reconstruction, squared, soft, kl_mean = (torch.stack([*shown_2, soft_2[0], kl]) / len(test)).tolist()
    oracle, regret, gate_entropy, similarity = (routing_4 / len(test)).tolist()
    label_accuracy = math.nan if routed_by_B is None else float(np.mean(expert_B.cpu().numpy() == routed_by_B))
    mu_variance_Z = torch.cat(mu_chunks).double().var(dim=0, correction=0)
    return Evaluation(
        reconstruction,
        soft,
        kl_mean,
        tuple((usage_E / len(test)).tolist()),
        tuple(mu_variance_Z.tolist()),
        squared,
        blended_BP.shape[1],
        oracle,
        regret,
        gate_entropy,
        similarity,
        label_accuracy,
        _nmi(_counts(expert_B, torch.cat(label_chunks), model.experts.num_experts)),
    )


def _counts(expert_B: Tensor, label_B: Tensor, num_experts: int) -> npt.NDArray[np.float64]:
    """Images by expert and class, on the host: count_EC."""
    num_classes = int(label_B.max()) + 1
    pairs = torch.bincount(expert_B * num_classes + label_B, minlength=num_experts * num_classes)
    return pairs.view(num_experts, num_classes).cpu().numpy().astype(np.float64)


def _nmi(count_EC: npt.NDArray[np.float64]) -> float:
    """`Evaluation.nmi`: 2 I / (H + H), as scikit-learn's."""
    if np.count_nonzero(count_EC.sum(axis=0)) < 2:
        return math.nan
    expert, by_class, both = map(_entropy, (count_EC.sum(axis=1), count_EC.sum(axis=0), count_EC.ravel()))
    return max(2 * (expert + by_class - both) / (expert + by_class), 0.0)


def _entropy(count_N: npt.NDArray[np.float64]) -> float:
    """Nats."""
    share_N = count_N[count_N > 0] / count_N.sum()
    return float(-(share_N * np.log(share_N)).sum())


def _routing_sums(error: PixelError, image_BP: Tensor, logit_BE: Tensor, image_EBP: Tensor) -> Tensor:
    """Sums over the images of `Evaluation`'s oracle, regret, gate_entropy and similarity: (4,)."""
    E = len(image_EBP)
    error_BE = expert_errors(image_BP, image_EBP, error).double()
    expert_B = logit_BE.argmax(dim=1)
    least_B = error_BE.amin(dim=1)
    regret_B = error_BE.gather(1, expert_B[:, None]).squeeze(1) - least_B
    log_gate_BE = torch.log_softmax(logit_BE.double(), dim=1)
    entropy_B = -(log_gate_BE.exp() * log_gate_BE).sum(dim=1)
    # The cosines of all ordered pairs add up to |sum of the unit vectors|^2; an expert with itself has 1.
    norm_BE = torch.linalg.vector_norm(image_EBP, dim=2).t().clamp_min(torch.finfo(image_EBP.dtype).tiny)
    pairs_B = blend(1 / norm_BE, image_EBP).double().square().sum(dim=1) - E
    similarity_B = pairs_B / (E * (E - 1)) if E > 1 else torch.full_like(pairs_B, math.nan)
    return torch.stack([each.sum() for each in (least_B, regret_B, entropy_B, similarity_B)])


def _sums(error: PixelError, image_BP: Tensor, reconstruction_BP: Tensor) -> Tensor:
    """Error and squared error, summed over the images: (2,)."""
    squared = squared_error(image_BP, reconstruction_BP).double().sum()
    if error is SQUARED_ERROR:
        return torch.stack([squared, squared])
    return torch.stack([error.total(image_BP, reconstruction_BP).double().sum(), squared])


def _hard_sums(error: PixelError, model: SMoEVAE, test: DeviceImages, z_BZ: Tensor, expert_B: Tensor) -> Tensor:
    """`_sums` of the chosen experts over all images; they are decoded together, grouped by expert."""
    decoded = model.experts.chosen(z_BZ, expert_B).split(IMAGES_AT_ONCE)
    pairs = zip(test.chunks(IMAGES_AT_ONCE), decoded, strict=True)
    sums_N2 = torch.stack([_sums(error, image_BHW.flatten(1), chosen_BP) for (image_BHW, _), chosen_BP in pairs])
    return torch.stack([sums_N.sum() for sums_N in sums_N2.t().contiguous()])


@torch.inference_mode()
def embed(
    model: SMoEVAE, test: DeviceImages, dataset: Dataset, spec: EvaluationSpec, *, seed: int, epoch: int
) -> dict[str, npt.NDArray[Any]]:
    """Latent mean, gate and reconstruction of each test image; a latent sample is the one that `evaluate` drew.

    Returns:
        mu (B, Z) and gate (B, E) float32, label and expert (B,) int64, image (B, H, W) uint8, reconstruction by the
        chosen expert (B, H, W) float16; style (B,) and parameter (B, P) where the data has them.
    """
    model.eval()
    noise = random_stream(test.device, seed, Stream.EVALUATION, epoch)
    columns: dict[str, list[Tensor]] = {name: [] for name in ("mu", "gate", "expert", "reconstruction")}
    for image_BHW, _ in test.chunks(IMAGES_AT_ONCE):
        encoded = model.encoder(image_BHW)
        z_BZ = _latent(encoded.mu_BZ, encoded.logvar_BZ, spec.latent, noise)
        logit_BE = model.logits(z_BZ)
        expert_B = logit_BE.argmax(dim=1)
        columns["mu"].append(encoded.mu_BZ)
        columns["gate"].append(torch.softmax(logit_BE, dim=1))
        columns["expert"].append(expert_B)
        columns["reconstruction"].append(model.experts.chosen(z_BZ, expert_B).view_as(image_BHW).half())
    arrays = {name: torch.cat(chunks).cpu().numpy() for name, chunks in columns.items()}
    return arrays | facts_of_images(dataset)


def facts_of_images(dataset: Dataset) -> dict[str, npt.NDArray[Any]]:
    """label (B,) int64 and image (B, H, W) uint8; style (B,) and parameter (B, P) where the data has them."""
    facts: dict[str, npt.NDArray[Any]] = {"label": np.asarray(dataset.label_B), "image": np.asarray(dataset.image_BHW)}
    if dataset.style_B is not None:
        facts["style"] = np.asarray(dataset.style_B)
    if dataset.parameter_BP is not None:
        facts["parameter"] = np.asarray(dataset.parameter_BP)
    return facts


def _latent(mu_BZ: Tensor, logvar_BZ: Tensor, latent: str, noise: torch.Generator) -> Tensor:
    if latent == "mean":
        return mu_BZ
    draws_BZ = torch.randn(mu_BZ.shape, generator=noise, device=mu_BZ.device)
    return mu_BZ + torch.exp(0.5 * logvar_BZ) * draws_BZ
