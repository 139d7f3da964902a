"""What every objective is given and what it returns.

Shapes: B images, E experts, P values of an image (C * H * W pixels).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor, nn

from smoe_ray.model import Decoded, SMoEVAE
from smoe_ray.model.families.smoe_vae import first_choice
from smoe_ray.spec import ObjectiveSpec
from smoe_ray.training.objectives.errors import PixelError, error_of

GlobalMean = Callable[[Tensor], Tensor]
"""Mean over the global batch of a mean over this worker's shard of it; see `collectives.Workers.mean`."""

Spec = TypeVar("Spec", bound=ObjectiveSpec)


def identity(value: Tensor) -> Tensor:
    """`GlobalMean` of a single worker."""
    return value


class LossInput(NamedTuple):
    """One batch, or one worker's shard of it, after the forward pass."""

    image_BP: Tensor
    """Pixels in [0, 1]."""
    label_B: Tensor
    """Labels of the kind `ObjectiveSpec.label_kind`; expert number = label number where an objective uses them."""
    decoded: Decoded
    """Forward pass with the decoders that the spec's `decodes` names."""
    beta: float
    """Weight of the KL term."""
    progress: float | Tensor
    """Share of the budget that is done, 0 to 1."""
    global_mean: GlobalMean = identity
    uniform_BE: Tensor | None = None
    """Random numbers in (0, 1), where the spec says `draws_noise`."""
    first_row: int = 0
    """Place of this worker's first image in the global batch."""


class Terms(NamedTuple):
    """Terms of the loss of a batch, each a mean over images (scalar tensors)."""

    loss: Tensor
    """What is minimised."""
    reconstruction: Tensor
    """The objective's own reconstruction term, units of `Loss.error`."""
    kl: Tensor
    """KL divergence of posterior from prior, nats."""
    balance: Tensor
    """L_balance, unweighted."""
    entropy: Tensor
    """Mean gate entropy, nats, unweighted (reported even where it is no part of the loss)."""
    cross_entropy: Tensor
    """Cross-entropy of the gate against the label, nats; zero where labels are not used."""
    own: Mapping[str, Tensor] | None = None
    """Further terms that only this objective has; reported as ``train.<name>``."""

    def by_name(self) -> dict[str, Tensor]:
        """Every term, the standard ones first."""
        return {**dict(zip(self._fields[:-1], self[:-1], strict=True)), **(self.own or {})}


class Loss(nn.Module, Generic[Spec]):
    """The loss that an objective's spec describes.

    A loss is a mean over images, so its shards on data-parallel workers add up by their share of the batch. Whatever
    is not such a mean (a function of the average gate, say) has to be computed from `LossInput.global_mean`.

    State that training changes (a running mean, a bias per expert) is kept in buffers: they move to the device of the
    model, and they are part of the checkpoint. Each worker updates its own copy from global means, so that all agree.
    Trainable parameters belong to the model.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec

    @property
    def error(self) -> PixelError:
        """The error of an image: that of the spec's likelihood (`DecoderLikelihoodSpec`), else the squared error."""
        return error_of(self.spec)

    def choose(self, logit_BE: Tensor, global_mean: GlobalMean, uniform_BE: Tensor | None) -> Tensor:  # noqa: ARG002
        """The experts that each image is dispatched to in a training step, where the spec's `decodes` is ``chosen``.

        By default the one with the highest gate logit.

        Args:
            logit_BE: gate logits; no gradient flows through the choice.
            global_mean: see `LossInput.global_mean`.
            uniform_BE: see `LossInput.uniform_BE`.

        Returns:
            Expert numbers (B, K), K = `ObjectiveSpec.experts_per_image`, best first.
        """
        return first_choice(logit_BE)

    def after_step(self, model: SMoEVAE) -> None:
        """Called after each optimizer step; may change the model, where it does so alike on every worker."""

    def forward(self, batch: LossInput) -> Terms:
        """Terms of the loss of one batch."""
        raise NotImplementedError
