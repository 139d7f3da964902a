"""Studies and trials as frozen pydantic models: every choice that a study can make, with its unit and default.

A *trial* is one training run, fully described by a `TrialSpec`. A *study* describes many: a `GridStudy` crosses axes
and seeds, a `SearchStudy` lets a sampler propose. Axes and search spaces name fields of the trial by dotted path
(``model.num_experts``). Unknown keys are errors everywhere.

This module needs pydantic alone; a YAML reader is loaded only by `load_study`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from smoe_ray.errors import StudyError

NUMERICS_VERSION = 1
"""Raised whenever the same spec on the same data would train to other numbers; part of every `trial_id`."""

IMAGE_SIDE = 28
"""Height and width of every image, in pixels."""

MAX_STUDY_BYTES = 1_000_000
"""A study file above this size (bytes) is refused."""

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
"""Names of studies: they become folder, job and Kubernetes object names."""

CLASS_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}$"
"""Names of classes: they become file and folder names below `data.root`."""

ClassName = Annotated[str, Field(pattern=CLASS_PATTERN)]
DrawingColours = Literal["black_on_white", "white_on_black"]


_EXPONENT_FORM = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
"""Numbers such as 1e-4: floats to YAML 1.2 and to everyone who writes them, but strings to PyYAML (YAML 1.1)."""

_NUMBERS = (int, float, int | None, float | None)


class _Spec(BaseModel):
    """Base of all spec models: frozen, unknown keys refused, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    not_identity: ClassVar[frozenset[str]] = frozenset()
    """Fields that cannot change the numbers of a trial (where data lies, how many threads): not hashed."""

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, fields: Any) -> Any:
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields and cls.model_fields[name].annotation in _NUMBERS:
                raise ValueError(f"'{name}' needs a number, not {str(value).lower()}")
        return fields

    def identity(self) -> dict[str, Any]:
        """Everything in this spec that can change the numbers of a trial, as plain JSON values."""
        return {name: _identity(getattr(self, name)) for name in _names_of_identity(type(self))}


@cache
def _names_of_identity(spec: type[_Spec]) -> tuple[str, ...]:
    return tuple(sorted(spec.model_fields.keys() - spec.not_identity))


def _identity(value: Any) -> Any:
    if isinstance(value, _Spec):
        return value.identity()
    if isinstance(value, Budget):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_identity(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _identity(item) for key, item in sorted(value.items())}
    return value


# --- data -------------------------------------------------------------------------------------------------------------


class Imbalance(_Spec):
    """Unequal class sizes in the training set; the test set stays balanced. Exactly one of the two fields."""

    weights: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = Field(
        default=None, description="share of the balanced class size that a class keeps, 0 < w <= 1; 1 where not named"
    )
    exponent: float | None = Field(
        default=None,
        gt=0,
        description="long tail: class number c (from 0, in the order of `classes`) keeps (c+1)^-exponent",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.weights is None) == (self.exponent is None):
            raise ValueError("give exactly one of 'weights' and 'exponent'")
        return self


class _DataSpec(_Spec):
    """What every data source has in common. Images are 28x28 grey, uint8; the model sees them as [0, 1]."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"root", "download"})

    classes: tuple[ClassName, ...] | None = Field(
        default=None, min_length=1, description="classes to use, in label order; null: all that the source has"
    )
    train_per_class: int | None = Field(
        default=None, ge=1, description="training images per class at fraction 1 (the first n); null: all there are"
    )
    test_per_class: int | None = Field(
        default=None, ge=1, description="test images per class, the same at every fraction; null: all there are"
    )
    fraction: float = Field(
        default=1.0, gt=0, le=1, description="share of the training images: the first int(fraction * n) of each class"
    )
    imbalance: Imbalance | None = Field(default=None, description="unequal class sizes in training; null: balanced")

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError("a class is named twice")
        return classes


class SyntheticData(_DataSpec):
    """Sketches drawn by this package: families with named styles and continuous parameters, all recorded."""

    source: Literal["synthetic"] = "synthetic"
    classes: tuple[Literal["face", "eye", "cat", "snowflake", "pencil"], ...] = Field(
        default=("face", "eye", "cat", "snowflake", "pencil"), min_length=1, description="families, in label order"
    )
    train_per_class: int = Field(
        default=2000, ge=1, le=1_000_000, description="training images per class at fraction 1"
    )
    test_per_class: int = Field(default=500, ge=1, le=1_000_000, description="test images per class")
    jitter: float = Field(
        default=1.0, ge=0, le=3, description="hand tremor, in pixels of the 56x56 canvas; 0 draws exact lines"
    )
    drawing_seed: int = Field(default=0, ge=0, description="seed of the drawings (not of the training)")
    ink: DrawingColours = Field(default="black_on_white", description="what the model sees")


class QuickDrawData(_DataSpec):
    """Google's Quick, Draw! drawings: sketch-rnn ``<class>.npz`` (rasterised here) or ``<class>.npy`` bitmaps."""

    source: Literal["quickdraw"] = "quickdraw"
    classes: tuple[ClassName, ...] = Field(
        default=("face", "eye", "cat", "snowflake", "pencil"), min_length=1, description="categories, in label order"
    )
    train_per_class: int = Field(default=70_000, ge=1, description="training drawings per class at fraction 1")
    test_per_class: int = Field(default=2_500, ge=1, description="test drawings per class")
    layout: Literal["sketchrnn", "bitmap"] = Field(
        default="sketchrnn", description="sketchrnn: vector drawings in .npz; bitmap: Google's 28x28 .npy"
    )
    ink: DrawingColours = Field(default="black_on_white", description="what the model sees, whatever the files hold")
    root: str | None = Field(default=None, description="folder or URI with the files; null: the download cache")
    download: bool = Field(default=False, description="fetch absent categories from Google's public bucket")


class ImageData(_DataSpec):
    """Labelled images from disk: MNIST-format IDX files, an ``.npz`` with x and y, or a folder of image files."""

    source: Literal["images"] = "images"
    root: str = Field(description="folder with IDX files or class folders, or an .npz file; a path or a URI")
    layout: Literal["auto", "idx", "npz", "folder"] = Field(
        default="auto", description="auto: decided by what root holds"
    )


LeafData = Annotated[SyntheticData | QuickDrawData | ImageData, Field(discriminator="source")]


class CombinedData(_DataSpec):
    """Several sources as one: labels distinct, classes named ``<part>/<class>``; `classes` may choose among them."""

    source: Literal["combined"] = "combined"
    classes: tuple[Annotated[str, Field(max_length=130)], ...] | None = Field(
        default=None, min_length=1, description="classes to use, as <part>/<class>; null: all"
    )
    parts: dict[Annotated[str, Field(pattern=NAME_PATTERN)], LeafData] = Field(
        min_length=1, description="name of a part: its source"
    )


DataSpec = Annotated[SyntheticData | QuickDrawData | ImageData | CombinedData, Field(discriminator="source")]


# --- model and objective ----------------------------------------------------------------------------------------------


class ModelSpec(_Spec):
    """The SMoE-VAE (arXiv:2509.10025): encoder, gate and E decoders that read the same latent vector."""

    num_experts: int = Field(default=10, ge=1, le=1024, description="decoders configured (E)")
    latent_dim: int = Field(default=32, ge=1, le=4096, description="size of the latent vector (Z)")
    encoder: Literal["lite", "medium"] = Field(default="medium", description="convolutional encoder")
    decoder: Literal["lite", "medium", "large"] = Field(default="lite", description="architecture of each expert")
    gate_hidden: tuple[Annotated[int, Field(strict=True, ge=1, le=65536)], ...] = Field(
        default=(64, 32), description="hidden units of the gate MLP, layer by layer"
    )


class Blend(_Spec):
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


class Expected(_Spec):
    """Expected error of an expert drawn by the gate, plus balance; no entropy term."""

    name: Literal["expected"] = "expected"
    lambda_balance: float = Field(
        default=400.0, ge=0, description="weight of L_balance; divided by 128 in the per-image loss"
    )
    balance_form: Literal["released_code", "paper_text"] = Field(
        default="released_code",
        description="released_code: E * sum of squares; paper_text: E * mean of squares (1/E of it)",
    )


class Likelihood(_Spec):
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


Objective = Annotated[Blend | Expected | Likelihood, Field(discriminator="name")]


# --- training and evaluation ------------------------------------------------------------------------------------------


class Budget:
    """How long a trial trains: ``"20 epochs"`` or ``"5000 steps"``. Immutable."""

    __slots__ = ("amount", "unit")
    amount: int
    unit: Literal["epochs", "steps"]

    def __init__(self, amount: int, unit: Literal["epochs", "steps"]) -> None:
        object.__setattr__(self, "amount", amount)
        object.__setattr__(self, "unit", unit)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("Budget is immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        return Budget, (self.amount, self.unit)

    @classmethod
    def parse(cls, value: Any) -> Budget:
        """Read ``"<n> epochs"`` or ``"<n> steps"``. Raises ValueError on anything else."""
        if isinstance(value, Budget):
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,11}) (epoch|step)s?", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("a budget is written '20 epochs' or '5000 steps'")
        return cls(int(match[1]), "epochs" if match[2] == "epoch" else "steps")

    def steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole trial when one pass over the data takes `steps_per_epoch`."""
        return self.amount * steps_per_epoch if self.unit == "epochs" else self.amount

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


_BudgetField = Annotated[
    Budget,
    BeforeValidator(Budget.parse),
    PlainSerializer(str, return_type=str),
]


class TrainingSpec(_Spec):
    """Optimizer (Adam), budget and numerical options."""

    budget: _BudgetField = Field(
        default=Budget(20, "epochs"), description="'20 epochs' (passes) or '5000 steps' (updates)"
    )
    batch_size: int = Field(default=128, ge=1, description="images an optimizer step (B), over all workers")
    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step size")
    beta: float = Field(default=0.01, ge=0, description="weight of the KL term (nats an image)")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16: autocast of forward and backward")
    compile: bool = Field(default=False, description="train through torch.compile")

    model_config = ConfigDict(arbitrary_types_allowed=True)


class EvaluationSpec(_Spec):
    """How `test.*` is measured, on the fixed test set."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"save_embeddings"})

    gating: Literal["hard", "soft"] = Field(
        default="hard", description="what test.reconstruction uses; hard: the argmax expert alone"
    )
    latent: Literal["mean", "sample"] = Field(
        default="mean", description="z = mu, or z drawn from the posterior (authors' code)"
    )
    every: int = Field(
        default=1, ge=1, description="epochs between two evaluations; the last epoch is always evaluated"
    )
    save_embeddings: bool = Field(
        default=True, description="keep embeddings.npz (latent, expert, reconstruction of each test image)"
    )


class WorkerRange(_Spec):
    """An elastic number of data-parallel workers: training goes on with what the cluster has."""

    min: int = Field(ge=1, le=1024, description="fewest workers to train with")
    max: int = Field(ge=1, le=1024, description="most workers to train with")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


def _kind_of_workers(value: Any) -> str:
    return "range" if isinstance(value, (Mapping, WorkerRange)) else "number"


Workers = Annotated[
    Annotated[int, Field(ge=1, le=1024), Tag("number")] | Annotated[WorkerRange, Tag("range")],
    Discriminator(_kind_of_workers),
]


class ResourcesSpec(_Spec):
    """What one trial occupies."""

    cpus: int = Field(default=1, ge=1, le=1024, description="CPU threads of a worker")
    gpus: float = Field(
        default=0, ge=0, le=64, description="GPUs of a worker: a whole number, or a share of one that trials divide"
    )
    workers: Workers = Field(
        default=1, description="data-parallel workers that share each batch; {min, max}: as many as there is room for"
    )

    @field_validator("gpus")
    @classmethod
    def _whole_or_share(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("more than one GPU must be a whole number")
        return gpus

    @property
    def is_distributed(self) -> bool:
        """Whether more than one worker may train the trial."""
        return self.workers != 1


class TrialSpec(_Spec):
    """One training run. Defaults are those of the preset `recommended`."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"resources"})

    seed: int = Field(default=0, ge=0, lt=2**31, description="fixes initial weights, batch order and latent noise")
    data: DataSpec = Field(default=SyntheticData(), description="where images come from and which are used")
    model: ModelSpec = Field(default=ModelSpec(), description="architecture")
    routing: Literal["unsupervised", "supervised"] = Field(
        default="unsupervised",
        description="supervised: the gate learns the class label and the objective is unused",
    )
    objective: Objective | None = Field(
        default=Likelihood(), description="loss of unsupervised routing; null when supervised"
    )
    training: TrainingSpec = Field(default=TrainingSpec(), description="optimizer and budget")
    evaluation: EvaluationSpec = Field(default=EvaluationSpec(), description="how test columns are measured")
    resources: ResourcesSpec = Field(default=ResourcesSpec(), description="what the trial occupies")

    @model_validator(mode="after")
    def _objective_matches_routing(self) -> Self:
        # The supervised baseline has its own loss. Dropping the unused objective keeps its trial_id honest:
        # two supervised trials that differ in it alone are the same trial.
        if self.routing == "supervised":
            object.__setattr__(self, "objective", None)
        elif self.objective is None:
            raise ValueError("unsupervised routing needs an objective: {name: blend | expected | likelihood}")
        return self


def check_experts_per_class(trial: TrialSpec, num_classes: int) -> None:
    """Supervised routing sends each class to an expert of its own. Raises StudyError when there are not as many."""
    if trial.routing == "supervised" and trial.model.num_experts != num_classes:
        raise StudyError(
            f"supervised routing needs one expert a class: set model.num_experts to {num_classes} "
            f"(it is {trial.model.num_experts})"
        )


def trial_id(trial: TrialSpec, data_fingerprint: str) -> str:
    """First 12 hex digits of the SHA-256 of all that can change the numbers: spec, data, `NUMERICS_VERSION`."""
    everything = {"trial": trial.identity(), "data": data_fingerprint, "numerics": NUMERICS_VERSION}
    canonical = json.dumps(everything, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


# --- presets ----------------------------------------------------------------------------------------------------------

_PAPER = {
    "model": {"encoder": "medium", "decoder": "lite", "latent_dim": 32, "gate_hidden": [64, 32]},
    "routing": "unsupervised",
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper_text": _PAPER
    | {
        "objective": {"name": "blend", "lambda_balance": 200, "lambda_entropy": 400, "balance_form": "paper_text"},
        "training": {"learning_rate": 1e-4, "beta": 0.1, "batch_size": 128, "budget": "20 epochs"},
        "evaluation": {"gating": "hard", "latent": "sample"},
    },
    "released_code": _PAPER
    | {
        "objective": {"name": "blend", "lambda_balance": 200, "lambda_entropy": 400, "balance_form": "released_code"},
        "training": {"learning_rate": 1e-3, "beta": 0.01, "batch_size": 128, "budget": "20 epochs"},
        "evaluation": {"gating": "hard", "latent": "sample"},
    },
    "recommended": _PAPER
    | {
        "objective": {"name": "likelihood", "lambda_balance": 400, "variance_start": 8, "variance_end": 1},
        "training": {"learning_rate": 1e-3, "beta": 0.01, "batch_size": 128, "budget": "20 epochs"},
        "evaluation": {"gating": "hard", "latent": "mean"},
    },
}
"""What each preset fills in under a study's own `base`: the text of arXiv:2509.10025, its released code (which made the
published numbers), and what we recommend."""

PresetName = Literal["paper_text", "released_code", "recommended"]


# --- studies ----------------------------------------------------------------------------------------------------------

SCALAR_METRICS: tuple[str, ...] = (
    "train.loss",
    "train.reconstruction",
    "train.kl",
    "train.balance",
    "train.entropy",
    "train.cross_entropy",
    "test.reconstruction",
    "test.reconstruction_soft",
    "test.kl",
    "experts.active",
    "experts.effective",
    "experts.active_fraction",
    "experts.max_share",
    "cost.params_active",
    "cost.flops",
    "cost.wall_s",
)
"""Result columns that a search may optimise."""

Metric = Annotated[str, Field(json_schema_extra={"enum": list(SCALAR_METRICS)})]
Scalar = bool | int | float | str | None


class CollapseSpec(_Spec):
    """Stops (prunes) a trial whose experts have died: at least one of the two limits."""

    min_active_fraction: float | None = Field(
        default=None, gt=0, le=1, description="stop below this share of active experts (experts.active_fraction)"
    )
    min_effective: float | None = Field(
        default=None, ge=1, description="stop below this number of effective experts (experts.effective)"
    )
    grace_epochs: int = Field(default=3, ge=0, description="epochs before a trial may be stopped")

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if self.min_active_fraction is None and self.min_effective is None:
            raise ValueError("give 'min_active_fraction', 'min_effective' or both")
        return self


class _Study(_Spec):
    """What grid and search studies have in common."""

    name: str = Field(pattern=NAME_PATTERN, description="folder of the results below OUT")
    question: str = Field(min_length=1, max_length=500, description="the one question that this study answers")
    preset: PresetName = Field(default="recommended", description="fills in what base does not say")
    base: TrialSpec = Field(default=TrialSpec(), description="what all trials share")
    collapse: CollapseSpec | None = Field(default=None, description="stop trials whose experts die; null: let them run")
    max_concurrent_trials: int | None = Field(
        default=None, ge=1, description="most trials at once; null: as many as there is room for"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_base_from_preset(cls, study: Any) -> Any:
        if isinstance(study, dict):
            preset, base = study.get("preset", "recommended"), study.get("base", {})
            if isinstance(preset, str) and preset in PRESETS and isinstance(base, dict):
                return {**study, "base": merge(PRESETS[preset], base)}
        return study


class GridStudy(_Study):
    """All combinations of the axes' values, each with every seed."""

    kind: Literal["grid"] = "grid"
    axes: dict[str, tuple[Any, ...]] = Field(
        default={}, description="dotted path in a trial: values; a mapping is merged over what base has there"
    )
    seeds: tuple[Annotated[int, Field(strict=True, ge=0, lt=2**31)], ...] = Field(
        default=(0,), min_length=1, description="one trial per seed"
    )

    @model_validator(mode="after")
    def _axes_name_fields(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is named twice")
        for path, values in self.axes.items():
            _check_trial_path(path, where="axes")
            if not values:
                raise ValueError(f"axes.{path}: no values")
        return self


class FloatRange(_Spec):
    """A continuous parameter."""

    type: Literal["float"]
    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(default=False, description="sample on a logarithmic scale")
    step: float | None = Field(default=None, gt=0, description="spacing of the values; not together with log")
    when: dict[str, Scalar | tuple[Scalar, ...]] | None = Field(default=None, description="only where these hold")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _check_range(self.low, self.high, self.log)
        if self.log and self.step is not None:
            raise ValueError("'step' and 'log' exclude one another")
        return self


class IntRange(_Spec):
    """A whole-number parameter."""

    type: Literal["int"]
    low: int = Field(description="smallest value")
    high: int = Field(description="largest value")
    log: bool = Field(default=False, description="sample on a logarithmic scale")
    step: int = Field(default=1, ge=1, description="spacing of the values")
    when: dict[str, Scalar | tuple[Scalar, ...]] | None = Field(default=None, description="only where these hold")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _check_range(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ValueError("'step' and 'log' exclude one another")
        return self


class Choices(_Spec):
    """A categorical parameter."""

    type: Literal["categorical"]
    choices: tuple[Scalar, ...] = Field(min_length=1, description="the values")
    when: dict[str, Scalar | tuple[Scalar, ...]] | None = Field(default=None, description="only where these hold")


Distribution = Annotated[FloatRange | IntRange | Choices, Field(discriminator="type")]


class SearchObjective(_Spec):
    """One result column to optimise, as it stands at the end of a trial."""

    metric: Metric = Field(description="result column")
    direction: Literal["minimize", "maximize"] = Field(default="minimize", description="which way is better")

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in SCALAR_METRICS:
            raise ValueError(f"not a result column that can be optimised{_nearest(metric, SCALAR_METRICS)}")
        return metric


class SamplerSpec(_Spec):
    """Optuna sampler that proposes trials."""

    name: Literal["tpe", "random", "nsga2", "gp", "cmaes"] = Field(default="tpe", description="Optuna's sampler")
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of the proposals")


class PrunerSpec(_Spec):
    """Early stopping of hopeless trials, judged on the first objective."""

    name: Literal["none", "median", "asha"] = Field(default="none", description="Optuna's pruner")
    grace_epochs: int = Field(default=3, ge=1, description="epochs before a trial may be pruned")
    reduction_factor: int = Field(default=3, ge=2, description="asha: one in this many goes on at each rung")


class SearchStudy(_Study):
    """Trials proposed one after another by a sampler that learns from the finished ones."""

    kind: Literal["search"]
    space: dict[str, Distribution] = Field(min_length=1, description="dotted path in a trial: what to sample")
    objectives: tuple[SearchObjective, ...] = Field(min_length=1, description="one: best trial; several: Pareto set")
    num_trials: int = Field(ge=1, description="finished trials to reach")
    sampler: SamplerSpec = Field(default=SamplerSpec(), description="who proposes")
    pruner: PrunerSpec = Field(default=PrunerSpec(), description="who stops early; none with several objectives")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for path, distribution in self.space.items():
            _check_trial_path(path, where="space")
            for condition in distribution.when or {}:
                if condition not in self.space:
                    raise ValueError(
                        f"space.{path}.when: '{condition}' is not in space{_nearest(condition, self.space)}"
                    )
                if self.space[condition].when:
                    raise ValueError(f"space.{path}.when: '{condition}' is itself conditional; conditions are one deep")
        if len(self.objectives) > 1 and self.pruner.name != "none":
            raise ValueError("pruner: early stopping works with one objective only")
        conditional = any(distribution.when for distribution in self.space.values())
        categorical = any(isinstance(distribution, Choices) for distribution in self.space.values())
        if self.sampler.name == "cmaes" and (conditional or categorical or len(self.objectives) > 1):
            raise ValueError("sampler: cmaes takes numeric, unconditional parameters and one objective; use tpe")
        return self


Study = Annotated[GridStudy | SearchStudy, Field(discriminator="kind")]
_STUDY: TypeAdapter[GridStudy | SearchStudy] = TypeAdapter(Study)


# --- dotted paths and merging -----------------------------------------------------------------------------------------

_TAGS = ("source", "name")
"""Keys that choose among models (`data.source`, `objective.name`): another value there replaces the whole mapping."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on top, mapping by mapping; one that names another source or objective replaces it."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and not _changes_tag(below, value):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _changes_tag(base: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    return any(tag in over and over[tag] != base.get(tag) for tag in _TAGS)


def assign(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with each dotted path of `values` set. Tags go first, so that a new objective's own fields may follow."""
    result = dict(tree)
    for path in sorted(values, key=lambda path: path.rpartition(".")[2] not in _TAGS):
        value = values[path]
        for key in reversed(path.split(".")):
            value = {key: value}
        result = merge(result, value)
    return result


def trial_with(base: TrialSpec, values: Mapping[str, Any]) -> TrialSpec:
    """`base` with the fields at dotted paths replaced.

    Raises:
        StudyError: a path is unknown or a value does not fit.
    """
    for path in values:
        try:
            _check_trial_path(path, where="trial")
        except ValueError as error:
            raise StudyError(str(error)) from None
    tree = assign(base.model_dump(mode="json"), values)
    try:
        return TrialSpec.model_validate(tree)
    except ValidationError as error:
        chosen = ", ".join(f"{path}={reprlib.repr(value)}" for path, value in values.items())
        raise StudyError(f"trial with {chosen}: {_one_line(error, tree, TrialSpec)}") from None


def with_roots(tree: Any, change: Callable[[str], str], _key: str = "") -> Any:
    """A study as plain values with every value that some trial may have as a `root`, wherever it stands, changed."""
    if isinstance(tree, Mapping):
        return {name: with_roots(value, change, _key if name == "choices" else name) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [with_roots(value, change, _key) for value in tree]
    return change(tree) if isinstance(tree, str) and _key.rpartition(".")[2] == "root" else tree


def roots(study: GridStudy | SearchStudy) -> list[str]:
    """Every value that some trial of a study may have as a `root` of its data."""
    found: list[str] = []

    def note(root: str) -> str:
        found.append(root)
        return root

    with_roots(study.model_dump(mode="json"), note)
    return found


def value_at(trial: TrialSpec, path: str) -> Any:
    """The value at a dotted path of a trial, as plain JSON. Raises KeyError when this trial has no such field."""
    value: Any = trial.model_dump(mode="json")
    for key in path.split("."):
        if not isinstance(value, dict):
            raise KeyError(path)
        value = value[key]
    return value


@cache
def dotted_keys(model: type[BaseModel]) -> frozenset[str]:
    """Every dotted path that a spec model admits, over all members of its unions."""
    return frozenset(_walk_keys(model, ""))


def _walk_keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for nested in _models_in(field.annotation):
            yield from _walk_keys(nested, f"{prefix}{name}.")


def _models_in(annotation: Any, below_names: bool = False) -> Iterator[type[BaseModel]]:
    """Spec models of a field; `below_names`: also those in a mapping, whose keys are free names and no fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif below_names or getattr(annotation, "__origin__", None) is not dict:
        for argument in get_args(annotation):
            yield from _models_in(argument, below_names)


def _check_trial_path(path: str, where: str) -> None:
    known = dotted_keys(TrialSpec)
    if path == "seed":
        raise ValueError(f"{where}.seed: seeds are set by 'seeds' (grid) or 'base.seed' (search)")
    # Below data.combined.parts the path goes through a mapping whose keys are names.
    if path not in known and not path.startswith("data.parts."):
        raise ValueError(f"{where}.{path}: unknown key{_nearest(path, known)}")


def _check_range(low: float, high: float, log: bool) -> None:
    if low > high:
        raise ValueError(f"low {low} is above high {high}")
    if log and low <= 0:
        raise ValueError("a logarithmic range needs low > 0")


def _nearest(word: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""


# --- reading a study file ---------------------------------------------------------------------------------------------


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> GridStudy | SearchStudy:
    """Read, override and validate a study file.

    Args:
        path: a YAML file, 1 MB at most.
        overrides: ``key=value`` with a dotted key; values are YAML. A key of the study (``seeds``, ``preset``,
            ``axes.model.num_experts``) or, for short, of its base (``data.root`` means ``base.data.root``).

    Raises:
        StudyError: the file is absent, too large or no YAML mapping, or a key or value is wrong; the message names
            file, dotted key, value and the nearest valid key.
    """
    return parse_study(_read_text(Path(path)), overrides, origin=str(path))


def read_name(path: str | Path) -> str:
    """The name of a study file that may lack what overrides would add. Raises StudyError as `load_study`."""
    tree = _read_yaml(_read_text(Path(path)), str(path))
    name = tree.get("name") if isinstance(tree, dict) else None
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        raise StudyError(f"{path}: name: required, as lower-case letters, digits and dashes (value {name!r})")
    return name


def parse_study(text: str, overrides: Sequence[str] = (), origin: str = "study") -> GridStudy | SearchStudy:
    """`load_study` for a text; `origin` stands for the file in messages."""
    tree = _read_yaml(text, origin)
    if not isinstance(tree, dict):
        raise StudyError(f"{origin}: a study is a mapping with 'name', 'question', 'base' and 'axes' or 'space'")
    for override in overrides:
        tree = _override(tree, override)
    tree.setdefault("kind", "search" if "space" in tree else "grid")
    try:
        return _STUDY.validate_python(tree)
    except ValidationError as error:
        model = SearchStudy if tree["kind"] == "search" else GridStudy
        raise StudyError(f"{origin}: {_one_line(error, tree, model)}") from None


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_STUDY_BYTES:
            raise StudyError(f"{path}: larger than {MAX_STUDY_BYTES:,} bytes; a study file is a short YAML text")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"{path}: no such study file{_other_studies(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read as text: {error}") from None


def dump_study(study: GridStudy | SearchStudy) -> str:
    """The study as YAML text that `parse_study` reads back to an equal study."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes every string that `_read_yaml` would take for a number, and escapes YAML's rarer line breaks."""

    def text(dumper: Dumper, value: str) -> yaml.ScalarNode:
        style = '"' if set(value) & set("\x85\u2028\u2029\ufeff") else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    _know_exponent_form(Dumper)
    tree = study.model_dump(mode="json")
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def _know_exponent_form(resolver: Any) -> None:
    resolver.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT_FORM, list("-+.0123456789"))


def _read_yaml(text: str, origin: str) -> Any:
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        """PyYAML lets a repeated key overwrite the first silently; a study must not."""

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        problem = f"key '{key.value}' stands twice"
                        raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                    seen.add(key.value)
            return node

    _know_exponent_form(UniqueKeyLoader)
    try:
        return yaml.load(text, Loader=UniqueKeyLoader)  # noqa: S506 - a SafeLoader: makes no Python objects
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise StudyError(f"{origin}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise StudyError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None


def _override(tree: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise StudyError(f"--set {override}: write key=value, for instance data.root=/path/to/drawings")
    value = _read_yaml(text, f"--set {override}")
    head, _, rest = key.partition(".")
    if head in ("axes", "space"):  # keys there are dotted paths themselves
        if not rest:
            return {**tree, head: value}
        paths = tree.get(head) or {}
        if not isinstance(paths, dict):
            raise StudyError(f"--set {override}: the study's '{head}' is no mapping of dotted paths")
        return {**tree, head: {**paths, rest: value}}
    if head not in GridStudy.model_fields and head not in SearchStudy.model_fields:
        if head not in TrialSpec.model_fields:
            known = set(GridStudy.model_fields) | set(SearchStudy.model_fields) | dotted_keys(TrialSpec)
            raise StudyError(f"--set {override}: unknown key '{key}'{_nearest(key, known)}")
        key = f"base.{key}"
    return assign(tree, {key: value})


def _other_studies(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist"
    names = [str(candidate) for candidate in path.parent.glob("*.yaml")]
    return _nearest(str(path), names)


def _one_line(error: ValidationError, tree: Any, model: type[BaseModel]) -> str:
    """The first problem that pydantic found, as: dotted key, what is wrong, the value, the nearest valid key."""
    problem = error.errors(include_url=False)[0]
    location = _plain_location(problem["loc"], tree, is_missing=problem["type"] == "missing")
    message = problem["msg"].removeprefix("Value error, ")
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _siblings(problem["loc"], model)
        hint = _nearest(str(location[-1]), known) or f"; valid here: {', '.join(sorted(known))}"
        return f"{key}: unknown key (value {reprlib.repr(problem['input'])}){hint}"
    if problem["type"] == "missing":
        return f"{key}: required, but not given"
    if problem["type"] == "union_tag_invalid":
        context = problem["ctx"]
        tag, allowed = context["tag"], str(context["expected_tags"]).replace("'", "").split(", ")
        key = f"{key}.{context['discriminator']}".strip(".").replace("'", "")
        return f"{key}: {tag!r} is none of {', '.join(allowed)}{_nearest(str(tag), allowed)}"
    if problem["type"] == "union_tag_not_found":
        return f"{key}.{problem['ctx']['discriminator']}: required, but not given".replace("'", "").strip(".")
    if problem["type"] == "literal_error":
        allowed = [word.strip("'") for word in str(problem["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
        value, nearest = reprlib.repr(problem["input"]), _nearest(str(problem["input"]), allowed)
        return f"{key}: {value} is none of {', '.join(allowed)}{nearest}"
    if not key or key == tree.get("kind"):  # a problem of the whole study
        return message
    shown = "" if isinstance(problem["input"], (dict, list)) else f" (value {reprlib.repr(problem['input'])})"
    return f"{key}: {message}{shown}"


def _plain_location(location: Sequence[int | str], tree: Any, is_missing: bool) -> list[int | str]:
    """pydantic's location without the union tags that it puts between the keys of the file, and after the last."""
    plain: list[int | str] = []
    for position, part in enumerate(location):
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            is_last = position == len(location) - 1
            if not (is_last and is_missing):  # a tag, not a key
                continue
        plain.append(part)
    return plain


def _siblings(location: Sequence[int | str], model: type[BaseModel]) -> set[str]:
    """Valid keys beside an unknown one; where a union stands there, those of the member that the tag chose."""
    models: list[type[BaseModel]] = [model]
    for part in location[:-1]:
        deeper = [
            nested
            for candidate in models
            if part in candidate.model_fields
            for nested in _models_in(candidate.model_fields[str(part)].annotation, below_names=True)
        ]
        tagged = [candidate for candidate in models if part in _tag_values(candidate)]
        models = deeper or tagged or models
    return {name for candidate in models for name in candidate.model_fields}


def _tag_values(model: type[BaseModel]) -> tuple[Any, ...]:
    for tag in ("kind", "source", "name", "type"):
        if tag in model.model_fields and get_args(model.model_fields[tag].annotation):
            return get_args(model.model_fields[tag].annotation)
    return ()
