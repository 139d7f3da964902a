"""Modifiers: changes to how any objective is trained; `smoe_ray.training.modifiers.<name>` makes them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from smoe_ray.spec.base import Spec


class GateTemperatureSpec(Spec):
    """In training, the gate's logits are divided by a temperature that changes geometrically."""

    start: float = Field(default=4.0, gt=0, description="temperature at the first step")
    end: float = Field(default=1.0, gt=0, description="temperature once `share` of the budget is done, and then on")
    share: float = Field(default=0.5, gt=0, le=1, description="of the budget, over which the temperature changes")


class WarmUpSpec(Spec):
    """Terms of the loss rise linearly from 0."""

    share: float = Field(default=0.25, gt=0, le=1, description="of the budget, after which the terms have full weight")
    terms: Literal["regularisers", "entropy"] = Field(
        default="regularisers",
        description="regularisers: all of the objective but its reconstruction and KL; entropy: the entropy term alone "
        "(of an objective with lambda_entropy)",
    )


class KMeansGateSpec(Spec):
    """The gate is fitted to k-means clusters of the latent means, once."""

    after: float = Field(default=0.1, ge=0, lt=1, description="share of the budget that is done by then")
    images: int = Field(default=4096, ge=1, le=10**6, description="training images that are clustered, at most")


class RevivalSpec(Spec):
    """An expert that few images go to becomes a perturbed copy of the busiest one."""

    every: int = Field(default=100, ge=1, description="optimizer steps between two checks")
    below: float = Field(
        default=0.05, gt=0, lt=1, description="load since the last check (share / mean share) that is too low"
    )
    noise: float = Field(default=0.01, ge=0, description="each copied parameter is multiplied by 1 + noise * N(0, 1)")


class OrthogonalSpec(Spec):
    """A term that makes the gate's vectors of the experts orthogonal."""

    weight: float = Field(default=3.125, ge=0, description="of the term (0 to 1), units of one image's error")


class SimilaritySpec(Spec):
    """A term that sends images that are alike to the same expert, and others to different ones."""

    weight: float = Field(default=1.0, ge=0, description="of the term, which is a squared distance of images")


class CouplingSpec(Spec):
    """A term that makes experts answer to their own vector in the gate more strongly than to others'."""

    weight: float = Field(default=1.0, ge=0, description="of the term, a norm of hidden values")
    margin: float = Field(
        default=1.0, gt=0, le=1, description="an answer to another's vector is free up to this share of one's own"
    )


class ModifiersSpec(Spec):
    """Changes to how the objective is trained, whichever it is; null: no such change. Several combine in this order."""

    hashed_unless_default: ClassVar[frozenset[str]] = frozenset(
        {"gate_temperature", "warm_up", "kmeans_gate", "revival", "orthogonal", "similarity", "coupling"}
    )

    gate_temperature: GateTemperatureSpec | None = Field(default=None, description="anneals the gate")
    warm_up: WarmUpSpec | None = Field(default=None, description="begins without regularisers, or without entropy term")
    kmeans_gate: KMeansGateSpec | None = Field(default=None, description="starts the gate from clusters of latents")
    revival: RevivalSpec | None = Field(default=None, description="copies the busiest expert over dead ones")
    orthogonal: OrthogonalSpec | None = Field(default=None, description="adds a term on the gate's last layer")
    similarity: SimilaritySpec | None = Field(default=None, description="adds a term on images that share an expert")
    coupling: CouplingSpec | None = Field(
        default=None, description="adds a term on experts' answers to the gate's vectors"
    )


MODIFIERS_OF_THE_GATE = ("kmeans_gate", "revival", "orthogonal", "similarity", "coupling")
"""Those that change the gate's weights, or have a gradient for them."""
