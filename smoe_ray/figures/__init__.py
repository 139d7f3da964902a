"""Figures as functions of what `smoe_ray.analysis` returns: no arithmetic, and no files but through `save`.

Every figure is two functions, *info* then *plot*; `FIGURES` pairs them by kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.analysis import (
    loss_against_experts,
    loss_against_samples_per_expert,
    loss_surface,
    training_curves,
    usage_over_epochs,
)
from smoe_ray.figures.curves import plot_training_curves
from smoe_ray.figures.experts import plot_loss_against_experts, plot_usage_over_epochs
from smoe_ray.figures.save import save
from smoe_ray.figures.scaling import plot_loss_against_samples_per_expert, plot_loss_surface

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class FigureKind(NamedTuple):
    """How one kind of figure is made: ``plot(info(results))``."""

    info: Callable[[pd.DataFrame], Any]
    """Raises ResultsError when the results do not hold what the figure shows."""
    plot: Callable[[Any], Figure]
    description: str


FIGURES: dict[str, FigureKind] = {
    "training_curves": FigureKind(
        training_curves, plot_training_curves, "reconstruction error against epoch, a line per arm"
    ),
    "loss_against_experts": FigureKind(
        loss_against_experts,
        plot_loss_against_experts,
        "test loss against active experts, supervised baseline as a band",
    ),
    "loss_surface": FigureKind(
        loss_surface, plot_loss_surface, "test loss over training images and active experts, interpolated"
    ),
    "loss_against_samples_per_expert": FigureKind(
        loss_against_samples_per_expert,
        plot_loss_against_samples_per_expert,
        "test loss against training images per active expert, a curve per amount of data",
    ),
    "usage_over_epochs": FigureKind(
        usage_over_epochs, plot_usage_over_epochs, "share of the test images that each expert takes, over epochs"
    ),
}

__all__ = [
    "FIGURES",
    "FigureKind",
    "plot_loss_against_experts",
    "plot_loss_against_samples_per_expert",
    "plot_loss_surface",
    "plot_training_curves",
    "plot_usage_over_epochs",
    "save",
]
