"""What training minimises; `smoe_ray.training.objectives.<name>` computes it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, Field, Tag

from smoe_ray import plugins
from smoe_ray.spec.base import Spec
from smoe_ray.spec.plugin import BUILT_IN, PLUGIN, PluginReference, choose


class ObjectiveSpec(Spec):
    """Base of all objectives. The class variables are what a training step must know before it computes the loss."""

    decodes: ClassVar[Literal["all", "chosen"]] = "all"
    """Decoders run in a training step: all of them, or for each image only the one with the highest gate logit."""
    is_annealed: ClassVar[bool] = False
    """Whether the loss depends on the share of the budget that is done."""
    needs_labels: ClassVar[bool] = False
    """Whether the loss uses the class label; expert number = class number, so E must be the number of classes."""

    name: str


DecoderLikelihood = Literal["gaussian", "bernoulli", "laplace"]


class DecoderLikelihoodSpec(ObjectiveSpec):
    """An objective whose error of an image is that of the chosen likelihood of its values; `Loss.error` computes it.

    A plug-in whose spec is not derived from this class has the squared error, and refuses the key. One that is keeps
    the default: results tell the likelihood by what the study says.
    """

    hashed_unless_default: ClassVar[frozenset[str]] = frozenset({"likelihood"})

    likelihood: DecoderLikelihood = Field(
        default="gaussian",
        description="error of an image, summed over its C*H*W values. gaussian: squared error; bernoulli: binary "
        "cross-entropy, nats; laplace: absolute error",
    )


class BalancedObjectiveSpec(ObjectiveSpec):
    """An objective with the balance term L_balance over the global batch (arXiv:2509.10025)."""

    lambda_balance: float = Field(
        default=400.0, ge=0, description="weight of L_balance; divided by 128 in the per-image loss"
    )
    balance_form: Literal["released_code", "paper_text"] = Field(
        default="released_code",
        description="released_code: E * sum of squares; paper_text: E * mean of squares (1/E of it)",
    )


class Blend(BalancedObjectiveSpec, DecoderLikelihoodSpec):
    """The paper's objective: error of the gate-weighted blend of all decoders, entropy and balance terms."""

    name: Literal["blend"] = "blend"
    lambda_balance: float = Field(
        default=200.0, ge=0, description="weight of L_balance; divided by 128 in the per-image loss"
    )
    lambda_entropy: float = Field(
        default=400.0, ge=0, description="weight of L_entropy; divided by 128 in the per-image loss"
    )
    gating: Literal["soft", "hard"] = Field(
        default="soft", description="in training; hard: the argmax expert alone, gradient straight through the softmax"
    )


class Expected(BalancedObjectiveSpec, DecoderLikelihoodSpec):
    """Expected error of an expert drawn by the gate, plus balance; no entropy term."""

    name: Literal["expected"] = "expected"


class Likelihood(BalancedObjectiveSpec, DecoderLikelihoodSpec):
    """Negative log likelihood of a mixture of experts (Jacobs et al. 1991), plus balance; no entropy term."""

    is_annealed: ClassVar[bool] = True

    name: Literal["likelihood"] = "likelihood"
    variance_start: float = Field(
        default=8.0, gt=0, description="s^2 at the first step, units of one image's error; annealed geometrically"
    )
    variance_end: float = Field(
        default=1.0,
        gt=0,
        description="s^2 at the last step, units of one image's error (bernoulli: the mixture's exact -ln p at 0.5)",
    )


class Supervised(DecoderLikelihoodSpec):
    """The label-routed baseline: error of the predicted class's expert, plus cross-entropy of the gate."""

    decodes: ClassVar[Literal["all", "chosen"]] = "chosen"
    needs_labels: ClassVar[bool] = True
    # Trial ids were made when supervised trials had the objective null: at their defaults these fields stay unhashed,
    # and an identity without fields is null.
    hashed_unless_default: ClassVar[frozenset[str]] = frozenset(
        {"name", "cross_entropy_weight"} | DecoderLikelihoodSpec.hashed_unless_default
    )

    name: Literal["supervised"] = "supervised"
    cross_entropy_weight: float = Field(
        default=1.0, ge=0, description="weight of the gate's cross-entropy (nats per image)"
    )


class PluginObjective(PluginReference):
    """An objective that a plug-in brings; all keys but `name` are its own."""

    kind: ClassVar[plugins.Kind] = "objective"
    where: ClassVar[str] = "objective"

    name: str = Field(description="package.module:name, or a short name that an installed package registers")

    @property
    def decodes(self) -> Literal["all", "chosen"]:
        """See `ObjectiveSpec.decodes`; imports the plug-in, as the following do."""
        spec: type[ObjectiveSpec] = self.load().spec
        return spec.decodes

    @property
    def is_annealed(self) -> bool:
        """See `ObjectiveSpec.is_annealed`."""
        spec: type[ObjectiveSpec] = self.load().spec
        return spec.is_annealed

    @property
    def needs_labels(self) -> bool:
        """See `ObjectiveSpec.needs_labels`."""
        spec: type[ObjectiveSpec] = self.load().spec
        return spec.needs_labels

    @classmethod
    def _base(cls) -> type[BaseModel]:
        return ObjectiveSpec


BuiltInObjective = Blend | Expected | Likelihood | Supervised
_NAMES: tuple[str, ...] = tuple(member.model_fields["name"].default for member in get_args(BuiltInObjective))

Objective = Annotated[
    Annotated[BuiltInObjective, Field(discriminator="name"), Tag(BUILT_IN)] | Annotated[PluginObjective, Tag(PLUGIN)],
    choose(PluginObjective, _NAMES),
]

UNSUPERVISED_NAMES: tuple[str, ...] = tuple(name for name in _NAMES if name != "supervised")
"""Names of the built-in objectives that go with ``routing: unsupervised``."""
