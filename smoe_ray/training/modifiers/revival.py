"""Dead experts come back as copies of the busiest one.

Every `every` steps, an expert is dead whose load since the last check is under `below`. Its load is the share of the
images that were dispatched to it (whose argmax it was, where all decoders run) over the mean share: 1 at equal use. It
gets the decoder of the busiest expert and its part of the gate's last layer, each parameter times 1 + noise * N(0, 1),
with Adam's state of them. The two then share the images of one, and drift apart as the noise lets them. With one expert
nothing happens.

The same is done in vector quantisation, where a codeword is split by a perturbation (Linde, Buzo and Gray 1980).
`train.revived` counts the revivals so far (its mean over the epoch's images).

Shapes: B images, E experts, K of them for each image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

from smoe_ray.model import SMoEVAE
from smoe_ray.model.architectures import Part
from smoe_ray.model.families.smoe_vae import first_choice
from smoe_ray.spec import TrialSpec
from smoe_ray.spec.modifiers import RevivalSpec
from smoe_ray.training.modifiers.base import Modifier, Moment, with_term
from smoe_ray.training.objectives import LossInput, Terms
from smoe_ray.training.rng import Stream, random_stream


class Revival(Modifier[RevivalSpec]):
    """Counts the images of each expert, and copies the busiest over the dead."""

    dispatched_E: Tensor
    revived: Tensor

    def __init__(self, spec: RevivalSpec, trial: TrialSpec) -> None:
        super().__init__(spec, trial)
        self.register_buffer("dispatched_E", torch.zeros(trial.model.num_experts, dtype=torch.float64))
        self.register_buffer("revived", torch.zeros((), dtype=torch.float64))
        # State that a compiled step would have to write: see `ErrorScale`.
        self._counted: Callable[[LossInput], Tensor] = torch.compiler.disable(self._count)

    def terms(self, terms: Terms, batch: LossInput, model: SMoEVAE) -> Terms:  # noqa: ARG002
        """The terms as they are; the images of each expert are counted."""
        return with_term(terms, "revived", self._counted(batch))

    @torch.no_grad()
    def _count(self, batch: LossInput) -> Tensor:
        """Adds the shares of this batch; gives the revivals so far."""
        decoded = batch.decoded
        expert_BK = first_choice(decoded.logit_BE) if decoded.expert_BK is None else decoded.expert_BK
        dispatched_BE = F.one_hot(expert_BK, len(self.dispatched_E)).sum(dim=1).double()
        self.dispatched_E += batch.global_mean(dispatched_BE.mean(dim=0))
        return self.revived.clone()

    @torch.no_grad()
    def before_step(self, moment: Moment) -> None:
        """Revives what is dead, if it is time for a check."""
        if moment.step == 0 or moment.step % self.spec.every:
            return
        load_E = moment.workers.of_leader(self.dispatched_E / self.dispatched_E.mean())
        self.dispatched_E.zero_()
        dead = (load_E < self.spec.below).nonzero().flatten().tolist()
        generator = random_stream(load_E.device, moment.seed, Stream.REVIVAL, moment.step)
        for expert in dead:
            for source, target in zip(
                moment.model.parts_of(int(load_E.argmax())), moment.model.parts_of(expert), strict=True
            ):
                copy_part(source, target, moment.optimizer, self.spec.noise, generator)
        self.revived += len(dead)


def copy_part(
    source: Part, target: Part, optimizer: torch.optim.Optimizer, noise: float, generator: torch.Generator
) -> None:
    """Copy one expert's part of a parameter over another's, perturbed, and the optimizer's state of it as it is."""
    value = source.value
    if source.tensor.requires_grad:  # a buffer, such as a running mean, is copied as it is
        value = value * (1 + noise * torch.randn(value.shape, generator=generator, device=value.device))
    target.value.copy_(value)
    states = optimizer.state.get(source.tensor, {}), optimizer.state.get(target.tensor, {})
    for name in states[0].keys() & states[1].keys():
        if states[0][name].shape == source.tensor.shape:  # a moment, not the number of steps
            Part(states[1][name], target.row).value.copy_(Part(states[0][name], source.row).value)
