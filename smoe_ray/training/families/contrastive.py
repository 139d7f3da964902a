"""How the loop trains and measures a contrastive mixture of experts.

Shapes: B test images, N training images, V views (two per image), E experts, Z the representation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor

from smoe_ray import columns
from smoe_ray.data.dataset import Splits
from smoe_ray.model import build_model
from smoe_ray.model.families.contrastive_conv import ContrastiveMoE
from smoe_ray.spec import Contrastive, TrialSpec
from smoe_ray.training.augment import augment
from smoe_ray.training.collectives import Shard, Workers
from smoe_ray.training.evaluate import IMAGES_AT_ONCE, ExpertUse, expert_use, facts_of_images
from smoe_ray.training.images import DeviceImages
from smoe_ray.training.objectives.contrastive import importance, load, nt_xent
from smoe_ray.training.objectives.terms import entropy_term
from smoe_ray.training.read_out import knn_accuracy, linear_accuracy
from smoe_ray.training.rng import Stream, random_stream

READ_OUT_IMAGES = 20_000
"""Training images that a read-out learns from, at most: of more, this many at equal distances."""


class ContrastiveStep:
    """See `base.Step`. One worker alone: the spec refuses several."""

    def __init__(
        self,
        trial: TrialSpec,
        model: ContrastiveMoE,
        optimizer: torch.optim.Optimizer,
        noise: torch.Generator,
        workers: Workers,
    ) -> None:
        self.trial, self.spec = trial, _objective(trial)
        self.model, self.optimizer, self.noise, self.workers = model, optimizer, noise, workers
        self.device, self.label_kind, self.modules = noise.device, self.spec.label_kind, {"model": model}

    def before(self, number: int, steps_total: int, images: DeviceImages) -> None:
        """Nothing to do between steps."""

    def __call__(
        self,
        image_BHW: Tensor,
        label_B: Tensor,  # noqa: ARG002 - contrastive training knows no labels
        progress: float,  # noqa: ARG002
        shard: Shard | None = None,  # noqa: ARG002 - the whole batch
    ) -> dict[str, Tensor]:
        """See `base.Step`."""
        view_VCHW = two_views(image_BHW, self.spec, self.noise)
        size = len(view_VCHW), self.model.experts.num_experts
        normal_VE = torch.randn(size, generator=self.noise, device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.trial.training.precision == "bf16"):
            feature_VZ, gated = self.model(view_VCHW, normal_VE)
            projected_VD = self.model.projected(feature_VZ)
        contrastive = nt_xent(projected_VD.float(), self.spec.temperature)
        balance, loads = importance(gated), load(gated)
        loss = contrastive + self.spec.balance_weight * (balance + loads)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        entropy = entropy_term(torch.softmax(gated.logit_BE, dim=1))
        terms = {"loss": loss, "contrastive": contrastive, "balance": balance, "entropy": entropy, "load": loads}
        return {name: term.detach().float() for name, term in terms.items()}


def two_views(image_BHW: Tensor, spec: Contrastive, generator: torch.Generator) -> Tensor:
    """Two random views of each image, the first of all images and then the second: (V, C, H, W)."""
    image_BCHW = image_BHW if image_BHW.ndim == 4 else image_BHW[:, None]
    views = torch.cat([augment(image_BCHW, spec, generator) for _ in range(2)])
    return views.contiguous(memory_format=torch.channels_last)  # convolutions are faster on it


class ContrastiveEvaluation(NamedTuple):
    """Measured on the test images."""

    contrastive: float
    """Mean NT-Xent of two views, among the views of as many test images as a training batch has, nats."""
    linear: float
    untrained: float
    """As `linear`, with the initial weights."""
    knn: float
    experts: ExpertUse

    def losses(self) -> dict[str, float]:
        """See `base.Measured`."""
        return {"contrastive": self.contrastive}


class ContrastiveFamily:
    """See `base.Family`."""

    def __init__(self, trial: TrialSpec) -> None:
        self.trial, self.spec = trial, _objective(trial)
        self._untrained: float | None = None

    def step(
        self, model: ContrastiveMoE, optimizer: torch.optim.Optimizer, noise: torch.Generator, workers: Workers
    ) -> ContrastiveStep:
        """See `base.Family.step`."""
        return ContrastiveStep(self.trial, model, optimizer, noise, workers)

    @torch.inference_mode()
    def measure(
        self,
        model: ContrastiveMoE,
        images: DeviceImages,
        test: DeviceImages,
        data: Splits,
        epoch: int,  # noqa: ARG002
    ) -> ContrastiveEvaluation:
        """See `base.Family.measure`."""
        model.eval()
        read_out = images.spread(READ_OUT_IMAGES)
        if self._untrained is None:
            initial = build_model(self.trial.model, data.train.image_shape, self.trial.seed).to(test.device)
            assert isinstance(initial, ContrastiveMoE)
            initial.eval()
            train_NZ, test_BZ = (_represented(initial, each)[0] for each in (read_out, test))
            self._untrained = linear_accuracy(train_NZ, read_out.label_B, test_BZ, test.label_B)
        train_NZ, _ = _represented(model, read_out)
        test_BZ, logit_BE = _represented(model, test)
        return ContrastiveEvaluation(
            contrastive=self._loss(model, test),
            linear=linear_accuracy(train_NZ, read_out.label_B, test_BZ, test.label_B),
            untrained=self._untrained,
            knn=knn_accuracy(train_NZ, read_out.label_B, test_BZ, test.label_B),
            experts=expert_use(logit_BE, test.label_B),
        )

    def _loss(self, model: ContrastiveMoE, test: DeviceImages) -> float:
        """The same views in every epoch, so that epochs compare."""
        generator = random_stream(test.device, self.trial.seed, Stream.EVALUATION)
        total = torch.zeros((), dtype=torch.float64, device=test.device)
        for image_BHW, _ in test.chunks(self.trial.training.batch_size):
            unit_VD = model.projected(model(two_views(image_BHW, self.spec, generator)).feature_BZ)
            total += len(image_BHW) * nt_xent(unit_VD, self.spec.temperature)
        return float(total / len(test))

    def columns(self, measured: ContrastiveEvaluation | None) -> dict[str, Any]:
        """See `base.Family.columns`."""
        row: dict[str, Any] = dict.fromkeys(columns.names_of("contrastive", (*columns.TEST, *columns.EXPERTS)))
        row["experts.configured"] = self.trial.model.num_experts
        if measured is None:
            return row
        return row | {
            "test.contrastive": measured.contrastive,
            "test.linear_accuracy": measured.linear,
            "test.linear_accuracy_untrained": measured.untrained,
            "test.knn_accuracy": measured.knn,
            **{f"experts.{name}": value for name, value in measured.experts.columns().items()},
        }

    @torch.inference_mode()
    def embed(
        self,
        model: ContrastiveMoE,
        test: DeviceImages,
        data: Splits,
        epoch: int,  # noqa: ARG002
    ) -> dict[str, npt.NDArray[Any]]:
        """See `base.Family.embed`: mu is the representation (B, Z); there is no reconstruction."""
        model.eval()
        feature_BZ, logit_BE = _represented(model, test)
        return {
            "mu": feature_BZ.cpu().numpy(),
            "gate": torch.softmax(logit_BE, dim=1).cpu().numpy(),
            "expert": logit_BE.argmax(dim=1).cpu().numpy(),
            **facts_of_images(data.test),
        }


def _represented(model: ContrastiveMoE, images: DeviceImages) -> tuple[Tensor, Tensor]:
    """Representation and gate logits of images, without noise: (B, Z) and (B, E)."""
    passed = [model(image_BHW) for image_BHW, _ in images.chunks(IMAGES_AT_ONCE)]
    return torch.cat([each.feature_BZ for each in passed]), torch.cat([each.gated.logit_BE for each in passed])


def _objective(trial: TrialSpec) -> Contrastive:
    assert isinstance(trial.objective, Contrastive), "the spec refuses others"
    return trial.objective
