"""What each expert encodes: arrays of one trial, or of several seeds, in; NamedTuples out (arXiv:2605.20610).

Selectivity, separability of classes, exciting inputs, tuning, pixel features, mismatch of routing and tuning,
similarity, stability across seeds, ablation, and the paper's three findings. docs/metrics.md has the formulas.
"""

from smoe_ray.analysis.encoding.ablation import Ablation, ablate_experts
from smoe_ray.analysis.encoding.class_separability import (
    ExpertSeparability,
    HiddenSeparability,
    expert_separability,
    hidden_separability,
)
from smoe_ray.analysis.encoding.exciting import ExcitingInputs, Specificity, exciting_inputs, input_specificity
from smoe_ray.analysis.encoding.features import (
    BeyondClass,
    PixelFeatures,
    beyond_class,
    feature_profile,
    pixel_features,
)
from smoe_ray.analysis.encoding.findings import (
    Criterion,
    EncodingFinding,
    SeedEncoding,
    seed_encoding,
    three_findings,
)
from smoe_ray.analysis.encoding.mismatch import (
    ClassPreference,
    RoutingMismatch,
    advantage,
    class_preference,
    routing_mismatch,
)
from smoe_ray.analysis.encoding.permutation import PERMUTATIONS, PermutationTest, SeedStatistic, over_seeds
from smoe_ray.analysis.encoding.selectivity import ClassSelectivity, class_selectivity, lifetime_sparseness
from smoe_ray.analysis.encoding.similarity import (
    ExpertSimilarity,
    SeedSimilarity,
    cka_matrix,
    expert_similarity,
    linear_cka,
    similarity_across_seeds,
)
from smoe_ray.analysis.encoding.stability import (
    ClassAxis,
    FirstSplit,
    SeedAgreement,
    animate_classes,
    axis_agreement,
    class_axis,
    dichotomy_agreement,
    first_split,
    partition_agreement,
    tuning_agreement,
)
from smoe_ray.analysis.encoding.tuning import (
    ORIENTATION_PERIOD,
    ExpertTuning,
    TuningCurve,
    TuningCurves,
    expert_tuning,
    orientation_index,
    relative_precision,
    tuning_curves,
)

__all__ = [
    "ORIENTATION_PERIOD",
    "PERMUTATIONS",
    "Ablation",
    "BeyondClass",
    "ClassAxis",
    "ClassPreference",
    "ClassSelectivity",
    "Criterion",
    "EncodingFinding",
    "ExcitingInputs",
    "ExpertSeparability",
    "ExpertSimilarity",
    "ExpertTuning",
    "FirstSplit",
    "HiddenSeparability",
    "PermutationTest",
    "PixelFeatures",
    "RoutingMismatch",
    "SeedAgreement",
    "SeedEncoding",
    "SeedSimilarity",
    "SeedStatistic",
    "Specificity",
    "TuningCurve",
    "TuningCurves",
    "ablate_experts",
    "advantage",
    "animate_classes",
    "axis_agreement",
    "beyond_class",
    "cka_matrix",
    "class_axis",
    "class_preference",
    "class_selectivity",
    "dichotomy_agreement",
    "exciting_inputs",
    "expert_separability",
    "expert_similarity",
    "expert_tuning",
    "feature_profile",
    "first_split",
    "hidden_separability",
    "input_specificity",
    "lifetime_sparseness",
    "linear_cka",
    "orientation_index",
    "over_seeds",
    "partition_agreement",
    "pixel_features",
    "relative_precision",
    "routing_mismatch",
    "seed_encoding",
    "similarity_across_seeds",
    "three_findings",
    "tuning_agreement",
    "tuning_curves",
]
