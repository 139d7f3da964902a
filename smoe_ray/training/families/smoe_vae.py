"""How the loop trains and measures an SMoE-VAE.

Shapes: B images, E experts, Z latent, H W pixels, P = H * W.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from smoe_ray import columns
from smoe_ray.data.dataset import Splits
from smoe_ray.model import SMoEVAE
from smoe_ray.spec import Contrastive, ModelSpec, TrialSpec
from smoe_ray.training.collectives import ALONE, Shard, Workers
from smoe_ray.training.evaluate import Evaluation, embed, evaluate
from smoe_ray.training.images import DeviceImages
from smoe_ray.training.modifiers import Modifiers, Moment
from smoe_ray.training.objectives import Loss, LossInput, Terms, loss_for

_LEAST_UNIFORM = 2.0**-25
"""Half the spacing of `torch.rand`'s numbers in single precision."""


class TrainingStep:
    """One optimizer step on a batch."""

    def __init__(
        self,
        trial: TrialSpec,
        model: SMoEVAE,
        optimizer: torch.optim.Optimizer,
        noise: torch.Generator,
        workers: Workers = ALONE,
        loss: Loss[Any] | None = None,
    ) -> None:
        self.loss = (loss or _loss_of(trial)).to(noise.device)
        self.modifiers = Modifiers(trial).to(noise.device)
        self.modules = {"model": model, "loss": self.loss, "modifiers": self.modifiers}
        self.trial, self.model, self.optimizer, self.noise = trial, model, optimizer, noise
        self.device, self.workers, self.label_kind = noise.device, workers, self.loss.spec.label_kind
        assert isinstance(trial.model, ModelSpec)
        self.spec = trial.model
        self.terms, self.mean_over_batch = self._terms, workers.mean
        if trial.training.compile:
            # The bank runs as it is written: inductor takes minutes over its in-place views, and the sizes of the
            # groups of `chosen` change with every batch.
            bank: Any = model.experts
            bank.forward = torch.compiler.disable(bank.forward)
            bank.chosen = torch.compiler.disable(bank.chosen)
            if self.loss.spec.decodes == "merged":
                bank.merged = torch.compiler.disable(bank.merged)
            self.mean_over_batch = torch.compiler.disable(workers.mean)
            self.terms = torch.compile(self._terms, dynamic=False)
        self.forward = workers.wrap(model)

    def before(self, number: int, steps_total: int, images: DeviceImages) -> None:
        """See `base.Step.before`: what the modifiers do between steps."""
        self.modifiers.before_step(
            Moment(number, steps_total, self.trial.seed, self.model, self.optimizer, images, self.workers)
        )

    def __call__(
        self, image_BHW: Tensor, label_B: Tensor, progress: float, shard: Shard | None = None
    ) -> dict[str, Tensor]:
        """Update the model; `progress` is the share of the budget that is done.

        Of several workers, each is given its shard of the batch. Returns each term's mean over that shard.
        """
        shard = shard or self.workers.shard(len(image_BHW))
        noise_BZ = torch.randn(shard.batch, self.spec.latent_dim, generator=self.noise, device=self.device)
        uniform_BE = None
        if self.loss.spec.draws_noise:
            size = shard.batch, self.spec.num_experts
            drawn_BE = torch.rand(size, generator=self.noise, device=self.device)[shard.rows]
            uniform_BE = drawn_BE.clamp_min(_LEAST_UNIFORM)  # of 0, logarithms and quantiles are infinite
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.trial.training.precision == "bf16"):
            terms = self.terms(
                image_BHW,
                label_B,
                noise_BZ[shard.rows],
                torch.tensor(progress),
                torch.tensor(shard.share),
                uniform_BE,
                shard.rows.start,
            )
        self.optimizer.zero_grad(set_to_none=True)
        (self.workers.count * shard.share * terms.loss).backward()
        self.optimizer.step()
        self.loss.after_step(self.model)
        return {name: term.detach() for name, term in terms.by_name().items()}

    def _terms(
        self,
        image_BHW: Tensor,
        label_B: Tensor,
        noise_BZ: Tensor,
        progress: Tensor,
        share: Tensor,
        uniform_BE: Tensor | None = None,
        first_row: int = 0,
    ) -> Terms:
        global_mean = partial(self.mean_over_batch, share=share)
        choose = partial(self.loss.choose, global_mean=global_mean, uniform_BE=uniform_BE)
        modify = partial(self.modifiers.logits, progress=progress)
        decoded = self.forward(image_BHW, noise_BZ, self.loss.spec.decodes, choose, modify)
        beta = self.trial.training.beta
        batch = LossInput(image_BHW.flatten(1), label_B, decoded, beta, progress, global_mean, uniform_BE, first_row)
        return self.modifiers.terms(self.loss(batch), batch, self.model)


class SMoEVAEFamily:
    """See `base.Family`."""

    def __init__(self, trial: TrialSpec) -> None:
        self.trial, self.loss = trial, _loss_of(trial)

    def step(
        self, model: SMoEVAE, optimizer: torch.optim.Optimizer, noise: torch.Generator, workers: Workers
    ) -> TrainingStep:
        """See `base.Family.step`."""
        return TrainingStep(self.trial, model, optimizer, noise, workers, self.loss)

    def measure(
        self,
        model: SMoEVAE,
        images: DeviceImages,  # noqa: ARG002
        test: DeviceImages,
        data: Splits,
        epoch: int,
    ) -> Evaluation:
        """See `base.Family.measure`."""
        spec = self.loss.spec
        return evaluate(
            model,
            test,
            self.trial.evaluation,
            self.loss.error,
            seed=self.trial.seed,
            epoch=epoch,
            routed_by_B=data.test.labels(spec.label_kind) if spec.needs_labels else None,
        )

    def columns(self, measured: Evaluation | None) -> dict[str, Any]:
        """See `base.Family.columns`."""
        assert isinstance(self.trial.model, ModelSpec)
        return _test_columns(measured, self.trial.model.num_experts) | _latent_columns(
            measured, self.trial.model.latent_dim
        )

    def embed(self, model: SMoEVAE, test: DeviceImages, data: Splits, epoch: int) -> dict[str, npt.NDArray[Any]]:
        """See `base.Family.embed`."""
        return embed(model, test, data.test, self.trial.evaluation, seed=self.trial.seed, epoch=epoch)


def _loss_of(trial: TrialSpec) -> Loss[Any]:
    assert not isinstance(trial.objective, Contrastive), "the spec refuses it"
    return loss_for(trial.objective)


def _test_columns(measured: Evaluation | None, num_experts: int) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(columns.names_of("smoe_vae", (*columns.TEST, *columns.EXPERTS)))
    row["experts.configured"] = num_experts
    if measured is None:
        return row
    return row | {
        **{f"test.{name}": value for name, value in measured.losses().items()},
        **{f"experts.{name}": value for name, value in measured.usage().items()},
    }


def _latent_columns(measured: Evaluation | None, latent_dim: int) -> dict[str, Any]:
    used = {"configured": latent_dim, "active": None, "kl": None} if measured is None else measured.latent()
    return {f"latent.{name}": value for name, value in used.items()}
