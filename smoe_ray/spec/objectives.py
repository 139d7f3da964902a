"""What unsupervised routing minimises."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Tag

from smoe_ray import plugins
from smoe_ray.spec.base import Spec
from smoe_ray.spec.plugin import BUILT_IN, PLUGIN, PluginReference, choose


class Blend(Spec):
    """The paper's objective: error of the gate-weighted blend of all decoders, entropy and balance terms."""

    name: Literal["blend"] = "blend"
    lambda_balance: float = Field(
        default=200.0, ge=0, description="weight of L_balance; divided by 128 in the per-image loss"
    )
    lambda_entropy: float = Field(
        default=400.0, ge=0, description="weight of L_entropy; divided by 128 in the per-image loss"
    )
    balance_form: Literal["released_code", "paper_text"] = Field(
        default="released_code",
        description="released_code: E * sum of squares; paper_text: E * mean of squares (1/E of it)",
    )
    gating: Literal["soft", "hard"] = Field(
        default="soft", description="in training; hard: the argmax expert alone, gradient straight through the softmax"
    )


class Expected(Spec):
    """Expected error of an expert drawn by the gate, plus balance; no entropy term."""

    name: Literal["expected"] = "expected"
    lambda_balance: float = Field(
        default=400.0, ge=0, description="weight of L_balance; divided by 128 in the per-image loss"
    )
    balance_form: Literal["released_code", "paper_text"] = Field(
        default="released_code",
        description="released_code: E * sum of squares; paper_text: E * mean of squares (1/E of it)",
    )


class Likelihood(Spec):
    """Negative log likelihood of a mixture of experts (Jacobs et al. 1991), plus balance; no entropy term."""

    name: Literal["likelihood"] = "likelihood"
    lambda_balance: float = Field(
        default=400.0, ge=0, description="weight of L_balance; divided by 128 in the per-image loss"
    )
    balance_form: Literal["released_code", "paper_text"] = Field(
        default="released_code",
        description="released_code: E * sum of squares; paper_text: E * mean of squares (1/E of it)",
    )
    variance_start: float = Field(
        default=8.0, gt=0, description="s^2 at the first step, squared-error units of one image; annealed geometrically"
    )
    variance_end: float = Field(default=1.0, gt=0, description="s^2 at the last step, squared-error units of one image")


class PluginObjective(PluginReference):
    """An objective that a plug-in brings; all keys but `name` are its own."""

    kind: ClassVar[plugins.Kind] = "objective"
    where: ClassVar[str] = "objective"

    name: str = Field(description="package.module:name, or a short name that an installed package registers")


Objective = Annotated[
    Annotated[Blend | Expected | Likelihood, Field(discriminator="name"), Tag(BUILT_IN)]
    | Annotated[PluginObjective, Tag(PLUGIN)],
    choose(PluginObjective, ("blend", "expected", "likelihood")),
]
