"""Kinds of gates: how the latent vector becomes one logit per expert; `smoe_ray.model.gate` builds them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from smoe_ray.spec.base import Spec


class MLPGateSpec(Spec):
    """The paper's gate (arXiv:2509.10025): hidden layers, then one linear output per expert."""

    name: Literal["mlp"] = "mlp"


class CosineGateSpec(Spec):
    """Hidden layers, a linear projection, and its cosine similarity with a learnt vector per expert, times a scale."""

    name: Literal["cosine"] = "cosine"
    projection: int = Field(default=16, ge=1, le=65536, description="size of the projection and of the vectors")
    scale: float = Field(default=10.0, gt=0, description="what cosines are multiplied by, at first; it is learnt")


class BatchNormGateSpec(Spec):
    """The paper's gate, its logits normalised over the batch (muMoE, arXiv:2402.12550): no expert is preferred to
    another over a whole batch, without a balance term. The batch must be one worker's.
    """

    name: Literal["batch_norm"] = "batch_norm"
    scale: float = Field(default=1.0, gt=0, description="what normalised logits are multiplied by; it is fixed")


class AttentiveGateSpec(Spec):
    """The gate's query against a key of each expert, which is made of the expert's hidden layer (arXiv:2302.14703)."""

    name: Literal["attentive"] = "attentive"
    projection: int = Field(default=16, ge=1, le=65536, description="size of the query and of the keys")


class HierarchicalGateSpec(Spec):
    """Two gates in a tree: the group of experts, then the expert within its group, on the same hidden layers.

    Experts g·E/G to (g + 1)·E/G - 1 are the leaves of group g.
    """

    name: Literal["hierarchical"] = "hierarchical"
    groups: int = Field(default=2, ge=1, le=1024, description="G; the number of experts is a multiple of it")


def _from_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


BuiltInGate = MLPGateSpec | CosineGateSpec | BatchNormGateSpec | AttentiveGateSpec | HierarchicalGateSpec

GateSpec = Annotated[Annotated[BuiltInGate, Field(discriminator="name")], BeforeValidator(_from_name)]
