"""Studies and trials as frozen pydantic models: every choice that a study can make, with its unit and default.

A *trial* is one training run, fully described by a `TrialSpec`. A *study* describes many: a `GridStudy` crosses axes
and seeds, a `SearchStudy` lets a sampler propose. Axes and search spaces name fields of the trial by dotted path
(``model.num_experts``). Unknown keys are errors everywhere.

This package needs pydantic alone; a YAML reader is loaded only by `load_study`.
"""

from smoe_ray.spec.architectures import MAX_SIDE, MIN_SIDE, ImageShape
from smoe_ray.spec.base import NAME_PATTERN, Spec
from smoe_ray.spec.data import (
    CLASS_PATTERN,
    CombinedData,
    DataSpec,
    ImageData,
    LeafData,
    PluginData,
    QuickDrawData,
    SyntheticData,
    drawing_ink,
)
from smoe_ray.spec.data_base import (
    IMAGE_SIDE,
    ClassName,
    DataSpecBase,
    DrawingColours,
    ImageFormat,
    Imbalance,
)
from smoe_ray.spec.model import ModelSpec, PluginDecoder, PluginEncoder
from smoe_ray.spec.named_data import (
    Cifar100Data,
    EmnistData,
    MedMnistData,
    NamedData,
    NamedDataBase,
    ParquetData,
)
from smoe_ray.spec.objectives import (
    BalancedObjectiveSpec,
    Blend,
    Expected,
    Likelihood,
    Objective,
    ObjectiveSpec,
    PluginObjective,
    Supervised,
)
from smoe_ray.spec.paths import assign, dotted_keys, merge, with_roots
from smoe_ray.spec.plugin import PluginReference, plugin_identities, plugin_references
from smoe_ray.spec.search import (
    SCALAR_METRICS,
    Choices,
    Distribution,
    FloatRange,
    IntRange,
    PrunerSpec,
    SamplerSpec,
    SearchObjective,
    SearchStudy,
    first_objective,
    wanted_values,
)
from smoe_ray.spec.study import PRESETS, CollapseSpec, GridStudy
from smoe_ray.spec.training import Budget, EvaluationSpec, ResourcesSpec, TrainingSpec, WorkerRange, Workers
from smoe_ray.spec.trial import (
    NUMERICS_VERSION,
    TrialSpec,
    check_experts_per_class,
    plugin_paths,
    trial_id,
    trial_with,
    value_at,
)
from smoe_ray.spec.yaml_io import (
    MAX_STUDY_BYTES,
    Study,
    dump_study,
    load_data_study,
    load_study,
    parse_study,
    read_name,
    roots,
)

__all__ = [
    "CLASS_PATTERN",
    "IMAGE_SIDE",
    "MAX_SIDE",
    "MAX_STUDY_BYTES",
    "MIN_SIDE",
    "NAME_PATTERN",
    "NUMERICS_VERSION",
    "PRESETS",
    "SCALAR_METRICS",
    "BalancedObjectiveSpec",
    "Blend",
    "Budget",
    "Choices",
    "Cifar100Data",
    "ClassName",
    "CollapseSpec",
    "CombinedData",
    "DataSpec",
    "DataSpecBase",
    "Distribution",
    "DrawingColours",
    "EmnistData",
    "EvaluationSpec",
    "Expected",
    "FloatRange",
    "GridStudy",
    "ImageData",
    "ImageFormat",
    "ImageShape",
    "Imbalance",
    "IntRange",
    "LeafData",
    "Likelihood",
    "MedMnistData",
    "ModelSpec",
    "NamedData",
    "NamedDataBase",
    "Objective",
    "ObjectiveSpec",
    "ParquetData",
    "PluginData",
    "PluginDecoder",
    "PluginEncoder",
    "PluginObjective",
    "PluginReference",
    "PrunerSpec",
    "QuickDrawData",
    "ResourcesSpec",
    "SamplerSpec",
    "SearchObjective",
    "SearchStudy",
    "Spec",
    "Study",
    "Supervised",
    "SyntheticData",
    "TrainingSpec",
    "TrialSpec",
    "WorkerRange",
    "Workers",
    "assign",
    "check_experts_per_class",
    "dotted_keys",
    "drawing_ink",
    "dump_study",
    "first_objective",
    "load_data_study",
    "load_study",
    "merge",
    "parse_study",
    "plugin_identities",
    "plugin_paths",
    "plugin_references",
    "read_name",
    "roots",
    "trial_id",
    "trial_with",
    "value_at",
    "wanted_values",
    "with_roots",
]
