"""One training run, and the id that all its choices hash to."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from smoe_ray.errors import StudyError
from smoe_ray.spec.base import NAME_PATTERN, Spec
from smoe_ray.spec.data import DataSpec, PluginData, SyntheticData
from smoe_ray.spec.gates import BatchNormGateSpec
from smoe_ray.spec.messages import nearest, one_line
from smoe_ray.spec.model import ModelSpec, PluginDecoder, PluginEncoder
from smoe_ray.spec.modifiers import MODIFIERS_OF_THE_GATE, ModifiersSpec
from smoe_ray.spec.objectives import (
    UNSUPERVISED_NAMES,
    Likelihood,
    Objective,
    ObjectiveSpec,
    PluginObjective,
    Supervised,
)
from smoe_ray.spec.paths import assign, dotted_keys, merge
from smoe_ray.spec.plugin import PluginReference, names_plugin, plugin_identities
from smoe_ray.spec.training import EvaluationSpec, ResourcesSpec, TrainingSpec

NUMERICS_VERSION = 1
"""Raised whenever the same spec on the same data would train to other numbers; part of every `trial_id`."""


class TrialSpec(Spec):
    """One training run. Defaults are those of the preset `recommended`."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"resources", "dataset"})
    hashed_unless_default: ClassVar[frozenset[str]] = frozenset({"modifiers", "weights"})

    seed: int = Field(default=0, ge=0, lt=2**31, description="fixes initial weights, batch order and latent noise")
    dataset: str | None = Field(
        default=None,
        pattern=NAME_PATTERN,
        description="what tables and figures call the data; a study's datasets set it; null: by their source",
    )
    data: DataSpec = Field(default=SyntheticData(), description="where images come from and which are used")
    model: ModelSpec = Field(default=ModelSpec(), description="architecture")
    routing: Literal["unsupervised", "supervised"] = Field(
        default="unsupervised", description="supervised: the gate learns the class label; any other objective is unused"
    )
    objective: Objective = Field(default=Likelihood(), description="what training minimises")
    modifiers: ModifiersSpec = Field(
        default=ModifiersSpec(), description="changes to how the objective is trained, whichever it is"
    )
    training: TrainingSpec = Field(default=TrainingSpec(), description="optimizer and budget")
    weights: Literal["trained", "imported"] = Field(
        default="trained",
        description="imported: they come from a checkpoint (import-checkpoint), and training says how they were made",
    )
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="how test columns are measured")
    resources: ResourcesSpec = Field(default=ResourcesSpec(), description="what the trial occupies")

    @model_validator(mode="before")
    @classmethod
    def _objective_of_routing(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        objective = fields.get("objective", "absent")
        if fields.get("routing") == "supervised" and (objective == "absent" or _is_unused(objective)):
            # Dropping the unused objective keeps the trial_id honest: two supervised trials that differ in it alone
            # are the same trial.
            return {**fields, "objective": _SUPERVISED.model_dump() | _still_used(objective)}
        if "routing" not in fields and _name_of(objective) == "supervised":
            return {**fields, "routing": "supervised"}
        if objective is None:
            raise ValueError(_NEEDS_OBJECTIVE)
        return fields

    @model_validator(mode="after")
    def _routing_and_objective_agree(self) -> Self:
        if (self.routing == "supervised") != (self.objective.name == "supervised"):
            raise ValueError(
                _NEEDS_OBJECTIVE
                if self.routing == "unsupervised"
                else f"supervised routing has the objective 'supervised' (it is {self.objective.name!r})"
            )
        return self

    @model_validator(mode="after")
    def _batches_are_whole(self) -> Self:
        if isinstance(self.model.gate, BatchNormGateSpec) and self.resources.is_distributed:
            raise ValueError(
                "the gate 'batch_norm' normalises over the whole batch, which data-parallel workers share; set "
                "resources.workers to 1 or choose another gate"
            )
        return self

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if isinstance(self.objective, ObjectiveSpec) and self.objective.experts_per_image > self.model.num_experts:
            raise ValueError(
                f"the objective {self.objective.name} sends each image to {self.objective.experts_per_image} experts; "
                f"model.num_experts is {self.model.num_experts}"
            )
        return self

    @model_validator(mode="after")
    def _has_the_term_that_warms_up(self) -> Self:
        warm_up = self.modifiers.warm_up
        if warm_up and warm_up.terms == "entropy" and getattr(self.objective, "lambda_entropy", None) is None:
            raise ValueError(
                f"the objective {self.objective.name} has no lambda_entropy (blend has): "
                "set modifiers.warm_up.terms to regularisers"
            )
        return self

    @model_validator(mode="after")
    def _gate_has_a_bias(self) -> Self:
        gate = self.model.gate.name
        if isinstance(self.objective, ObjectiveSpec) and self.objective.biases_gate and gate != "mlp":
            raise ValueError(
                f"the objective {self.objective.name} moves the bias of the gate's last layer, which the gate {gate} "
                "does not have; set model.gate to mlp"
            )
        return self

    @model_validator(mode="after")
    def _bias_is_in_the_logits(self) -> Self:
        if isinstance(self.objective, ObjectiveSpec) and self.objective.biases_gate and self.modifiers.gate_temperature:
            raise ValueError(
                f"the objective {self.objective.name} takes its bias from the gate's logits again, which "
                "modifiers.gate_temperature divides: set it to null, or another objective"
            )
        return self

    @model_validator(mode="after")
    def _frozen_gate_stays_frozen(self) -> Self:
        if not (isinstance(self.objective, ObjectiveSpec) and self.objective.freezes_gate):
            return self
        changes = [f"modifiers.{name}" for name in MODIFIERS_OF_THE_GATE if getattr(self.modifiers, name)]
        if self.model.gate.name == "attentive":  # its keys are made of what the experts learn
            changes.append("the gate attentive")
        if changes:
            raise ValueError(
                f"the objective {self.objective.name} keeps the gate's initial weights, which {changes[0]} changes: "
                "leave it out, or set another objective"
            )
        return self

    @model_validator(mode="after")
    def _gate_has_vectors(self) -> Self:
        if self.modifiers.orthogonal and self.model.gate.name == "attentive":
            raise ValueError(
                "modifiers.orthogonal is about a gate's vectors of the experts; the gate attentive has none: "
                "set it to null, or another model.gate"
            )
        return self

    @model_validator(mode="after")
    def _gate_has_vectors_that_experts_read(self) -> Self:
        model = self.model
        if not self.modifiers.coupling:
            return self
        if model.gate.name != "mlp" or model.gate_hidden:
            raise ValueError(
                "modifiers.coupling gives the gate's vectors of the experts to the experts, as latent vectors: set "
                "model.gate to mlp and model.gate_hidden to [], or modifiers.coupling to null"
            )
        if isinstance(model.decoder, PluginDecoder):
            raise ValueError(
                f"modifiers.coupling reads the experts' hidden layers, which a plug-in ({model.decoder.name}) does not "
                "show; set model.decoder to a built-in one, or modifiers.coupling to null"
            )
        return self

    @model_validator(mode="after")
    def _parameters_can_be_averaged(self) -> Self:
        if (
            isinstance(self.objective, ObjectiveSpec)
            and self.objective.decodes == "merged"
            and isinstance(self.model.decoder, PluginDecoder)
        ):
            raise ValueError(
                f"the objective {self.objective.name} averages the parameters of experts, which a plug-in's decoders "
                f"do not offer; set model.decoder to a built-in one (it is {self.model.decoder.name})"
            )
        return self


_SUPERVISED = Supervised()
_NEEDS_OBJECTIVE = f"unsupervised routing needs an objective: {{name: {' | '.join(UNSUPERVISED_NAMES)}}}"


def _field(objective: Any, name: str) -> Any:
    """A field of an objective, given as a spec or as a mapping; None where it has none."""
    return objective.get(name) if isinstance(objective, Mapping) else getattr(objective, name, None)


def _name_of(objective: Any) -> Any:
    return _field(objective, "name")


def _still_used(unused: Any) -> dict[str, Any]:
    """What a supervised trial takes from an objective that its own one replaces: the likelihood of the decoders."""
    said = _field(unused, "likelihood")
    return {} if said is None else {"likelihood": said}


def _is_unused(objective: Any) -> bool:
    """Whether supervised routing ignores this objective; an unknown name is not ignored but refused."""
    name = _name_of(objective)
    if objective is None or name in UNSUPERVISED_NAMES:
        return True
    return isinstance(name, str) and name != "supervised" and names_plugin("objective", name)


def merge_trial(
    base: Mapping[str, Any], over: Mapping[str, Any], supervised: Supervised = _SUPERVISED
) -> dict[str, Any]:
    """`merge` for the fields of a trial, where `routing` and `objective` follow one another.

    Args:
        base: fields of a trial, as plain values.
        over: fields that replace those of `base`, mapping by mapping.
        supervised: objective of a trial whose routing `over` makes supervised; fields of it that `over` names win.
    """
    by_label = _name_of(over.get("objective")) == "supervised"
    if over.get("routing", "supervised" if by_label else base.get("routing")) == "supervised":
        if _name_of(base.get("objective")) != "supervised":
            base = {**base, "objective": supervised.model_dump() | _still_used(base.get("objective"))}
        base = {**base, "routing": "supervised"}
        if "objective" in over and _is_unused(over["objective"]):
            over = {**over, "objective": _still_used(over["objective"])}
    return merge(base, over)


def check_experts_per_label(trial: TrialSpec, num_classes: int | None, num_styles: int | None) -> None:
    """An objective with labels has one expert per class, or at least one per style; None: not known yet.

    Raises:
        StudyError: there are more or fewer, or the data have no styles.
    """
    name, num_experts = trial.objective.name, trial.model.num_experts
    if not trial.objective.needs_labels:
        return
    if trial.objective.label_kind == "class":
        if num_classes not in (None, num_experts):
            raise StudyError(
                f"{name} routing needs one expert per class: set model.num_experts to {num_classes} "
                f"(it is {num_experts})"
            )
    elif num_styles == 0:
        raise StudyError(
            f"{name} routes by style, and data of the source {trial.data.source} have no styles; "
            f"set data.source to synthetic, or take another objective"
        )
    elif num_styles is not None and num_experts < num_styles:
        raise StudyError(
            f"{name} routing needs an expert for each style: set model.num_experts to {num_styles} or more "
            f"(it is {num_experts})"
        )


def trial_id(trial: TrialSpec, data_fingerprint: str) -> str:
    """First 12 hex digits of the SHA-256 of all that can change the numbers: spec, data, `NUMERICS_VERSION`, and the
    version and source of each plug-in, which are imported for that.

    Raises:
        PluginError: a plug-in is not allowed, not installed or fails.
    """
    everything = {"trial": trial.identity(), "data": data_fingerprint, "numerics": NUMERICS_VERSION}
    if plugins := plugin_identities(trial):
        everything["plugins"] = plugins
    canonical = json.dumps(everything, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def trial_with(base: TrialSpec, values: Mapping[str, Any], supervised: Supervised = _SUPERVISED) -> TrialSpec:
    """`base` with the fields at dotted paths replaced.

    Args:
        base: an unsupervised or supervised trial.
        values: dotted path: new value.
        supervised: objective of the trial where `values` make its routing supervised and do not say otherwise. A
            study has one by its preset: `StudyBase.trial_with`.

    Raises:
        StudyError: a path is unknown or a value does not fit.
    """
    below_plugins = plugin_paths(base, {path: (value,) for path, value in values.items()})
    for path in values:
        try:
            check_trial_path(path, "trial", below_plugins)
        except ValueError as error:
            raise StudyError(str(error)) from None
    tree = merge_trial(base.model_dump(mode="json"), assign({}, values), supervised)
    try:
        return TrialSpec.model_validate(tree)
    except ValidationError as error:
        chosen = ", ".join(f"{path}={reprlib.repr(value)}" for path, value in values.items())
        raise StudyError(f"trial with {chosen}: {one_line(error, tree, TrialSpec)}") from None


def value_at(trial: TrialSpec, path: str) -> Any:
    """The value at a dotted path of a trial, as plain JSON. Raises KeyError when this trial has no such field."""
    value: Any = trial.model_dump(mode="json")
    for key in path.split("."):
        if not isinstance(value, dict):
            raise KeyError(path)
        value = value[key]
    return value


_PLUGIN_PATHS: tuple[type[PluginReference], ...] = (PluginData, PluginEncoder, PluginDecoder, PluginObjective)


def plugin_paths(base: TrialSpec, values: Mapping[str, Iterable[Any]]) -> tuple[str, ...]:
    """Dotted paths at which `base`, or `base` with one of the `values` at a dotted path, may have a plug-in."""
    trees = [base.model_dump(mode="json"), *(assign({}, {path: one}) for path, many in values.items() for one in many)]
    return tuple(reference.where for reference in _PLUGIN_PATHS if any(_has_plugin(tree, reference) for tree in trees))


def _has_plugin(tree: Any, reference: type[PluginReference]) -> bool:
    for key in reference.where.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    name = tree.get(reference.tag) if isinstance(tree, Mapping) else tree
    return isinstance(name, str) and names_plugin(reference.kind, name)


def check_trial_path(path: str, where: str, below_plugins: Iterable[str] = ()) -> None:
    """Raises ValueError unless `path` names a field that a study may vary; `where` begins the message.

    Below `below_plugins` any path is accepted: it names a parameter of a plug-in, which alone can tell.
    """
    known = dotted_keys(TrialSpec)
    if path == "seed":
        raise ValueError(f"{where}.seed: seeds are set by 'seeds' (grid) or 'base.seed' (search)")
    if path == "dataset" and where != "trial":
        raise ValueError(f"{where}.dataset: a name, not a setting; give each data setting its name under 'datasets'")
    # Below data.combined.parts the path goes through a mapping whose keys are names.
    free = ("data.parts", *below_plugins)
    if path not in known and not path.startswith(tuple(f"{prefix}." for prefix in free)):
        raise ValueError(f"{where}.{path}: unknown key{nearest(path, known)}")
