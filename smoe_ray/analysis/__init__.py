"""From the results table to the numbers behind a figure: DataFrames in, NamedTuples out; no torch, no files."""

from smoe_ray.analysis.arms import arms
from smoe_ray.analysis.curves import Curve, Panel, TrainingCurves, training_curves
from smoe_ray.analysis.experts import (
    Baseline,
    LossAgainstExperts,
    TrialUsage,
    UsageOverEpochs,
    loss_against_experts,
    usage_over_epochs,
)
from smoe_ray.analysis.scaling import (
    Diagonal,
    Grid,
    LossAgainstSamplesPerExpert,
    LossSurface,
    Surface,
    loss_against_samples_per_expert,
    loss_surface,
)
from smoe_ray.analysis.trials import last_evaluated

__all__ = [
    "Baseline",
    "Curve",
    "Diagonal",
    "Grid",
    "LossAgainstExperts",
    "LossAgainstSamplesPerExpert",
    "LossSurface",
    "Panel",
    "Surface",
    "TrainingCurves",
    "TrialUsage",
    "UsageOverEpochs",
    "arms",
    "last_evaluated",
    "loss_against_experts",
    "loss_against_samples_per_expert",
    "loss_surface",
    "training_curves",
    "usage_over_epochs",
]
