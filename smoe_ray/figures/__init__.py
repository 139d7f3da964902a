"""Figures of the results of `smoe_ray.analysis`: no arithmetic, and only `save` writes files.

Every figure is two functions, *info* then *plot*; `FIGURES` pairs them by kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.analysis import (
    Recommendations,
    compare_arms,
    dataset_verdict,
    expert_survival,
    homogeneity,
    label_routing,
    loss_against_experts,
    loss_against_samples_per_expert,
    loss_surface,
    phase_diagram,
    recommend,
    training_curves,
    usage_over_epochs,
)
from smoe_ray.errors import ResultsError
from smoe_ray.figures.comparison import plot_comparison
from smoe_ray.figures.curves import plot_training_curves
from smoe_ray.figures.data_homogeneity import plot_homogeneity
from smoe_ray.figures.dataset_verdicts import plot_dataset_verdict
from smoe_ray.figures.encoding import (
    plot_ablation,
    plot_class_preference,
    plot_expert_similarity,
    plot_expert_tuning,
)
from smoe_ray.figures.expert_routing import plot_probes, plot_routing
from smoe_ray.figures.experts import plot_loss_against_experts, plot_usage_over_epochs
from smoe_ray.figures.export import render, save
from smoe_ray.figures.gallery import plot_exciting_inputs, plot_gallery, plot_interpolation, plot_swap_matrix
from smoe_ray.figures.maps import plot_map
from smoe_ray.figures.phase_diagrams import plot_phase_diagram
from smoe_ray.figures.recommendation import plot_best_experts, plot_loss_at_amount, plot_surface_fit
from smoe_ray.figures.routing_by_label import plot_label_routing
from smoe_ray.figures.scaling import plot_loss_against_samples_per_expert, plot_loss_surface
from smoe_ray.figures.survival import plot_expert_survival

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Drawing(NamedTuple):
    """A figure that a notebook shows."""

    kind: str
    figure: Figure

    def _repr_png_(self) -> bytes:
        return render(self.figure, "png")


class FigureKind(NamedTuple):
    """How one kind of figure is made: ``plot(info(results))``."""

    info: Callable[[pd.DataFrame], Any]
    """Raises ResultsError if the results lack what the figure shows."""
    plot: Callable[[Any], Figure]
    description: str


def _fitted(results: pd.DataFrame) -> Recommendations:
    return recommend(results).fitted()


def _answered(results: pd.DataFrame) -> Recommendations:
    return recommend(results).answered()


FIGURES: dict[str, FigureKind] = {
    "training_curves": FigureKind(
        training_curves, plot_training_curves, "reconstruction error against epoch, one line per arm"
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
        "test loss against training images per active expert, one curve per amount of data",
    ),
    "usage_over_epochs": FigureKind(
        usage_over_epochs, plot_usage_over_epochs, "share of the test images routed to each expert, over epochs"
    ),
    "comparison": FigureKind(
        compare_arms, plot_comparison, "differences between arms, with confidence intervals and verdicts"
    ),
    "label_routing": FigureKind(
        label_routing, plot_label_routing, "test loss of unsupervised arms beside arms that are routed by label"
    ),
    "expert_survival": FigureKind(
        expert_survival, plot_expert_survival, "share of the experts still alive, over epochs"
    ),
    "phase_diagram": FigureKind(phase_diagram, plot_phase_diagram, "experts in use against the ratio of the penalties"),
    "best_experts": FigureKind(_answered, plot_best_experts, "best number of experts against the amount of data"),
    "loss_at_amount": FigureKind(
        _answered, plot_loss_at_amount, "fitted test loss against experts at the largest amount of data"
    ),
    "surface_fit": FigureKind(_fitted, plot_surface_fit, "measured test losses against the fitted loss surface"),
    "homogeneity": FigureKind(
        homogeneity, plot_homogeneity, "one expert on one class, on several classes, on more data"
    ),
    "datasets": FigureKind(
        dataset_verdict, plot_dataset_verdict, "several datasets: test loss and active experts against experts, of each"
    ),
}


def draw(results: pd.DataFrame, kind: str) -> Drawing:
    """Draw one kind of figure (the names of `FIGURES`) of the table of `read_results`.

    Raises:
        ResultsError: no such kind, or the results lack what it shows.
    """
    if kind not in FIGURES:
        raise ResultsError(f"figure {kind!r}: none of {', '.join(FIGURES)}")
    made = FIGURES[kind]
    return Drawing(kind, made.plot(made.info(results)))


__all__ = [
    "FIGURES",
    "Drawing",
    "FigureKind",
    "draw",
    "plot_ablation",
    "plot_best_experts",
    "plot_class_preference",
    "plot_comparison",
    "plot_dataset_verdict",
    "plot_exciting_inputs",
    "plot_expert_similarity",
    "plot_expert_survival",
    "plot_expert_tuning",
    "plot_gallery",
    "plot_homogeneity",
    "plot_interpolation",
    "plot_label_routing",
    "plot_loss_against_experts",
    "plot_loss_against_samples_per_expert",
    "plot_loss_at_amount",
    "plot_loss_surface",
    "plot_map",
    "plot_phase_diagram",
    "plot_probes",
    "plot_routing",
    "plot_surface_fit",
    "plot_swap_matrix",
    "plot_training_curves",
    "plot_usage_over_epochs",
    "render",
    "save",
]
