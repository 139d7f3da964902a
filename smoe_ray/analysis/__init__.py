"""Analysis of results: from the results table to the numbers behind a figure. DataFrames in, NamedTuples out.

Imports no torch and touches no files.
"""

from smoe_ray.analysis.arm_labels import arms, coarse_arms
from smoe_ray.analysis.bimodality import BimodalityTest, bimodality_tests
from smoe_ray.analysis.comparison import ArmComparison, CellOutcomes, Difference, compare_arms, compare_cells
from smoe_ray.analysis.curves import Curve, Panel, TrainingCurves, training_curves
from smoe_ray.analysis.data_homogeneity import Condition, Homogeneity, homogeneity
from smoe_ray.analysis.dataset_verdicts import DatasetVerdict, Verdict, dataset_verdict
from smoe_ray.analysis.datasets import dataset_names, of_dataset
from smoe_ray.analysis.expert_conclusion import Conclusion, MissingRuns
from smoe_ray.analysis.expert_forecast import BestCurve, FittedSurface, Forecast
from smoe_ray.analysis.expert_routing import Agreement, Routing, routing, routing_within_classes
from smoe_ray.analysis.experts import (
    Baseline,
    InUse,
    LossAgainstExperts,
    TrialInUse,
    TrialUsage,
    UsageOverEpochs,
    experts_in_use,
    loss_against_experts,
    usage_over_epochs,
)
from smoe_ray.analysis.gallery import (
    ExpertBlock,
    ExpertGallery,
    Interpolation,
    LatentPath,
    SwapMatrix,
    expert_gallery,
    interpolation,
    swap_matrix,
)
from smoe_ray.analysis.gaussian_process import GaussianProcessEstimate
from smoe_ray.analysis.intervals import MeanInterval, mean_interval
from smoe_ray.analysis.latent_separability import (
    MeanOverTrials,
    ProbeBar,
    ProbeBars,
    ProbePanel,
    Separability,
    SeparabilityOverTrials,
    probe_bars,
    separability,
    separability_over_trials,
)
from smoe_ray.analysis.maps import ColouredMap, Colouring, LatentMap, coloured_map, latent_map
from smoe_ray.analysis.outcomes import last_evaluated, with_soft_loss
from smoe_ray.analysis.phase_diagrams import PhaseDiagram, PhasePanel, phase_diagram
from smoe_ray.analysis.posterior import collapsed_posteriors, posterior_warning
from smoe_ray.analysis.recommendation import Recommendation, Recommendations, recommend, recommend_from_runs, study_runs
from smoe_ray.analysis.routing_by_label import LabelRouting, has_label_routing, label_routing
from smoe_ray.analysis.scaling import (
    Diagonal,
    Grid,
    LossAgainstSamplesPerExpert,
    LossSurface,
    Surface,
    fitted_grid,
    loss_against_samples_per_expert,
    loss_surface,
)
from smoe_ray.analysis.style_agreement import (
    ArmStyles,
    ExpertsPerStyle,
    compare_style_agreement,
    experts_per_style,
    style_agreements,
)
from smoe_ray.analysis.summary import Representative, Representatives, arm_summary, representatives, trial_summary
from smoe_ray.analysis.surface_fit import Cells, Form, HeldOut, NoiseFloor, SurfaceFit, fit_surface
from smoe_ray.analysis.survival import (
    CollapseRate,
    ExpertSurvival,
    Survival,
    collapse_rates,
    expert_deaths,
    expert_survival,
)
from smoe_ray.analysis.tree_layers import (
    TreeRouting,
    TreeRoutingOverTrials,
    tree_routing,
    tree_routing_over_trials,
)

__all__ = [
    "Agreement",
    "ArmComparison",
    "ArmStyles",
    "Baseline",
    "BestCurve",
    "BimodalityTest",
    "CellOutcomes",
    "Cells",
    "CollapseRate",
    "ColouredMap",
    "Colouring",
    "Conclusion",
    "Condition",
    "Curve",
    "DatasetVerdict",
    "Diagonal",
    "Difference",
    "ExpertBlock",
    "ExpertGallery",
    "ExpertSurvival",
    "ExpertsPerStyle",
    "FittedSurface",
    "Forecast",
    "Form",
    "GaussianProcessEstimate",
    "Grid",
    "HeldOut",
    "Homogeneity",
    "InUse",
    "Interpolation",
    "LabelRouting",
    "LatentMap",
    "LatentPath",
    "LossAgainstExperts",
    "LossAgainstSamplesPerExpert",
    "LossSurface",
    "MeanInterval",
    "MeanOverTrials",
    "MissingRuns",
    "NoiseFloor",
    "Panel",
    "PhaseDiagram",
    "PhasePanel",
    "ProbeBar",
    "ProbeBars",
    "ProbePanel",
    "Recommendation",
    "Recommendations",
    "Representative",
    "Representatives",
    "Routing",
    "Separability",
    "SeparabilityOverTrials",
    "Surface",
    "SurfaceFit",
    "Survival",
    "SwapMatrix",
    "TrainingCurves",
    "TreeRouting",
    "TreeRoutingOverTrials",
    "TrialInUse",
    "TrialUsage",
    "UsageOverEpochs",
    "Verdict",
    "arm_summary",
    "arms",
    "bimodality_tests",
    "coarse_arms",
    "collapse_rates",
    "collapsed_posteriors",
    "coloured_map",
    "compare_arms",
    "compare_cells",
    "compare_style_agreement",
    "dataset_names",
    "dataset_verdict",
    "expert_deaths",
    "expert_gallery",
    "expert_survival",
    "experts_in_use",
    "experts_per_style",
    "fit_surface",
    "fitted_grid",
    "has_label_routing",
    "homogeneity",
    "interpolation",
    "label_routing",
    "last_evaluated",
    "latent_map",
    "loss_against_experts",
    "loss_against_samples_per_expert",
    "loss_surface",
    "mean_interval",
    "of_dataset",
    "phase_diagram",
    "posterior_warning",
    "probe_bars",
    "recommend",
    "recommend_from_runs",
    "representatives",
    "routing",
    "routing_within_classes",
    "separability",
    "separability_over_trials",
    "study_runs",
    "style_agreements",
    "swap_matrix",
    "training_curves",
    "tree_routing",
    "tree_routing_over_trials",
    "trial_summary",
    "usage_over_epochs",
    "with_soft_loss",
]
