"""What training minimises; `smoe_ray.training.objectives.<name>` computes it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, Field, Tag

from smoe_ray import plugins
from smoe_ray.spec.base import Spec
from smoe_ray.spec.contrastive import Contrastive
from smoe_ray.spec.plugin import BUILT_IN, PLUGIN, PluginReference, choose

Decodes = Literal["all", "chosen", "merged"]


class ObjectiveSpec(Spec):
    """Base of all objectives. The class variables are what a training step must know before it computes the loss."""

    decodes: ClassVar[Decodes] = "all"
    """Decoders run in a training step: all of them; or for each image those that `Loss.choose` names, by default the
    one with the highest gate logit; or for each image one with the gate-weighted mean of all parameters."""
    is_annealed: ClassVar[bool] = False
    """Whether the loss depends on the share of the budget that is done."""
    needs_labels: ClassVar[bool] = False
    """Whether the loss uses the label of an image; expert number = label number."""
    label_kind: ClassVar[Literal["class", "style"]] = "class"
    """Which label that is: its class (E is then the number of classes), or its style (E is at least their number)."""
    draws_noise: ClassVar[bool] = False
    """Whether a training step needs random numbers beside the latent noise: a uniform one per image and expert."""
    biases_gate: ClassVar[bool] = False
    """Whether training adds to the bias of the gate's last linear layer, beside what the optimizer does to it."""
    freezes_gate: ClassVar[bool] = False
    """Whether the gate must keep its initial weights."""

    name: str

    @property
    def experts_per_image(self) -> int:
        """K: how many experts decode an image in a training step, where `decodes` is ``chosen``."""
        return 1


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


class ErrorScaleSpec(DecoderLikelihoodSpec):
    """An objective whose weights and variances can follow the size of the error; `ErrorScale` computes the factor.

    As with the likelihood, a plug-in whose spec is not derived from this class refuses the key.
    """

    hashed_unless_default: ClassVar[frozenset[str]] = (
        frozenset({"error_scale"}) | DecoderLikelihoodSpec.hashed_unless_default
    )

    error_scale: float | None = Field(
        default=None,
        gt=0,
        description="null: weights and variances are absolute. A number: they are multiplied by (running mean of the "
        "error of an image) / error_scale, so that on any data they weigh what they weigh at that error",
    )


class BalancedObjectiveSpec(ObjectiveSpec):
    """An objective with the balance term L_balance over the global batch (arXiv:2509.10025)."""

    hashed_unless_default: ClassVar[frozenset[str]] = frozenset({"balance_parts"})

    lambda_balance: float = Field(
        default=400.0, ge=0, description="weight of L_balance; divided by 128 in the per-image loss"
    )
    balance_form: Literal["released_code", "paper_text"] = Field(
        default="released_code",
        description="released_code: E * sum of squares; paper_text: E * mean of squares (1/E of it)",
    )
    balance_parts: int = Field(
        default=1,
        ge=1,
        le=65536,
        description="parts of the global batch that are balanced each by itself, as data-parallel workers do that "
        "average losses, not gate probabilities (arXiv:2501.11873); 1: the whole batch. Independent of resources",
    )


class Blend(BalancedObjectiveSpec, ErrorScaleSpec):
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


class Expected(BalancedObjectiveSpec, ErrorScaleSpec):
    """Expected error of an expert drawn by the gate, plus balance; no entropy term."""

    name: Literal["expected"] = "expected"


class Likelihood(BalancedObjectiveSpec, ErrorScaleSpec):
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


class HardEM(BalancedObjectiveSpec, ErrorScaleSpec):
    """Hard expectation-maximisation of the mixture: each image is explained by one expert, plus balance."""

    name: Literal["hard_em"] = "hard_em"
    variance: float = Field(default=2.0, gt=0, description="s^2, units of one image's error")


class MutualInformation(DecoderLikelihoodSpec):
    """Expected error of an expert drawn by the gate, less the mutual information of image and expert."""

    name: Literal["mutual_information"] = "mutual_information"
    lambda_information: float = Field(
        default=400.0, ge=0, description="weight of the information, nats; divided by 128 in the per-image loss"
    )
    usage_weight: float = Field(
        default=1.0, ge=0, description="h_b in h_b * H(mean gate) - mean H(gate): above 1, even use counts for more"
    )


class Gumbel(BalancedObjectiveSpec, ErrorScaleSpec):
    """The blend of all decoders by a Gumbel-softmax sample of the gate, whose temperature falls, plus balance."""

    is_annealed: ClassVar[bool] = True
    draws_noise: ClassVar[bool] = True

    name: Literal["gumbel"] = "gumbel"
    temperature_start: float = Field(default=1.0, gt=0, description="at the first step; annealed geometrically")
    temperature_end: float = Field(default=0.1, gt=0, description="at the last step")


class DispatchedSpec(DecoderLikelihoodSpec):
    """An objective that runs, for each image, only the experts that the image is dispatched to."""

    decodes: ClassVar[Decodes] = "chosen"


class LoadBalancedSpec(DispatchedSpec):
    """Dispatch with a term that evens out the load of the experts, and one against large gate logits."""

    load_weight: float = Field(
        default=3.125,
        ge=0,
        description="weight of the load term, units of one image's error (400 / 128, as lambda_balance has by default)",
    )
    z_weight: float = Field(
        default=1e-3, ge=0, description="weight of mean(logsumexp(logits)^2), units of one image's error"
    )


class Switch(LoadBalancedSpec):
    """Switch Transformer: each image to the expert of the highest gate probability p; its image is scaled by p."""

    name: Literal["switch"] = "switch"


class GShard(LoadBalancedSpec):
    """GShard: each image to its two first experts, blended by gate probabilities that are scaled to sum to 1."""

    name: Literal["gshard"] = "gshard"

    @property
    def experts_per_image(self) -> int:
        """Two."""
        return 2


class VMoE(DispatchedSpec):
    """V-MoE: the first experts by noisy gate logits, with losses on importance and load."""

    draws_noise: ClassVar[bool] = True

    name: Literal["v_moe"] = "v_moe"
    top_k: int = Field(default=2, ge=1, description="experts per image")
    load_weight: float = Field(
        default=3.125, ge=0, description="weight of (importance + load loss) / 2, units of one image's error"
    )

    @property
    def experts_per_image(self) -> int:
        """`top_k`."""
        return self.top_k


class Sinkhorn(DispatchedSpec):
    """S-BASE: in training each expert gets an equal share of the batch, by Sinkhorn's algorithm on the gate logits."""

    name: Literal["sinkhorn"] = "sinkhorn"
    temperature: float = Field(default=1.0, gt=0, description="gate logits are divided by it for the assignment")
    iterations: int = Field(default=20, ge=1, le=1000, description="of Sinkhorn's algorithm, per step")


class LossFreeBias(DispatchedSpec):
    """Loss-free balancing: a bias per expert, beside the gradient, makes rarely chosen experts be chosen more often."""

    biases_gate: ClassVar[bool] = True

    name: Literal["loss_free"] = "loss_free"
    top_k: int = Field(default=2, ge=1, description="experts per image")
    bias_rate: float = Field(
        default=1e-3, gt=0, description="what each step adds to the gate logit of an expert below the mean load"
    )

    @property
    def experts_per_image(self) -> int:
        """`top_k`."""
        return self.top_k


class ExpertChoice(DecoderLikelihoodSpec):
    """Expert choice: in training each expert takes its share of the batch, those images whose gate favours it most."""

    name: Literal["expert_choice"] = "expert_choice"
    capacity: float = Field(
        default=2.0, gt=0, description="mean number of experts that take an image; each takes capacity / E of the batch"
    )


class ReLURouter(DecoderLikelihoodSpec):
    """ReMoE: experts are weighted by ReLU(logits), kept sparse by an L1 term whose weight follows the sparsity."""

    name: Literal["relu"] = "relu"
    top_k: int = Field(default=1, ge=1, description="mean number of experts with a weight that the L1 term aims at")
    l1_start: float = Field(default=1e-8, gt=0, description="weight of the L1 term at first, units of an image's error")
    l1_factor: float = Field(
        default=1.2, gt=1, description="its factor per step where experts are too many; its divisor where too few"
    )

    @property
    def experts_per_image(self) -> int:
        """`top_k`: the mean of it, for all are decoded."""
        return self.top_k


class Smear(DecoderLikelihoodSpec):
    """SMEAR: one decoder per image, whose parameters are the gate-weighted mean of those of all experts."""

    decodes: ClassVar[Decodes] = "merged"

    name: Literal["smear"] = "smear"


class FrozenRouter(DispatchedSpec):
    """Control: the gate keeps its random initial weights; each image goes to its first choice."""

    freezes_gate: ClassVar[bool] = True

    name: Literal["frozen_router"] = "frozen_router"


class UniformRouter(DispatchedSpec):
    """Control: in training each image goes to an expert drawn uniformly, anew at every step."""

    draws_noise: ClassVar[bool] = True

    name: Literal["uniform_router"] = "uniform_router"


class OracleRouter(DecoderLikelihoodSpec):
    """Control: each image trains the expert that is best for it, and the gate learns to name that expert."""

    name: Literal["oracle_router"] = "oracle_router"
    gate_weight: float = Field(
        default=1.0, ge=0, description="weight of the gate's cross-entropy against the best expert (nats per image)"
    )


class StyleOracle(DecoderLikelihoodSpec):
    """Control: each image trains the expert of its style, and the gate learns to name that expert."""

    needs_labels: ClassVar[bool] = True
    label_kind: ClassVar[Literal["class", "style"]] = "style"

    name: Literal["style_oracle"] = "style_oracle"
    gate_weight: float = Field(
        default=1.0, ge=0, description="weight of the gate's cross-entropy against the style (nats per image)"
    )


class Supervised(DecoderLikelihoodSpec):
    """The label-routed baseline: error of the predicted class's expert, plus cross-entropy of the gate."""

    decodes: ClassVar[Decodes] = "chosen"
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
    def decodes(self) -> Decodes:
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

    @property
    def label_kind(self) -> Literal["class", "style"]:
        """See `ObjectiveSpec.label_kind`."""
        spec: type[ObjectiveSpec] = self.load().spec
        return spec.label_kind

    @property
    def draws_noise(self) -> bool:
        """See `ObjectiveSpec.draws_noise`."""
        spec: type[ObjectiveSpec] = self.load().spec
        return spec.draws_noise

    @property
    def experts_per_image(self) -> int:
        """See `ObjectiveSpec.experts_per_image`."""
        spec: ObjectiveSpec = self.resolve()[1]
        return spec.experts_per_image

    @classmethod
    def _base(cls) -> type[BaseModel]:
        return ObjectiveSpec


BuiltInObjective = (
    Blend
    | Expected
    | Likelihood
    | HardEM
    | MutualInformation
    | Gumbel
    | Switch
    | GShard
    | VMoE
    | Sinkhorn
    | LossFreeBias
    | ExpertChoice
    | ReLURouter
    | Smear
    | FrozenRouter
    | UniformRouter
    | OracleRouter
    | StyleOracle
    | Supervised
)
"""Objectives of the SMoE-VAE."""
_NAMES: tuple[str, ...] = tuple(member.model_fields["name"].default for member in get_args(BuiltInObjective))

Objective = Annotated[
    Annotated[BuiltInObjective | Contrastive, Field(discriminator="name"), Tag(BUILT_IN)]
    | Annotated[PluginObjective, Tag(PLUGIN)],
    choose(PluginObjective, (*_NAMES, "contrastive")),
]

UNSUPERVISED_NAMES: tuple[str, ...] = tuple(name for name in _NAMES if name != "supervised")
"""Names of the built-in objectives of the SMoE-VAE that go with ``routing: unsupervised``."""
